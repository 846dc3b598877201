"""Calls with one bad argument, which must raise an error that names it."""

import random
import re
import warnings

import numpy as np
import torch

import fqvae_kernels

NAN, INF = float("nan"), float("inf")


def nested(layout: torch.layout) -> torch.Tensor:
    with warnings.catch_warnings():
        # PyTorch calls one layout a prototype.
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=layout)


def _tensors(name: str) -> list:
    """What is no tensor of real numbers."""
    bad = [
        torch.arange(6),
        torch.zeros(6, dtype=torch.bool),
        torch.zeros(6, dtype=torch.complex64),
        [0.0, 1.0],
        None,
        0.5,
        np.zeros(6),
        "z",
        torch.zeros(2, 3).to_sparse(),
        nested(torch.strided),
        nested(torch.jagged),
        torch.zeros(6, dtype=torch.float8_e4m3fn),
    ]
    if name == "codebook":
        bad += [torch.tensor(1.0), torch.zeros(0), torch.zeros(0, 5), torch.zeros(1, 2, 5), torch.zeros(4, 5)]
        bad += [torch.zeros(2, 0), torch.zeros(5, device="meta"), torch.zeros(1).expand(2**24 + 1)]
    if name == "logits":
        bad += [torch.tensor(1.0), torch.zeros(6, 4), torch.zeros(0)]
    return bad


SEEDS = [-1, 2**64, -(2**70), 1.5, "7", True, torch.tensor(1.0), torch.tensor([1, 2]), torch.tensor(1).int()]
ROW_OFFSETS = [-1, 1.5, "3", None, True, 2**63, 2**64, 10**400, torch.tensor(1.5)]
FLAGS = [None, 1, 0, "no", 0.5]
TEMPERATURES = [
    *(0, 0.0, -0.0, -1.0, NAN, INF, -INF, 10**400, -(10**400), 1e-320, "warm", None, True, 1j, [1.0]),
    *(torch.tensor(value) for value in (0.0, -0.5, NAN, INF, [1.0, 2.0], [1.0], 1, True, 1j)),
    torch.tensor(1e-310, dtype=torch.float64),
]
# Bad for float32 inside, though not for float64.
LOW_TEMPERATURES = [1e-39, 1e-45, 1e-300, torch.tensor(1e-39, dtype=torch.float64), torch.tensor(1e-42)]
BACKENDS = ["", "CPU", "nonsense", 3, b"cpu", True, "cuda", "triton"]

OF_A_SAMPLER = {
    "temperature": TEMPERATURES + LOW_TEMPERATURES,
    "hard": FLAGS,
    "seed": SEEDS,
    "row_offset": ROW_OFFSETS,
    "return_weights": FLAGS,
    "return_kl": FLAGS,
    "estimator": ["", "Gumbel", "nearest", "nonsense", None, 3, b"gumbel", True],
    "backend": BACKENDS,
}
OF_THE_NOISE = {
    "seed": [*SEEDS, None],
    "rows": [-1, 1.5, None, True, "3", 2**63, 10**400],
    "codes": [0, -1, 1.5, None, True, "3", 2**24 + 1, 2**31, 2**32, 2**63, 10**400],
    "row_offset": ROW_OFFSETS,
    "dtype": [torch.int64, torch.complex64, torch.float16, "float32", None, float],
    "device": ["nonsense", "cpu:x", *([] if torch.cuda.is_available() else ["cuda", "cuda:0"])],
}


def random_bad_call(draw: random.Random, backend: str):
    """(name of the function, its arguments, name of the bad one)."""
    function = draw.choice(["gumbel_quantize", "gumbel_quantize_logits", "nearest_quantize", "gumbel_noise"])
    if function == "gumbel_noise":
        name = draw.choice(list(OF_THE_NOISE))
        given = {"seed": 1, "rows": draw.choice([0, 2]), "codes": 3}
        given[name] = draw.choice(OF_THE_NOISE[name])
        return function, given, name
    rows = draw.choice([0, 6])
    first = "logits" if function == "gumbel_quantize_logits" else "z"
    given = {first: torch.zeros(rows, 5) if first == "logits" else torch.zeros(rows)}
    given["codebook"], given["backend"] = torch.linspace(-1.0, 1.0, 5), backend
    choices = [first, "codebook"] if function == "nearest_quantize" else [first, "codebook", *OF_A_SAMPLER]
    name = draw.choice(choices)
    if name in (first, "codebook"):
        given[name] = draw.choice(_tensors(name))
        if name == "logits":
            # Of two shapes that do not fit, either may be the bad one.
            name = "logits|codebook"
    else:
        given[name] = draw.choice(OF_A_SAMPLER[name])
        if name == "backend" and given[name] in fqvae_kernels.available_backends():
            given[name] = "nonsense"
    return function, given, name


def check_bad_call(function: str, given: dict, name: str):
    """TypeError or ValueError that names the argument; RuntimeError for a backend that cannot serve."""
    allowed = (TypeError, ValueError, RuntimeError) if name == "backend" else (TypeError, ValueError)
    try:
        getattr(fqvae_kernels, function)(**given)
    except Exception as error:
        raised = error
    else:
        raise AssertionError(f"no error, though {name} is bad")
    text = f"{type(raised).__name__}: {raised}"
    assert type(raised) in allowed, f"not one of {[kind.__name__ for kind in allowed]}, but {text}"
    assert re.search(rf"\b({name})\b", str(raised)), f"the message does not name {name}: {text}"


def describe_bad(function: str, given: dict) -> str:
    def shown(value):
        if isinstance(value, torch.Tensor) and value.is_nested:
            return f"a nested tensor ({value.layout})"
        if isinstance(value, torch.Tensor) and value.numel() > 8:
            return f"a tensor of shape {tuple(value.shape)}, {value.dtype}"
        return repr(value)[:80]

    return f"{function}({', '.join(f'{key}={shown(value)}' for key, value in given.items())})"
