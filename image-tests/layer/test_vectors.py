"""The test vectors of the wrapped reply are those of a second implementation of docs/attestation.md."""
import subprocess
import sys

import layer

VECTORS = layer.REPOSITORY / "firstboot/formats/vectors"


def test_the_vectors_are_what_their_program_writes():
    made = subprocess.run([sys.executable, "-B", VECTORS / "make.py"], check=True, capture_output=True, text=True)
    assert made.stdout == (VECTORS / "reply-v1.json").read_text(), "run make.py (its head says how)"
