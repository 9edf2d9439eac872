"""What `make -C firstboot install` lays down, the recipe fetches, packages and enables."""
import fnmatch
import pathlib
import subprocess

import pytest

import layer

FIRSTBOOT = "recipes-tpm-greengrass/firstboot/firstboot_0.1.0.bb"
# bitbake.conf's FILES, as far as it covers something here.
DEFAULT_FILES = ["/usr/bin/*"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    subprocess.run(["make", "-s", "-C", layer.REPOSITORY / "firstboot", "install", f"DESTDIR={root}",
                    "BINARY=/bin/true"], check=True)
    return sorted("/" + str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_every_installed_file_is_in_the_package(parse, installed):
    patterns = DEFAULT_FILES + parse(FIRSTBOOT).getVar("FILES:firstboot").split()
    packaged = [f for f in installed if any(fnmatch.fnmatch(f, p) or f.startswith(p + "/") for p in patterns)]
    assert installed == packaged


def test_every_pattern_of_the_package_has_a_file(parse, installed):
    for pattern in parse(FIRSTBOOT).getVar("FILES:firstboot").split():
        assert any(f.startswith(pattern + "/") for f in installed), pattern


def test_one_program_is_installed(installed):
    assert [f for f in installed if f.startswith("/usr/bin/")] == ["/usr/bin/firstboot"]


def test_every_unit_with_an_install_section_is_enabled(parse):
    units = layer.REPOSITORY / "firstboot/systemd"
    wanted = {p.name for p in units.iterdir() if "[Install]" in p.read_text()}
    assert set(parse(FIRSTBOOT).getVar("SYSTEMD_SERVICE:firstboot").split()) == wanted


def test_no_name_is_made_of_a_machine_id_that_is_not_on_disk_yet():
    """oe-core's images have an empty /etc/machine-id, and the Raspberry Pi's kernel mounts their root read-only."""
    unit = (layer.REPOSITORY / "firstboot/systemd/firstboot.service").read_text()
    after = [name for line in unit.splitlines() if line.startswith("After=") for name in line[6:].split()]
    assert "systemd-machine-id-commit.service" in after


def test_what_the_units_call_is_in_the_image(parse):
    assert "fsck -a" in (layer.REPOSITORY / "firstboot/systemd/firstboot-fsck.service").read_text()
    assert {"dosfstools", "util-linux-fsck"} <= set(parse(FIRSTBOOT).getVar("RDEPENDS:firstboot").split())


@pytest.mark.parametrize("path", [str(p.relative_to(layer.LAYER)) for p in layer.files("*.bb")])
def test_every_local_file_is_there(parse, path):
    d = parse(path)
    places = [*(d.getVar("FILESEXTRAPATHS") or "").split(":"), (layer.LAYER / path).parent / "files"]
    for uri in (d.getVar("SRC_URI") or "").split():
        if uri.startswith("file://"):
            name = uri.removeprefix("file://")
            assert any((pathlib.Path(place) / name).exists() for place in places if place), name
