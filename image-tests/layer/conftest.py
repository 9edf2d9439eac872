"""Fixtures of the checks: layer.py's parser, with a folder for its stubs."""
import pytest

import layer


@pytest.fixture
def parse(tmp_path):
    """parse(path relative to the layer, overrides="", recipe="", VARIABLE=value, ...) returns the datastore."""
    return lambda path, overrides="", recipe="", **variables: layer.parse(
        layer.LAYER / path, tmp_path, overrides, recipe, **variables
    )
