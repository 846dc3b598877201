"""ScalarQuantizer in two processes over gloo: gradients under DistributedDataParallel, noise, and usage."""

import atexit
import itertools
import os

import pytest
import torch
from quantizers import z_of
from ranks import RANKS, each_on_ranks, needs_ranks, on_ranks
from torch.nn.parallel import DistributedDataParallel

from fqvae_kernels import QuantizerOutput, ScalarQuantizer

pytestmark = needs_ranks


def _end(rank, at_exit, during):
    if at_exit:
        atexit.register(os.abort)
    if rank == 1 and during is not None:
        during()
    return "x" * 10**6  # more than a pipe holds


def _fail():
    raise ValueError("on purpose")


@pytest.mark.parametrize(
    ("during", "problem"), [(None, None), (_fail, "ValueError: on purpose"), (os.abort, "a rank died before")]
)
def test_what_becomes_of_a_rank(tmp_path, during, problem):
    """A rank that aborts after it is done has done its work; before, it has not."""
    if problem is None:
        assert on_ranks(tmp_path, _end, True, None) == ["x" * 10**6] * RANKS
        return
    with pytest.raises(AssertionError, match=problem):
        on_ranks(tmp_path, _end, False, during)


class Encoded(torch.nn.Module):
    def __init__(self, estimator):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = torch.nn.Linear(4, 3)
        self.quantizer = ScalarQuantizer(6, estimator=estimator, kl_weight=0.1, codebook_weight=0.2)

    def forward(self, x, seed):
        return self.quantizer(self.encoder(x), seed=seed)


def _train(rank, settings):
    return [_train_one(rank, *setting) for setting in settings]


def _train_one(rank, estimator, static_graph):
    model = DistributedDataParallel(Encoded(estimator), static_graph=static_graph)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    generator = torch.Generator().manual_seed(rank)
    kept = []
    for step in range(20):
        optimizer.zero_grad()
        out = model(torch.randn(16, 4, generator=generator), seed=2 * step + rank)
        kept.append(type(out) is QuantizerOutput and out.losses.keys() == {"kl", "codebook"})
        quantized, _, loss = out
        total = (quantized - 1).square().mean() + loss
        if out.kl is not None:
            total = total + 0.1 * out.kl.mean()
        total.backward()
        optimizer.step()
    module = model.module
    return [parameter.tolist() for parameter in module.parameters()], all(kept)


TRAINED = list(itertools.product(("gumbel", "straight_through", "reinmax", "nearest"), (True, False)))


def test_gradients_are_synchronised(found):
    """Ranks see other data and noise, and hold the same parameters after 20 steps."""
    for setting, one, other in zip(TRAINED, *found[_train], strict=True):
        start = [parameter.tolist() for parameter in Encoded(setting[0]).parameters()]
        assert one == other and one[1], setting
        assert all(trained != initial for trained, initial in zip(one[0], start, strict=True)), setting


def _count(rank):
    q = ScalarQuantizer(3, estimator="nearest", init=torch.tensor([0.0, 1.0, 2.0]))
    found = []
    # Nobody has counted; one rank alone; each a different number of latents.
    for z in (None, [[0.0, 1.0]], [[2.0]] if rank == 0 else [[2.0, 2.0, 1.0, 0.0]]):
        if z is not None and not (rank == 1 and z == [[0.0, 1.0]]):
            q(torch.tensor(z))
        found.append((q.usage.tolist(), q.perplexity().tolist(), q.perplexity(sync=False).tolist()))
    return found


def test_usage_sums_over_ranks_with_different_latents(found):
    zero, one = found[_count]
    assert [part[0] for part in zero] == [part[0] for part in one]
    assert [part[1] for part in zero] == [part[1] for part in one]
    assert zero[0][0] == [] and zero[1][0] == [[1, 0, 0], [0, 1, 0]]
    assert zero[2][0] == [[1, 0, 2], [0, 1, 1], [0, 1, 0], [1, 0, 0]]
    assert one[2][1] == pytest.approx([3 / 2 ** (2 / 3), 2.0, 1.0, 1.0])
    assert zero[2][2] == pytest.approx([2.0, 1.0]) and one[2][2] == pytest.approx([1.0] * 4)
    assert one[1][2] == []


SAMPLING = ("gumbel", "straight_through", "reinmax")


