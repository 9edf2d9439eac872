"""The card's layout: /boot is found on the medium that the board has booted from, and the system boots without it.
systemd's own generator reads the line of fstab."""
import os
import shlex
import subprocess

import pytest

import layer

WKS = layer.LAYER / "files/wic/sdimage-firstboot.wks"
GENERATOR = "/usr/lib/systemd/system-generators/systemd-fstab-generator"

# meta-raspberrypi's files/wic/sdimage-raspberrypi.wks (wrynose).
META_RASPBERRYPI = [
    "part /boot --source bootimg-partition --ondisk mmcblk0 --fstype=vfat --label boot --active --align 4096 --size 100",
    "part / --source rootfs --ondisk mmcblk0 --fstype=ext4 --label root --align 4096",
]
OURS = " --use-uuid --fsoptions "


def parts():
    return [line for line in WKS.read_text().splitlines() if line.startswith("part ")]


@pytest.mark.parametrize("asked, made", [
    ("sdimage-raspberrypi.wks", WKS.name),
    ("two-systems.wks.in", "two-systems.wks.in"),
    ("${IMAGE_BASENAME}.${MACHINE}.wks", "${IMAGE_BASENAME}.${MACHINE}.wks"),
])
def test_only_meta_raspberrypis_own_layout_is_replaced(parse, tmp_path, asked, made):
    image = tmp_path / "some-image.bb"
    image.write_text("inherit firstboot_card\n")
    assert parse(image, WKS_FILE=asked).getVar("WKS_FILE", False) == made


def test_the_partitions_are_meta_raspberrypis():
    boot, root = parts()
    assert [boot.partition(OURS)[0], root] == META_RASPBERRYPI
    assert OURS in boot


def test_file_names_are_utf_8_whatever_the_kernels_default_is():
    assert "utf8" in shlex.split(parts()[0].partition(OURS)[2])[0].split(",")


@pytest.fixture
def units(tmp_path):
    """units(device, options) returns the folder of the units that systemd generates from that line of fstab."""
    def generate(device, options):
        (tmp_path / "fstab").write_text(f"{device}\t/boot\tvfat\t{options}\t0\t0\n")
        folders = [tmp_path / name for name in ("normal", "early", "late")]
        for folder in folders:
            folder.mkdir()
        subprocess.run([GENERATOR, *folders], check=True, env={**os.environ, "SYSTEMD_FSTAB": str(tmp_path / "fstab")})
        return folders[0]
    return generate


def test_a_missing_boot_partition_is_no_emergency(units):
    options = shlex.split(parts()[0].partition(OURS)[2])[0]
    # wic's update_fstab: --use-uuid is the file system's UUID, --fsoptions the fourth field.
    made = units("UUID=2661-8777", options)
    assert (made / "local-fs.target.wants/boot.mount").exists()
    assert not (made / "local-fs.target.requires/boot.mount").exists()
    [timeout] = made.glob("dev-disk-by*uuid-2661*.device.d/50-device-timeout.conf")
    assert "TimeoutSec=10s" in timeout.read_text()


def test_with_meta_raspberrypis_layout_it_would_be_one(units):
    assert (units("/dev/mmcblk0p1", "defaults") / "local-fs.target.requires/boot.mount").exists()
