"""The crates of a workspace, as cargo resolves them, and the rules for them."""
import json
import os
import pathlib
import subprocess
import tomllib

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def rules():
    """The content of deny.toml."""
    return tomllib.loads((REPOSITORY / "deny.toml").read_text())


def cargo(*arguments):
    command = [os.environ.get("CARGO", "cargo"), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY).stdout


def platforms(option):
    """deny.toml's targets as arguments of this option of cargo."""
    return [f"--{option}={target}" for target in rules()["graph"]["targets"]]


def packages(manifest):
    """The packages of Cargo.lock by name and version, as `cargo metadata` describes them."""
    form = ["--format-version=1", "--locked", f"--manifest-path={manifest}"]
    metadata = json.loads(cargo("metadata", *form, *platforms("filter-platform")))
    return {(p["name"], p["version"]): p for p in metadata["packages"]}


def used(manifest, *arguments):
    """The names and versions that are built; Cargo.lock also has those of optional features."""
    form = ["--locked", "--prefix=none", "--format={p}", f"--manifest-path={manifest}"]
    tree = cargo("tree", *form, *platforms("target"), *arguments)
    words = (line.split() for line in tree.splitlines() if line)
    return {(name, version.removeprefix("v")) for name, version, *_ in words}
