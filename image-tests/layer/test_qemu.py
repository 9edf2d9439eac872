"""runqemu's software TPM: a program that is still there when the image is run."""

WRAPPERS = "swtpm-wrappers-native:do_create_wrapper"
# Of the image itself: rm_work removes it, and an image from sstate never has it.
SYSROOT = "/tmp-dir/work/qemuarm64-oe-linux/some-image/1.0/recipe-sysroot-native/usr/bin"


def test_the_software_tpm_outlasts_the_images_work_directory(parse, tmp_path):
    image = tmp_path / "some-image.bb"
    image.write_text("inherit tpm_swtpm_qemu\n")
    d = parse(image, TMPDIR="/tmp-dir", BASE_WORKDIR="/tmp-dir/work", BUILD_SYS="x86_64-linux",
              STAGING_BINDIR_NATIVE=SYSROOT)
    command = d.getVar("QB_SETUP_CMD")
    assert "/tmp-dir/work/x86_64-linux/swtpm-wrappers-native/1.0/swtpm_oe.sh socket --tpm2" in command
    assert SYSROOT not in command
    # The first is for whoever builds the image, the second for whoever tests one that is built already.
    assert WRAPPERS in d.getVar("EXTRA_IMAGEDEPENDS").split()
    assert WRAPPERS in d.getVar("TESTIMAGEDEPENDS").split()
