"""Licence expressions are read as SPDX defines them."""
import pytest
from spdx import alternatives


@pytest.mark.parametrize("expression, expected", [
    ("MIT", [{"MIT"}]),
    ("MIT OR Apache-2.0", [{"MIT"}, {"Apache-2.0"}]),
    ("MIT/Apache-2.0", [{"MIT"}, {"Apache-2.0"}]),
    ("Apache-2.0 AND ISC", [{"Apache-2.0", "ISC"}]),
    # AND before OR
    ("ISC OR MIT AND Zlib", [{"ISC"}, {"MIT", "Zlib"}]),
    ("(MIT OR Apache-2.0) AND Unicode-3.0", [{"MIT", "Unicode-3.0"}, {"Apache-2.0", "Unicode-3.0"}]),
    ("Apache-2.0 WITH LLVM-exception OR MIT", [{"Apache-2.0 WITH LLVM-exception"}, {"MIT"}]),
])
def test_the_choices_are_found(expression, expected):
    assert alternatives(expression) == expected


@pytest.mark.parametrize("expression", ["", "MIT OR", "OR MIT", "(MIT", "MIT)", "MIT ISC", "()", "see LICENSE"])
def test_an_invalid_expression_is_refused(expression):
    with pytest.raises(ValueError):
        alternatives(expression)
