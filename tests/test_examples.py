"""The examples run, and show what they say."""

import pathlib

import pytest
from cases import run_python

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def test_wav2vec_quantizer():
    pytest.importorskip("transformers")
    script = EXAMPLES / "wav2vec_quantizer.py"
    done = run_python(str(script), "--steps", "2", "--clips", "2", "--seconds", "1", timeout=200)
    assert done.returncode == 0, done.stderr
    rows = [line.rsplit(maxsplit=4) for line in done.stdout.splitlines()[2:]]
    losses = {name: [float(first), float(last)] for name, first, last, _, _ in rows}
    assert losses.keys() == {"transformers", "transformers, patched", "GumbelVectorQuantizer"}
    # Drawing the same noise they train alike.
    assert losses["GumbelVectorQuantizer"] == pytest.approx(losses["transformers, patched"], rel=1e-4)
    assert losses["GumbelVectorQuantizer"][0] == pytest.approx(losses["transformers"][0], rel=0.1)
