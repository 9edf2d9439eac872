"""The recipe fetches exactly the crates that the workspace's Cargo.lock names."""
import importlib.machinery
import importlib.util
import tomllib

import layer

FOLDER = layer.LAYER / "recipes-tpm-greengrass/firstboot"


def load_crates():
    loader = importlib.machinery.SourceFileLoader("crates", str(layer.REPOSITORY / "image-tests/layer/crates"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("crates", loader))
    loader.exec_module(module)
    return module


def test_the_list_of_crates_is_that_of_the_lock_file():
    written = (FOLDER / "firstboot-crates.inc").read_text()
    assert written == load_crates().crates_inc(), "run image-tests/layer/crates (its head says how)"


def test_the_recipe_has_the_programs_version_and_the_repositorys_licence(parse):
    manifest = tomllib.loads((layer.REPOSITORY / "firstboot/Cargo.toml").read_text())
    version = manifest["package"]["version"]
    d = parse(f"recipes-tpm-greengrass/firstboot/firstboot_{version}.bb")
    import hashlib
    digest = hashlib.md5((layer.REPOSITORY / "LICENSE").read_bytes()).hexdigest()
    assert d.getVar("LIC_FILES_CHKSUM") == f"file://LICENSE;md5={digest}"
    assert d.getVar("LICENSE") == manifest["package"]["license"]
