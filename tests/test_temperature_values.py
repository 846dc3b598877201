"""A temperature that is a tensor is refused for its value wherever that can be looked at."""

import pytest
import torch
from torch import func

from fqvae_kernels import ScalarQuantizer, available_backends, gumbel_quantize

Z, CODES = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([-1.0, 0.0, 0.5, 1.0])


def run(z, temperature):
    return gumbel_quantize(z, CODES, temperature=temperature, seed=1).quantized


ROADS = {
    "eager": lambda t: run(Z, t),
    "vmap": lambda t: func.vmap(lambda z: run(z, t))(Z),
    "vmap of temperatures": lambda t: func.vmap(lambda t: run(Z, t))(torch.stack([torch.tensor(1.0), t])),
    "gradient": lambda t: func.grad(lambda z: run(z, t).sum())(Z),
    "gradient of the temperature": lambda t: func.grad(lambda t: run(Z, t).sum())(t),
    "forward mode": lambda t: func.jvp(lambda z: run(z, t), (Z,), (Z,)),
    "compiled": lambda t: torch.compile(run, backend="aot_eager", fullgraph=True)(Z, t),
    "where it changes nothing": lambda t: ScalarQuantizer(4).eval()(Z, temperature=t),
}


@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan"), float("inf"), 1e-40])
@pytest.mark.parametrize("road", ROADS)
def test_what_is_no_temperature_is_refused(road, value):
    if road == "compiled" and "cpu" not in available_backends():
        pytest.skip("a program of the reference's is PyTorch's own operators, which look at no value")
    with pytest.raises(ValueError, match=r"^temperature must be (finite|at least)"):
        ROADS[road](torch.tensor(value))


@pytest.mark.parametrize("road", ROADS)
def test_what_is_one_is_taken(road):
    ROADS[road](torch.tensor(0.5))
