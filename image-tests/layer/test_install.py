"""The recipe fetches, packages and enables everything that `make -C firstboot install` installs."""
import fnmatch
import pathlib
import subprocess

import pytest

import layer

FIRSTBOOT = "recipes-tpm-greengrass/firstboot/firstboot_0.1.0.bb"
# The part of bitbake.conf's FILES that matters here, for the package and its -doc.
DEFAULT_FILES = ["/usr/bin/*", "/usr/share/man"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    subprocess.run(["make", "-s", "-C", layer.REPOSITORY / "firstboot", "install", f"DESTDIR={root}",
                    "BINARY=/bin/true", "GENERATOR=/bin/true"], check=True)
    return sorted("/" + str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def patterns(d, package):
    return d.getVar(f"FILES:{package}").split()


def test_every_installed_file_is_in_a_package(parse, installed):
    d = parse(FIRSTBOOT)
    packages = ["firstboot", *d.getVar("PACKAGE_BEFORE_PN").split()]
    every = DEFAULT_FILES + [pattern for package in packages for pattern in patterns(d, package)]
    packaged = [f for f in installed if any(fnmatch.fnmatch(f, p) or f.startswith(p + "/") for p in every)]
    assert installed == packaged
    for package in packages:
        own = patterns(d, package)
        assert any(fnmatch.fnmatch(f, p) or f.startswith(p + "/") for f in installed for p in own), package


def test_every_pattern_of_the_package_has_a_file(parse, installed):
    for pattern in patterns(parse(FIRSTBOOT), "firstboot"):
        assert any(f.startswith(pattern + "/") for f in installed), pattern


def test_the_licences_are_in_the_package_that_is_in_the_image(parse, installed):
    """Not in -doc, which no image has: the licences require that their texts come with the program."""
    licences = [f for f in installed if f.startswith("/usr/share/licenses/")]
    assert [pathlib.Path(f).name for f in licences] == ["LICENSE", "THIRD-PARTY.txt"]
    own = patterns(parse(FIRSTBOOT), "firstboot")
    assert all(any(f.startswith(p + "/") for p in own) for f in licences)


def test_the_stations_rule_installs_the_same_kinds_of_files(tmp_path, installed):
    subprocess.run(["make", "-s", "-C", layer.REPOSITORY / "firstboot", "install-station", f"DESTDIR={tmp_path}",
                    "STATION=/bin/true"], check=True)
    station = sorted("/" + str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    device = [f for f in installed if f.startswith(("/usr/bin/", "/usr/share/"))]
    assert len(station) == len(device)
    assert {f.rsplit("/", 1)[0] for f in station} == {
        f.rsplit("/", 1)[0].replace("/firstboot", "/firstboot-station").replace("man8", "man1") for f in device}


def test_one_program_is_installed(installed):
    assert [f for f in installed if f.startswith("/usr/bin/")] == ["/usr/bin/firstboot"]


def test_every_unit_with_an_install_section_is_enabled(parse):
    units = layer.REPOSITORY / "firstboot/systemd"
    wanted = {p.name for p in units.iterdir() if "[Install]" in p.read_text()}
    d = parse(FIRSTBOOT)
    packages = d.getVar("SYSTEMD_PACKAGES").split()
    enabled = {unit for package in packages for unit in d.getVar(f"SYSTEMD_SERVICE:{package}").split()}
    assert enabled == wanted


def test_what_is_for_networks_is_in_a_package_of_its_own(parse, installed):
    d = parse(FIRSTBOOT)
    own = [f for f in installed
           if any(fnmatch.fnmatch(f, p) or f.startswith(p + "/") for p in patterns(d, "firstboot-eap-tls"))]
    units = "/usr/lib/systemd/system"
    assert own == [
        "/usr/lib/firstboot/start-networks",
        f"{units}/firstboot-enroll.service.d/10-eap-tls.conf",
        f"{units}/firstboot-network.path",
        f"{units}/firstboot-network.service",
        f"{units}/firstboot-renew.service.d/10-eap-tls.conf",
        f"{units}/wpa_supplicant-wired@.service.d/10-firstboot.conf",
        f"{units}/wpa_supplicant@.service.d/10-firstboot.conf",
        "/usr/lib/tmpfiles.d/firstboot-eap-tls.conf",
    ]
    assert {"firstboot", "pkcs11-provider", "wpa-supplicant"} == set(d.getVar("RDEPENDS:firstboot-eap-tls").split())
    assert "wpa-supplicant" not in d.getVar("RDEPENDS:firstboot")


def test_no_name_is_made_of_a_machine_id_that_is_not_on_disk_yet():
    """oe-core's images have an empty /etc/machine-id, and the Raspberry Pi's kernel mounts the root read-only."""
    unit = (layer.REPOSITORY / "firstboot/systemd/firstboot.service").read_text()
    after = [name for line in unit.splitlines() if line.startswith("After=") for name in line[6:].split()]
    assert "systemd-machine-id-commit.service" in after


def test_what_the_units_call_is_in_the_image(parse):
    assert "=fsck.fat " in (layer.REPOSITORY / "firstboot/systemd/firstboot-fsck@.service").read_text()
    assert "dosfstools" in set(parse(FIRSTBOOT).getVar("RDEPENDS:firstboot").split())


@pytest.mark.parametrize("path", [str(p.relative_to(layer.LAYER)) for p in layer.files("*.bb")])
def test_every_local_file_is_there(parse, path):
    d = parse(path)
    places = [*(d.getVar("FILESEXTRAPATHS") or "").split(":"), (layer.LAYER / path).parent / "files"]
    for uri in (d.getVar("SRC_URI") or "").split():
        if uri.startswith("file://"):
            name = uri.removeprefix("file://")
            assert any((pathlib.Path(place) / name).exists() for place in places if place), name
