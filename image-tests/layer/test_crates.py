"""The recipe fetches exactly the device's crates: those of this repository, and those in the workspace's Cargo.lock."""
import hashlib
import importlib.machinery
import importlib.util
import json
import shutil
import subprocess
import sys
import tomllib

import pytest

import layer

FOLDER = layer.LAYER / "recipes-tpm-greengrass/firstboot"


def load_crates():
    loader = importlib.machinery.SourceFileLoader("crates", str(layer.REPOSITORY / "image-tests/layer/crates"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("crates", loader))
    loader.exec_module(module)
    return module


def test_the_list_of_crates_is_that_of_the_lock_file():
    written = (FOLDER / "firstboot-crates.inc").read_text()
    assert written == load_crates().crates_inc(), "run `make generated`"


def test_the_recipe_has_the_programs_version(parse):
    manifest = tomllib.loads((layer.REPOSITORY / "Cargo.toml").read_text())
    version = manifest["workspace"]["package"]["version"]
    assert parse(f"recipes-tpm-greengrass/firstboot/firstboot_{version}.bb").getVar("PV") == version


def test_the_recipe_has_the_licences_of_the_program_and_its_crates(parse):
    sys.path.append(str(layer.REPOSITORY / "image-tests/dependencies"))
    import notices
    d = parse("recipes-tpm-greengrass/firstboot/firstboot_0.1.0.bb")
    assert d.getVar("LICENSE") == " & ".join(sorted(notices.licences("firstboot")))
    digests = [f"file://{path};md5={hashlib.md5((layer.REPOSITORY / path).read_bytes()).hexdigest()}"
               for path in ("LICENSE", "firstboot/THIRD-PARTY.txt")]
    assert d.getVar("LIC_FILES_CHKSUM").split() == digests


def fetched(d):
    """The files and folders of this repository that the recipe fetches."""
    sources = [url.removeprefix("file://") for url in d.getVar("SRC_URI").split() if url.startswith("file://")]
    assert sources
    return sources


def packages(sources, folder, manifest=None):
    """The names of the packages that cargo finds in a copy of these sources."""
    for source in sources:
        (folder / source).parent.mkdir(parents=True, exist_ok=True)
        if (layer.REPOSITORY / source).is_dir():
            shutil.copytree(layer.REPOSITORY / source, folder / source)
        else:
            shutil.copy(layer.REPOSITORY / source, folder / source)
    if manifest is not None:
        (folder / "Cargo.toml").write_text(manifest)
    done = subprocess.run(["cargo", "metadata", "--no-deps", "--offline", "--format-version=1"], cwd=folder,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {package["name"] for package in json.loads(done.stdout)["packages"]}


DEVICE = {"firstboot", "firstboot-formats"}


def test_the_recipe_has_the_sources_of_the_devices_crates_alone(parse, tmp_path):
    sources = fetched(parse("recipes-tpm-greengrass/firstboot/firstboot_0.1.0.bb"))
    assert packages(sources, tmp_path / "sources") == DEVICE
    assert not [path for path in (tmp_path / "sources").rglob("*") if path.name in ("station", "fuzz", "target")]


def test_a_crate_too_many_or_too_few_is_noticed(parse, tmp_path):
    sources = fetched(parse("recipes-tpm-greengrass/firstboot/firstboot_0.1.0.bb"))
    with_station = (layer.REPOSITORY / "Cargo.toml").read_text().replace(
        'members = ["firstboot",', 'members = ["firstboot", "firstboot/station",')
    with pytest.raises(AssertionError, match="firstboot/station"):
        packages(sources, tmp_path / "many", with_station)
    without_formats = [source for source in sources if not source.startswith("firstboot/formats")]
    with pytest.raises(AssertionError, match="firstboot/formats"):
        packages(without_formats, tmp_path / "few")


def test_the_lock_file_has_the_devices_crates_alone():
    """Crates that only the station or the tests need are in their own lock files."""
    lock = tomllib.loads((layer.REPOSITORY / "Cargo.lock").read_text())
    assert {package["name"] for package in lock["package"] if "source" not in package} == DEVICE


def test_station_and_device_have_the_same_versions():
    """The formats are built with the crates of both lock files, and have to behave the same."""
    def versions(path):
        lock = tomllib.loads((layer.REPOSITORY / path).read_text())
        return {(p["name"], p["version"]) for p in lock["package"] if p["name"] in names}

    def named(path):
        return {p["name"] for p in tomllib.loads((layer.REPOSITORY / path).read_text())["package"]}

    names = named("Cargo.lock") & named("firstboot/station/Cargo.lock")
    assert "openssl" in names
    assert versions("Cargo.lock") == versions("firstboot/station/Cargo.lock")
