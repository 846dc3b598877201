"""torch.compile and opcheck with backend "triton", its kernels interpreted."""

import pytest
import torch
from cases import make
from gradcases import leaf

from fqvae_kernels import gumbel_quantize
from fqvae_kernels._call import Call, Needs, Wants
from fqvae_kernels._operators import pack_call


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the deterministic mode that poisons memory changes what is compiled."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# opcheck of torch 2.14 looks at the gradient of tensors that are not leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("is_logits", [False, True])
def test_opcheck(interpreted, is_logits):
    case = make(6, 5, latents=3, is_logits=is_logits)
    call = Call(
        is_logits=is_logits,
        temperature=leaf(torch.tensor(0.7)),
        seed=torch.tensor(3),
        row_offset=4,
        wants=Wants(weights=True),
        needs=Needs(True, True, True),
    )
    arguments = leaf(case.input), leaf(case.codebook), *pack_call(call, case.input.device), interpreted
    torch.library.opcheck(torch.ops.fqvae_kernels.quantize, arguments)
    torch.library.opcheck(
        torch.ops.fqvae_kernels.nearest, (case.input[..., 0], case.codebook[0], interpreted)
    )


def test_compile(interpreted):
    case = make(12, 5, temperature=0.6)

    def step(z, codebook, temperature, seed):
        out = gumbel_quantize(
            z * 1.0, codebook, temperature=temperature, seed=seed, return_weights=True, backend=interpreted
        )
        return out.quantized, out.kl, out.weights

    def results(function):
        leaves = leaf(case.input), leaf(case.codebook), leaf(torch.tensor(0.6))
        outputs = function(*leaves, torch.tensor(9))
        sum(output.square().sum() for output in outputs).backward()
        return *outputs, *(x.grad for x in leaves)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for got, expected in zip(results(compiled), results(step), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
