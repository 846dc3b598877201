"""ScalarQuantizer under FSDP2, whose ranks hold a part of the parameters outside forward: two processes."""

import pytest
import torch
from test_quantizer_ranks import RANKS, on_ranks

from fqvae_kernels import ScalarQuantizer

fsdp = pytest.importorskip("torch.distributed.fsdp")
pytestmark = pytest.mark.skipif(not hasattr(fsdp, "fully_shard"), reason="this PyTorch has no FSDP2")

# The codes of the second are cut unevenly: three codebooks on two ranks.
SETTINGS = [
    {"codebook_size": 5},
    {"codebook_size": 4, "num_codebooks": 3, "learn_precision": True},
    {"codebook_size": 5, "sorted": True},
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


def test_codes_outside_forward_are_whole_and_their_gradient_the_mean_of_the_ranks(tmp_path):
    per_rank = on_ranks(tmp_path, _shard)
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