def _draw(rank):
    """Indices of equal z and seeds, for each estimator by how they come about."""
    z, found = torch.zeros(6, 4), {}
    for estimator in SAMPLING:
        torch.manual_seed(0)
        q = ScalarQuantizer(64, estimator=estimator)
        indices = {
            "eager": q(z, seed=7).indices,
            "again": q(z, seed=7).indices,
            "own rows": q(z, seed=7, row_offset=rank * 2**40).indices,
            "drawn seed": q(z).indices,
            "same rows": q(z, seed=7, row_offset=0).indices,
        }
        if estimator == "gumbel":
            indices["compiled"] = torch.compile(q, fullgraph=True, backend="aot_eager")(z, seed=7).indices
            exported = torch.export.export(q, (z,), {"seed": torch.tensor(7)}).module()
            indices["exported"] = exported(z, seed=torch.tensor(7)).indices
        found[estimator] = {name: value.tolist() for name, value in indices.items()}
    return found


def test_noise_differs_by_rank_unless_the_caller_says(found):
    for zero, one in zip(*(drawn.values() for drawn in found[_draw]), strict=True):
        assert zero["eager"] != one["eager"] and zero["drawn seed"] != one["drawn seed"]
        assert zero["same rows"] == one["same rows"] == zero["eager"]
        for rank in (zero, one):
            alike = rank.keys() - {"drawn seed", "same rows"}
            assert all(rank[name] == rank["eager"] for name in alike)


def _learn(q, z, row_offset):
    out = q(z, seed=5, row_offset=row_offset)
    (out.quantized.square().mean() + out.loss).backward()
    return out.quantized.tolist(), out.indices.tolist()


def _quantizer(options):
    torch.manual_seed(0)
    return ScalarQuantizer(6, kl_weight=0.1, **options)


def _shards(rank, z, settings):
    found = []
    for options in settings:
        model = DistributedDataParallel(_quantizer(options))
        rows = torch.tensor(z)[rank * len(z) // RANKS :][: len(z) // RANKS]
        found.append((*_learn(model, rows, rank * rows.numel()), model.module.codebook.grad.tolist()))
    return found


SHARDED = ({}, {"num_codebooks": 3, "hard": True})


def test_two_ranks_equal_one_process_on_the_whole_batch(found):
    """Given row_offset = rank * rows: codes, values, and the gradient that the ranks average."""
    z = z_of(8, 3)
    for options, zero, one in zip(SHARDED, *found[_shards], strict=True):
        q = _quantizer(options)
        quantized, indices = _learn(q, z, 0)
        assert zero[0] + one[0] == quantized and zero[1] + one[1] == indices
        torch.testing.assert_close(torch.tensor(zero[2]), q.codebook.grad)


def _start_codes(rank, z):
    """Codes after the first batch of each rank, and after a second one that must change nothing."""
    model = DistributedDataParallel(ScalarQuantizer(4, num_codebooks=2, init="data"))
    codes = []
    for batch in (z[rank], [[9.0, 9.5], [8.0, 8.5]]):
        model(torch.tensor(batch)).quantized.sum().backward()
        codes.append(model.module.codebook.tolist())
    return codes


NAN = float("nan")
START = [[[1.0, NAN], [2.0, NAN], [3.0, NAN], [4.0, NAN]], [[7.0, 0.0], [8.0, 3.0], [5.0, 1.0], [6.0, 2.0]]]


def test_all_ranks_start_from_the_data_of_all(found):
    """One rank has nothing finite for the second latent: the codes come from the other."""
    zero, one = found[_start_codes]
    # The mean of each two neighbours of 1 ... 8, and the values themselves.
    assert zero == one == [[[1.5, 3.5, 5.5, 7.5], [0.0, 1.0, 2.0, 3.0]]] * 2


def _revive(rank, z):
    torch.manual_seed(0)
    options = {"estimator": "nearest", "codebook_weight": 1.0, "revive_after": 2}
    q = ScalarQuantizer(4, init=torch.tensor([0.0, 1.0, 100.0, 200.0]), **options)
    model = DistributedDataParallel(q)
    for _ in range(3):
        model(torch.tensor(z[rank])).loss.backward()
    return q.codebook.tolist(), q.revival.unused.tolist(), q.codebook.grad.tolist()


RESTART = [[0.0, 0.25, 0.75], [100.0, 1.0, 0.5]]


def test_a_code_restarts_when_no_rank_takes_it(found):
    """100 is taken by rank 1 alone; 200 by neither, and restarts at an input of rank 0 on both."""
    zero, one = found[_revive]
    assert zero == one
    assert zero[0][:3] == [0.0, 1.0, 100.0] and zero[0][3] in RESTART[0]
    assert zero[1] == [[0, 0, 0, 0]]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What several works return on both ranks, by work."""
    works = [
        (_train, TRAINED),
        (_count,),
        (_draw,),
        (_shards, z_of(8, 3).tolist(), SHARDED),
        (_start_codes, START),
        (_revive, RESTART),
    ]
    return each_on_ranks(tmp_path_factory.mktemp("ranks"), works)
