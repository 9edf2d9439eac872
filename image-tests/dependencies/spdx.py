"""Licence expressions (SPDX specification, annex D), in the forms that crates use."""
import re


def alternatives(expression):
    """The alternatives to choose from: each is a set of licences that apply together."""
    # Cargo's older form of OR.
    words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    found = _either(words)
    if words:
        raise ValueError(f"cannot read the licence expression {expression!r}")
    return found


def _either(words):
    found = _all(words)
    while words and words[0] == "OR":
        words.pop(0)
        found += _all(words)
    return found


def _all(words):
    found = _one(words)
    while words and words[0] == "AND":
        words.pop(0)
        found = [a | b for b in _one(words) for a in found]
    return found


def _one(words):
    word = words.pop(0) if words else ""
    if word == "(":
        found = _either(words)
        if not words or words.pop(0) != ")":
            raise ValueError("a parenthesis is missing in a licence expression")
        return found
    if not re.fullmatch(r"[A-Za-z0-9.+-]+", word):
        raise ValueError(f"{word!r} is not the name of a licence")
    if words and words[0] == "WITH":
        word = " ".join([word, words.pop(0), words.pop(0) if words else ""])
    return [frozenset([word])]
