"""One random call of a sampling function or of `nearest_quantize`: its arguments, and how to make it."""

import math
import random
from dataclasses import dataclass

import torch
from cases import Case
from fuzz_values import CODES, DTYPES, as_view, bounded, codebook, compute_dtype, inputs, lead_shape

import fqvae_kernels

ESTIMATORS = ("gumbel", "gumbel", "straight_through", "reinmax")
MOST_VALUES = 20_000


@dataclass
class Call:
    """A call of a sampling function. `loss` and `requires` say what is differentiated."""

    case: Case  # the truth's side of the call
    arguments: dict  # the library's: everything but input and codebook
    requires: tuple[bool, bool, bool]  # input, codebook, temperature
    loss: tuple[bool, bool, bool]  # quantized, kl, weights
    repeats: bool  # the call is made twice, and must give the same

    def __str__(self):
        name = "gumbel_quantize_logits" if self.case.is_logits else "gumbel_quantize"
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return (
            f"{name}({describe(self.case.input)}, {describe(self.case.codebook)}, {arguments})"
            f"\n  requires_grad of input, codebook, temperature: {self.requires}"
            f"\n  loss of quantized, kl, weights: {self.loss}"
        )


def describe(tensor: torch.Tensor) -> str:
    """A tensor, whole if it is small."""
    shown = f"torch.tensor({tensor.tolist()})" if tensor.numel() <= 64 else "a tensor"
    return f"{shown} of shape {tuple(tensor.shape)}, strides {tensor.stride()}, {tensor.dtype}"


def input_and_codebook(draw: random.Random, is_logits: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tensors whose shapes fit."""
    dtype, lead, codes = draw.choice(DTYPES), lead_shape(draw), draw.choice(CODES)
    if draw.random() < 0.01:
        lead, codes = (2,), draw.choice([1000, 4097, 20_000])
    lead = bounded(lead, max(1, MOST_VALUES // codes))
    several = bool(lead) and lead[-1] > 0 and lead[-1] * codes < MOST_VALUES and draw.random() < 0.4
    book_shape = (lead[-1], codes) if several else (codes,)
    # Any floating dtype will do for the codebook, which is cast.
    other = draw.choice((torch.float16, torch.bfloat16, torch.float32, torch.float64))
    book = codebook(draw, book_shape, compute_dtype(dtype) if draw.random() < 0.7 else other)
    shape = (*lead, codes) if is_logits else lead
    return as_view(draw, inputs(draw, shape, dtype, masks=is_logits)), as_view(draw, book)


def temperature(draw: random.Random, dtype: torch.dtype, requires: bool):
    """A float or a 0-d tensor: ordinary, or at the ends of what is allowed."""
    value = 10.0 ** draw.uniform(-2.0, 2.0)
    if draw.random() < 0.1:
        value = draw.choice([1e-38, 1e-30, 1e-12, 1e-6, 1e6, 1e30, 3e38, 1e39, 1e300])
    elif draw.random() < 0.3:
        value = 1.0
    if not requires and draw.random() < 0.6:
        return 1 if value == 1.0 and draw.random() < 0.2 else value
    kind = torch.float64 if not 1e-30 < value < 1e30 else draw.choice((torch.float32, torch.float64))
    return torch.tensor(value, dtype=kind)


def largest(values: torch.Tensor) -> float:
    """The largest finite magnitude, 0 without any."""
    return max((abs(x) for x in values.flatten().tolist() if math.isfinite(x)), default=0.0)


def row_offset(draw: random.Random, rows: int) -> int:
    """Some number of a first row: around powers of two, up to the last that is allowed."""
    if draw.random() < 0.5:
        return draw.choice([0, 1, 12345])
    edge = draw.choice([2**31, 2**32, 2**33, 2**40, 2**63 - 1])
    return min(2**63 - 1, edge - draw.randrange(rows + 2))


def random_call(draw: random.Random, backend: str) -> Call:
    is_logits, estimator = draw.random() < 0.5, draw.choice(ESTIMATORS)
    input, book = input_and_codebook(draw, is_logits)
    requires = tuple(draw.random() < 0.6 for _ in range(3))
    warmth = temperature(draw, input.dtype, requires[2])
    # A logit 1e18 below its row's largest weighs nothing, which only the highest temperatures would show.
    if float(warmth) > 1e6 and largest(input) > 1e5:
        warmth = torch.ones((), dtype=torch.float64) if isinstance(warmth, torch.Tensor) else 1.0
    requires = (*requires[:2], requires[2] and isinstance(warmth, torch.Tensor))
    rows = input.numel() // (book.shape[-1] if is_logits else 1)
    arguments = {
        "temperature": warmth,
        "hard": draw.random() < 0.3,
        "seed": draw.choice([0, 1, 2**32, 2**63, 2**64 - 1, draw.randrange(2**64)]),
        "row_offset": row_offset(draw, rows),
        "return_weights": draw.random() < 0.5,
        "return_kl": draw.random() < 0.7,
        "estimator": estimator,
        "backend": backend,
    }
    case = Case(
        input,
        book,
        is_logits,
        temperature=float(warmth),
        hard=arguments["hard"],
        seed=arguments["seed"],
        row_offset=arguments["row_offset"],
        estimator=estimator,
    )
    if draw.random() < 0.2:
        seed = arguments["seed"]
        arguments["seed"] = torch.tensor(seed - 2**64 if seed >= 2**63 else seed)
    loss = (draw.random() < 0.8, draw.random() < 0.7, draw.random() < 0.7)
    wants = (True, arguments["return_kl"], arguments["return_weights"])
    loss = tuple(uses and wanted for uses, wanted in zip(loss, wants, strict=True))
    return Call(case, arguments, requires, loss, draw.random() < 0.1)


def run(call: Call, input: torch.Tensor, book: torch.Tensor):
    """The library's answer."""
    name = "gumbel_quantize_logits" if call.case.is_logits else "gumbel_quantize"
    return getattr(fqvae_kernels, name)(input, book, **call.arguments)
