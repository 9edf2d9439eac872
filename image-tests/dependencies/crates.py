"""The crates of a workspace, as cargo resolves them, and the rules for them."""
import json
import os
import pathlib
import subprocess
import tomllib

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def rules():
    """deny.toml."""
    return tomllib.loads((REPOSITORY / "deny.toml").read_text())


def cargo(*arguments):
    command = [os.environ.get("CARGO", "cargo"), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY).stdout


def platforms(option):
    """deny.toml's targets, as this option of cargo's wants them."""
    return [f"--{option}={target}" for target in rules()["graph"]["targets"]]


def packages(manifest):
    """What Cargo.lock names, by name and version, as `cargo metadata` describes it."""
    form = ["--format-version=1", "--locked", f"--manifest-path={manifest}"]
    metadata = json.loads(cargo("metadata", *form, *platforms("filter-platform")))
    return {(p["name"], p["version"]): p for p in metadata["packages"]}


def used(manifest, *arguments):
    """The names and versions that are really built; Cargo.lock also has what optional features would bring."""
    form = ["--locked", "--prefix=none", "--format={p}", f"--manifest-path={manifest}"]
    tree = cargo("tree", *form, *platforms("target"), *arguments)
    words = (line.split() for line in tree.splitlines() if line)
    return {(name, version.removeprefix("v")) for name, version, *_ in words}
