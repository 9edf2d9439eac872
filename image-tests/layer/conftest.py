"""What the checks share: the parser of layer.py with a folder for its stubs."""
import pytest

import layer


@pytest.fixture
def parse(tmp_path):
    """parse(path relative to the layer, overrides="", recipe="", VARIABLE=value, ...): the datastore."""
    return lambda path, overrides="", recipe="", **variables: layer.parse(
        layer.LAYER / path, tmp_path, overrides, recipe, **variables
    )
