#!/usr/bin/env -S python3 -B
"""Writes the licence texts of the crates that a program has linked in, from the crates' own files. The program is named
by its folder:

    image-tests/dependencies/notices.py firstboot >firstboot/THIRD-PARTY.txt
    image-tests/dependencies/notices.py firstboot/station >firstboot/station/THIRD-PARTY.txt
"""
import pathlib
import re
import sys
import tomllib

from crates import REPOSITORY, packages, rules, used
from spdx import alternatives

# A sentence of each licence: a file without it does not have the licence's text.
SENTENCES = {
    "MIT": "Permission is hereby granted, free of charge",
    "BSD-3-Clause": "Redistributions in binary form must reproduce",
    "ISC": "Permission to use, copy, modify, and/or distribute this software",
    "Zlib": "Altered source versions must be plainly marked",
    "Apache-2.0": "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION",
    "Unicode-DFS-2016": "UNICODE, INC. LICENSE AGREEMENT - DATA FILES AND SOFTWARE",
    "Unlicense": "free and unencumbered software released into the public domain",
}
# Crates without a licence text, and a crate by the same authors that has it.
TEXTS_OF = {"embassy-futures": "embedded-io"}

HEAD = """\
{program} is under the MIT licence; see LICENSE. Its executable has the crates below linked in, and the Rust standard
library (MIT OR Apache-2.0, Copyright (c) The Rust Project Contributors). These are their licences as their authors
published them; of several to choose from, the one that the crate is used under here.
"""
RULE = "=" * 100


def linked(folder):
    """The crates in a program's executable, each with the licences that it is used under and their texts."""
    manifest = REPOSITORY / folder / "Cargo.toml"
    every = packages(manifest)
    folders = {name: pathlib.Path(package["manifest_path"]).parent for (name, _), package in every.items()}
    for crate in sorted(used(manifest, "--edges=normal,no-proc-macro")):
        if every[crate]["source"] is None:
            continue
        name, version = crate
        choice = alternatives(every[crate]["license"])
        licences, texts = texts_of(folders[TEXTS_OF.get(name, name)], chosen(choice), frozenset().union(*choice))
        yield f"{name} {version}", licences, texts


def chosen(choice):
    """The first alternative in deny.toml's order."""
    allow = rules()["licenses"]["allow"]
    allowed = [licences for licences in choice if licences <= set(allow)]
    return min(allowed, key=lambda licences: sorted(allow.index(licence) for licence in licences))


def texts_of(folder, licences, declared):
    """From a crate's files: the texts of these licences, its notices, and the licences and texts of code by others that
    it does not declare."""
    texts = []
    found = set()
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or not re.search(r"licen[cs]e|copying|copyright|notice", name, re.IGNORECASE):
            continue
        text = path.read_text()
        flat = " ".join(text.split())
        kinds = {licence for licence, sentence in SENTENCES.items() if sentence in flat}
        # Any other file names the copyright holders, or says which licence applies to what.
        if not kinds or kinds & licences or kinds - declared:
            texts.append(text)
            found |= kinds & licences | kinds - declared
    if licences - found:
        raise SystemExit(f"{folder.name} has no text of {', '.join(licences - found)}: see TEXTS_OF")
    return found, texts


def licences(folder):
    """All licences that apply to a program's executable, its own included."""
    return {"MIT"}.union(*(licences for _, licences, _ in linked(folder)))


def notices(folder):
    """The content of THIRD-PARTY.txt."""
    program = tomllib.loads((REPOSITORY / folder / "Cargo.toml").read_text())["package"]["name"]
    crates_of = {}
    for crate, _, texts in linked(folder):
        for text in texts:
            crates_of.setdefault(tidy(text), []).append(crate)
    parts = [HEAD.format(program=program)]
    for text, crates in sorted(crates_of.items(), key=lambda item: item[1]):
        parts.append(f"{RULE}\n{wrapped(crates)}\n\n{text}\n")
    return "\n".join(parts)


def tidy(text):
    """Without the differences between copies of one text: spaces at line ends, blank lines around it."""
    return "\n".join(line.rstrip() for line in text.expandtabs().splitlines()).strip("\n")


def wrapped(crates):
    lines = [""]
    for crate in crates:
        if len(lines[-1]) + len(crate) > len(RULE) - 3:
            lines.append("")
        lines[-1] += f", {crate}" if lines[-1] else crate
    return ",\n".join(lines)


if __name__ == "__main__":
    print(notices(sys.argv[1]), end="")
