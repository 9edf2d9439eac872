"""check.py finds what deny.toml forbids."""
import check
from crates import rules

REGISTRY = "registry+https://example.invalid/crates.io-index"


def package(licence="MIT", source=REGISTRY, dependencies=()):
    return {"license": licence, "source": source, "dependencies": list(dependencies)}


def found(**packages):
    """The problems reported for packages named name_1_0."""
    named = {}
    for key, value in packages.items():
        name, version = key.split("_", 1)
        named[name, version.replace("_", ".")] = value
    return check.objections(named, rules())


def test_all_workspaces_obey_the_rules():
    assert not check.main()


def test_a_licence_that_is_not_allowed_is_found():
    assert found(a_1_0=package("MIT OR GPL-3.0-only")) == []
    for licence in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "Apache-2.0 WITH Swift-exception", "", None, "MIT OR"]:
        assert len(found(a_1_0=package(licence))) == 1, licence


def test_crates_from_elsewhere_are_found():
    assert found(a_1_0=package(source=None)) == []
    for source in ["git+https://example.invalid/a#0", "registry+https://example.invalid/other-index"]:
        assert found(a_1_0=package(source=source)) == [f"a 1.0: it comes from {source}"]


def test_banned_and_repeated_crates_are_found():
    assert found(ring_0_17_1=package()) == ["ring 0.17.1: deny.toml bans it"]
    assert found(a_1_0=package(), a_2_0=package()) == ["a: more than one version (1.0, 2.0)"]
    # one of these is skipped: syn 2, but not syn 20
    assert found(syn_2_0_1=package(), syn_3_0=package()) == []
    assert found(syn_20_0=package(), syn_3_0=package()) == ["syn: more than one version (20.0, 3.0)"]


def test_a_requirement_of_any_version_is_found():
    any_version = {"name": "b", "req": "*"}
    assert found(a_1_0=package(source=None, dependencies=[any_version])) != []
    assert found(a_1_0=package(source=None, dependencies=[{**any_version, "path": "/b"}])) == []
