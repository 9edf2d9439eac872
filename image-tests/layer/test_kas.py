"""The kas files are valid by kas's schema, pinned, and each machine's is complete with its includes."""
import pathlib

import jsonschema
import kas.configschema
import pytest
import yaml

import layer

KAS = layer.LAYER / "kas"
MACHINES = ["raspberrypi3-64", "raspberrypi4-64", "raspberrypi5", "qemuarm64"]


def read(name):
    return yaml.safe_load((KAS / f"{name}.yml").read_text())


def with_includes(name):
    """The file's configuration, merged over its includes and their lock files."""
    whole = {"repos": {}, "local_conf_header": {}, "commits": {}}
    content = read(name)
    for include in content["header"].get("includes", []):
        for key, value in with_includes(pathlib.PurePath(include).stem).items():
            whole[key] = {**whole.get(key, {}), **value} if isinstance(value, dict) else value
    if (KAS / f"{name}.lock.yml").exists():
        whole["commits"].update(read(f"{name}.lock")["overrides"]["repos"])
    for key, value in content.items():
        whole[key] = {**whole.get(key, {}), **value} if isinstance(value, dict) else value
    return whole


@pytest.mark.parametrize("path", sorted(p.stem for p in KAS.glob("*.yml")))
def test_file_is_valid(path):
    jsonschema.validate(read(path), kas.configschema.CONFIGSCHEMA)


@pytest.mark.parametrize("machine", MACHINES)
def test_machine_has_all_layers_and_each_is_pinned(machine):
    config = with_includes(machine)
    assert config["machine"] == machine
    foreign = {name for name, repo in config["repos"].items() if "url" in repo}
    assert foreign == set(config["commits"])
    assert ("meta-raspberrypi" in foreign) == machine.startswith("raspberrypi")
    assert 'DISTRO_FEATURES:append = " tpm-greengrass"' in config["local_conf_header"]["tpm-greengrass"]


def test_every_repository_is_fetched_over_tls():
    for machine in MACHINES:
        for repo in with_includes(machine)["repos"].values():
            assert repo.get("url", "https://").startswith("https://")
