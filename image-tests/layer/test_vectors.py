"""The test vectors are those of a second implementation of docs/attestation.md."""
import subprocess
import sys

import pytest

import layer

VECTORS = layer.REPOSITORY / "firstboot/formats/vectors"


@pytest.mark.parametrize(
    "program, vectors", [("make.py", "reply-v1.json"), ("countersignature.py", "countersignature-v1.json")]
)
def test_the_vectors_are_what_their_program_writes(program, vectors):
    made = subprocess.run([sys.executable, "-B", VECTORS / program], check=True, capture_output=True, text=True)
    assert made.stdout == (VECTORS / vectors).read_text(), f"run {program} (its head says how)"
