"""An image that would lose its identity, configuration or deployments at the next boot is not built."""
import pytest

import layer

# From openembedded-core's base-files, with the first line as read-only-rootfs changes it.
FSTAB = """# stock fstab
/dev/root            /                    auto       defaults              1  1
tmpfs                /run                 tmpfs      mode=0755,nodev,nosuid,strictatime 0  0
tmpfs                /var/volatile        tmpfs      defaults              0  0
"""
READ_ONLY = FSTAB.replace("defaults              1  1", "ro              1  0")
DATA = "/dev/mmcblk0p3\t/data\text4\tdefaults\t0\t2\n"


def volatile_bind(what, where):
    """The part of openembedded-core's volatile-binds.service.in with the paths."""
    return f"[Service]\nType=oneshot\nExecStart=/sbin/mount-copybind {what} {where}\nExecStop=/bin/umount {where}\n"


def overlay_unit(where, data):
    """openembedded-core's overlayfs-unit.mount.in."""
    return (f"[Mount]\nWhat=overlay\nWhere={where}\nType=overlay\n"
            f"Options=lowerdir={where},upperdir={data}/upper{where},workdir={data}/workdir{where}\n")


BINDS = {"usr/lib/systemd/system/var-volatile-lib.service": volatile_bind("/var/volatile/lib", "/var/lib"),
         "usr/lib/systemd/system/var-volatile-cache.service": volatile_bind("/var/volatile/cache", "/var/cache")}
LITE = ["etc/greengrass", "var/lib/greengrass"]
NUCLEUS = ["greengrass/v2"]


def test_a_change_of_what_the_check_reads_runs_it_again(parse, tmp_path):
    recipe = tmp_path / "some-image.bb"
    recipe.write_text("inherit firstboot_state\n")
    d = parse(recipe)
    assert set(d.getVar("IMAGE_QA_COMMANDS").split()) <= set(d.getVarFlag("do_image_qa", "vardeps").split())


@pytest.fixture
def image(parse, tmp_path):
    """image(fstab, files, folders, links, VARIABLE=value) runs the check on an image with these."""
    def run(fstab=FSTAB, files=None, folders=(), links=None, program=True, **variables):
        root = tmp_path / "rootfs"
        for folder in ("etc", "usr/bin", "var/lib", *folders):
            (root / folder).mkdir(parents=True, exist_ok=True)
        if program:
            (root / "usr/bin/firstboot").touch()
        for path, text in {"etc/fstab": fstab, **(files or {})}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        for path, target in (links or {}).items():
            (root / path).symlink_to(target)
        recipe = tmp_path / "some-image.bb"
        recipe.write_text("inherit firstboot_state\n")
        d = parse(recipe, IMAGE_ROOTFS=str(root), **variables)
        context = {name: layer.function(d, name) for name in d.getVar("IMAGE_QA_COMMANDS").split()}
        for check in context.values():
            check(d)
    return run


RO = {"fstab": READ_ONLY, "IMAGE_FEATURES": "read-only-rootfs"}


@pytest.mark.parametrize("made", [
    # openembedded-core's read-only image: /var/lib is bound from memory
    {**RO, "files": BINDS},
    # without volatile-binds
    RO,
    # the image's own tmpfs, in fstab and as a unit
    {"fstab": FSTAB + "tmpfs /var/lib tmpfs size=16m 0 0\n"},
    {"files": {"etc/systemd/system/var.mount": "[Mount]\nWhat=ramfs\nWhere=/var\nType=ramfs\n"}},
    # an overlay whose upper directory is in memory, and a bind to memory
    {**RO, "files": {"usr/lib/systemd/system/var-lib.mount": overlay_unit("/var/lib", "/run/overlay")}},
    {"fstab": FSTAB + "/var/volatile/state /var/lib none bind 0 0\n"},
    # the identity alone
    {"folders": ["var/lib"], "links": {"var/lib/tpm2_pkcs11": "../volatile/tpm2_pkcs11"}},
    # the kernel's arguments
    {"APPEND": "console=ttyS0 systemd.volatile=state"},
    {"APPEND": "systemd.volatile=overlay"},
    # the identity is durable, Greengrass's directories are not
    {**RO, "fstab": READ_ONLY + "/dev/mmcblk0p3 /var/lib ext4 defaults 0 2\n", "folders": LITE},
    {**RO, "fstab": READ_ONLY + "/dev/mmcblk0p3 /var/lib ext4 defaults 0 2\n", "folders": NUCLEUS},
    # a partition that is read-only
    {"fstab": FSTAB + "/dev/mmcblk0p3 /var/lib squashfs ro 0 0\n"},
    # a bind to itself changes nothing, and two to each other lead nowhere
    {**RO, "fstab": READ_ONLY + "/var/lib /var/lib none bind 0 0\n"},
    {**RO, "fstab": READ_ONLY + "/a /var/lib none bind 0 0\n/var/lib /a none bind 0 0\n"},
])
def test_state_that_would_be_lost_fails_the_build(image, made):
    with pytest.raises(layer.bb.BBHandledException):
        image(**made)


@pytest.mark.parametrize("made", [
    {},
    # the same root file system, writable: volatile-binds does nothing there
    {"files": BINDS, "folders": LITE + NUCLEUS},
    # a partition for /var/lib, or for all of /var, in spite of volatile-binds
    {**RO, "files": BINDS, "fstab": READ_ONLY + "/dev/mmcblk0p3 /var/lib ext4 defaults 0 2\n"},
    {**RO, "files": {"usr/lib/systemd/system/var.mount": "[Mount]\nWhat=/dev/mmcblk0p3\nWhere=/var\nType=ext4\n"}},
    # volatile-binds with another source (VOLATILE_BINDS)
    {**RO, "fstab": READ_ONLY + DATA,
     "files": {"usr/lib/systemd/system/data-lib.service": volatile_bind("/data/lib", "/var/lib")}},
    # overlays and binds that end on a partition; overlayfs-etc
    {**RO, "fstab": READ_ONLY + DATA + "/data/greengrass /greengrass none bind 0 0\n", "folders": LITE + NUCLEUS,
     "files": {"usr/lib/systemd/system/var-lib.mount": overlay_unit("/var/lib", "/data")},
     "IMAGE_FEATURES": "read-only-rootfs overlayfs-etc"},
    # a link to a partition
    {**RO, "fstab": READ_ONLY + DATA, "links": {"var/lib/tpm2_pkcs11": "/data/tpm2_pkcs11"}},
    {"APPEND": "systemd.volatile=no"},
    {"APPEND": "systemd.volatile=state", "fstab": FSTAB + "/dev/mmcblk0p3 /var/lib ext4 defaults 0 2\n"},
    # an initramfs, without firstboot
    {**RO, "files": BINDS, "program": False},
])
def test_state_that_lasts_is_left_alone(image, made):
    image(**made)


def test_the_references_advice_passes_the_check(image):
    """The lines for fstab in docs/reference.md, "What must last"."""
    section = (layer.LAYER / "docs/reference.md").read_text().partition("## What must last")[2]
    lines = section.split("```")[1]
    image(**{**RO, "fstab": READ_ONLY + lines}, files=BINDS, folders=LITE + NUCLEUS)


def test_firstboots_directory_is_the_one_that_is_checked(parse, tmp_path):
    recipe = tmp_path / "some-image.bb"
    recipe.write_text("inherit firstboot_state\n")
    identity = parse(recipe).getVar("FIRSTBOOT_STATE").split()[0]
    assert f'IDENTITY: &str = "{identity}"' in (layer.REPOSITORY / "firstboot/src/layout.rs").read_text()
