"""Quantizers under FSDP2, whose ranks hold a part of the parameters outside forward: two processes."""

import pytest
import torch
from ranks import RANKS, each_on_ranks, needs_ranks

from fqvae_kernels import GumbelVectorQuantizer, ScalarQuantizer

fsdp = pytest.importorskip("torch.distributed.fsdp")
pytestmark = [
    needs_ranks,
    pytest.mark.skipif(not hasattr(fsdp, "fully_shard"), reason="this PyTorch has no FSDP2"),
]

# The codes of the second are cut unevenly: three codebooks on two ranks.
SETTINGS = [
    {"codebook_size": 5},
    {"codebook_size": 4, "num_codebooks": 3, "learn_precision": True},
    {"codebook_size": 5, "sorted": True},
    {
        "codebook_size": 5,
        "sorted": True,
        "learn_precision": True,
        "precision": 2.0,
        "learn_temperature": True,
    },
]


def indices_of(rank, settings):
    return torch.randint(settings["codebook_size"], (7, 3), generator=torch.Generator().manual_seed(rank))


def make(settings):
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), ScalarQuantizer(kl_weight=0.1, **settings))


def weighted(codes, rank):
    return (codes * torch.arange(1.0, codes.numel() + 1).reshape(codes.shape) * (rank + 1)).sum()


def _shard(rank):
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (RANKS,))
    found = []
    for settings in SETTINGS:
        model = fsdp.fully_shard(make(settings), mesh=mesh)
        quantizer = model[1]
        indices = indices_of(rank, settings)
        codes = quantizer.codes(indices)
        weighted(codes, rank).backward()
        gradients = [each.grad.full_tensor() for each in quantizer.parameters() if each.grad is not None]
        model.eval()
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(rank))
        with torch.no_grad():
            taken = model(x).indices
        model.reshard()
        again = quantizer.codes(taken)
        found.append([each.tolist() for each in (codes, *gradients, taken, again, quantizer.capacity())])
    return found


def _lose(rank):
    """What is said where a forward pass would set codes: the parent is sharded, and the quantizer itself."""
    said = []
    for options in ({"init": "data"}, {"revive_after": 3}, {"init": "data", "sorted": True}):
        for whole in (True, False):
            model = torch.nn.Sequential(torch.nn.Linear(4, 3), ScalarQuantizer(5, **options))
            fsdp.fully_shard(model if whole else model[1])
            model.eval()(torch.ones(2, 4))
            with pytest.raises(RuntimeError) as caught:
                model.train()(torch.ones(2, 4))
            said.append(str(caught.value).partition(" under FSDP2: ")[0])
    return said


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    works = [(_shard,), (_reset_vectors,), (_reset,), (_lose,)]
    return each_on_ranks(tmp_path_factory.mktemp("ranks"), works)


def test_codes_that_a_forward_pass_would_set_are_refused(found):
    init, revival = ["init must not be 'data'"] * 2, ["revive_after must be None"] * 2
    assert list(found[_lose]) == [[*init, *revival, *init]] * RANKS


def test_codes_outside_forward_are_whole_and_their_gradient_the_mean_of_the_ranks(found):
    per_rank = found[_shard]
    for number, settings in enumerate(SETTINGS):
        gradients = []
        for rank in range(RANKS):
            model = make(settings)
            weighted(model[1].codes(indices_of(rank, settings)), rank).backward()
            gradients += [each.grad for each in model[1].parameters() if each.grad is not None]
        assert len(gradients) == RANKS
        mean = sum(gradients) / RANKS
        model = make(settings).eval()
        for rank in range(RANKS):
            codes, gradient, taken, again, capacity = per_rank[rank][number]
            assert codes == model[1].codes(indices_of(rank, settings)).tolist()
            torch.testing.assert_close(torch.tensor(gradient), mean)
            x = torch.randn(6, 4, generator=torch.Generator().manual_seed(rank))
            out = model(x)
            assert taken == out.indices.tolist()
            assert again == model[1].codes(out.indices).tolist()
            assert capacity == model[1].capacity().tolist()


def learned(q):
    return [value.item() for value in (q.precision, q.temperature)]


def vectors():
    return GumbelVectorQuantizer(4, 5, 6, num_codebooks=2, learn_temperature=True)


def _reset_vectors(rank):
    model = fsdp.fully_shard(torch.nn.Sequential(vectors()))
    (q,) = model
    torch.manual_seed(rank)
    q.reset_parameters()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(rank))
    model(x)[0].square().sum().backward()
    model.reshard()
    model.eval()
    indices = torch.arange(5).unsqueeze(-1).expand(-1, 2)
    return q.codes(indices).tolist(), q.temperature.item(), model(torch.ones(1, 4))[0].tolist()


def _reset(rank):
    """What is learned after a step, after reset_parameters with a seed for each rank, and after init_from."""
    found = []
    for settings in SETTINGS:
        model = fsdp.fully_shard(make(settings | {"init_scale": 0.5}))
        q, every = model[1], torch.arange(settings["codebook_size"]).unsqueeze(-1)
        every = every.expand(-1, settings.get("num_codebooks", 1))
        start = q.codes(every).tolist()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        out = model(torch.randn(6, 4, generator=torch.Generator().manual_seed(rank)))
        (out.quantized.square().sum() + out.loss).backward()
        optimizer.step()
        model.reshard()
        moved = [start != q.codes(every).tolist()]
        if settings.get("learn_temperature"):
            moved += [value != given for value, given in zip(learned(q), (2.0, 1.0), strict=True)]
        torch.manual_seed(rank)
        q.reset_parameters()
        again = q.codes(every).tolist()
        constants = learned(q) if settings.get("learn_temperature") else None
        q.init_from(torch.arange(24.0).reshape(2, 4, 3)[rank])
        found.append((moved, again, constants, q.codes(every).tolist()))
    return found


def test_vectors(found):
    q = vectors().eval()
    torch.manual_seed(0)
    q.reset_parameters()
    zero, one = found[_reset_vectors]
    codes = q.codes(torch.arange(5).unsqueeze(-1).expand(-1, 2))
    assert zero == one == (codes.tolist(), 1.0, q(torch.ones(1, 4))[0].tolist())


def test_reset_parameters_and_init_from_write_to_the_shards(found):
    zero, one = found[_reset]
    assert zero == one
    for settings, (moved, again, constants, started) in zip(SETTINGS, zero, strict=True):
        assert all(moved)
        whole = make(settings | {"init_scale": 0.5})[1]
        torch.manual_seed(0)
        whole.reset_parameters()
        books = whole.codebook.detach().reshape(settings.get("num_codebooks", 1), -1)
        assert again == books.T.tolist()
        if constants is not None:
            assert constants == pytest.approx([2.0, 1.0])
        # The values of both ranks lie evenly, by 3 in each latent.
        columns = torch.tensor(started).T
        steps = columns.diff(dim=-1)
        torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), rtol=0.15, atol=0.0)
        assert (columns.min(-1).values < 3).all() and (columns.max(-1).values > 8).all()
