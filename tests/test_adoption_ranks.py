"""A model with a ScalarQuantizer on two processes, trained by accelerate and by Lightning as it is."""

import json
import pathlib
import statistics

import pytest
import torch
from cases import run_python
from torch import distributed

SCRIPT = str(pathlib.Path(__file__).with_name("train_on_ranks.py"))
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not distributed.is_available() or not distributed.is_gloo_available(),
        reason="needs torch.distributed and gloo",
    ),
]


@pytest.mark.parametrize(("package", "launcher"), [("accelerate", TORCHRUN), ("lightning", ())])
def test_training_on_two_processes(package, launcher, tmp_path):
    pytest.importorskip(package)
    done = run_python(*launcher, SCRIPT, package, str(tmp_path), timeout=300)
    assert done.returncode == 0, done.stderr
    zero, one = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert zero["world"] == one["world"] == 2

    # Other data, the same parameters; the loss falls on both.
    assert zero["losses"] != one["losses"]
    assert zero["parameters"] == one["parameters"]
    for rank in (zero, one):
        epoch = len(rank["losses"]) // 8
        assert epoch == 512 // 32 // 2
        first, last = (statistics.fmean(part) for part in (rank["losses"][:epoch], rank["losses"][-epoch:]))
        assert last < 0.7 * first

    # Usage is what both ranks took.
    assert zero["taken"] != one["taken"]
    taken = torch.tensor(zero["taken"]) + torch.tensor(one["taken"])
    assert zero["usage"] == one["usage"] == taken.tolist()
    assert taken.sum(-1).tolist() == [8 * 512] * 6

    # The same seed, other noise; the same where the rows are said to be the same.
    assert zero["drawn"] != one["drawn"]
    assert zero["drawn_as_rank_0"] == one["drawn_as_rank_0"] == zero["drawn"]
