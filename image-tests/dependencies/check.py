#!/usr/bin/env -S python3 -B
"""Checks the crates of all workspaces against deny.toml: licences, bans and sources, as `cargo deny check licenses
bans sources` does. cargo-deny itself takes four minutes to build. Advisories are left to it.

    image-tests/dependencies/check.py
"""
import collections
import sys

from crates import REPOSITORY, packages, rules, used
from spdx import alternatives

WORKSPACES = ["Cargo.toml", "firstboot/formats/fuzz/Cargo.toml", "firstboot/station/Cargo.toml", "image-tests/Cargo.toml"]


def licence_objections(package, allow):
    try:
        choice = alternatives(package["license"] or "")
    except ValueError as why:
        return [str(why)]
    if any(licences <= set(allow) for licences in choice):
        return []
    return [f"its licence is {package['license']}, which deny.toml does not allow"]


def source_objections(package):
    """Crates come from the crate registry, or from this repository."""
    source = package["source"]
    if source is None or (source.startswith("registry+") and source.endswith("/crates.io-index")):
        return []
    return [f"it comes from {source}"]


def wildcard_objections(package):
    if package["source"] is not None:
        return []
    wild = [d["name"] for d in package["dependencies"] if d["req"] == "*" and "path" not in d]
    return [f"any version of {name} would do (a requirement of *)" for name in wild]


def is_named(name, version, entry):
    """Whether an entry of bans, "name" or "name@version", matches this package; version 2 matches all 2.x."""
    wanted, _, prefix = entry["crate"].partition("@")
    return name == wanted and (version + ".").startswith(prefix + "." if prefix else "")


def objections(found, deny):
    """The problems of these packages, one line each."""
    wrong = []
    versions = collections.defaultdict(list)
    for (name, version), package in sorted(found.items()):
        said = licence_objections(package, deny["licenses"]["allow"])
        said += source_objections(package) + wildcard_objections(package)
        if any(is_named(name, version, entry) for entry in deny["bans"]["deny"]):
            said.append("deny.toml bans it")
        if not any(is_named(name, version, entry) for entry in deny["bans"]["skip"]):
            versions[name].append(version)
        wrong += [f"{name} {version}: {what}" for what in said]
    wrong += [f"{name}: more than one version ({', '.join(v)})" for name, v in versions.items() if len(v) > 1]
    return wrong


def main():
    failed = False
    for workspace in WORKSPACES:
        manifest = REPOSITORY / workspace
        every = packages(manifest)
        names = used(manifest, "--workspace", "--edges=normal,build,dev")
        for line in objections({name: every[name] for name in names}, rules()):
            print(f"{workspace}: {line}", file=sys.stderr)
            failed = True
    return failed


if __name__ == "__main__":
    sys.exit(main())
