"""Random tensors of every kind that a caller may pass: shapes, strides, dtypes and special values."""

import math
import random

import torch

DTYPES = (torch.float32, torch.float32, torch.float16, torch.bfloat16, torch.float64)
CODES = (1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 67, 128, 130, 257)
NAN, INF = float("nan"), float("inf")


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def generator(draw: random.Random) -> torch.Generator:
    return torch.Generator().manual_seed(draw.randrange(2**31))


def lead_shape(draw: random.Random) -> tuple[int, ...]:
    """0 to 4 dimensions, most of them small; now and then none or many elements."""
    kind = draw.random()
    if kind < 0.06:
        return ()
    if kind < 0.12:
        return draw.choice([(0,), (0, 3), (2, 0), (3, 0, 2)])
    if kind < 0.15:
        return (draw.choice([1000, 2047, 4096]),)
    return tuple(draw.choice([1, 2, 3, 4, 5, 7, 16, 17]) for _ in range(draw.choice([1, 1, 2, 2, 3, 4])))


def bounded(shape: tuple[int, ...], most: int) -> tuple[int, ...]:
    """The shape, with leading sizes reduced to 1 until it has at most so many elements."""
    sizes = list(shape)
    for axis in range(len(sizes)):
        if math.prod(sizes) > most:
            sizes[axis] = 1
    return tuple(sizes)


def specials(dtype: torch.dtype) -> list[float]:
    info = torch.finfo(dtype)
    tiny = info.smallest_normal
    return [
        0.0,
        -0.0,
        tiny,
        -tiny,
        tiny * info.eps,
        tiny / 4,
        info.eps,
        1.0,
        info.max,
        -info.max,
        info.max / 2,
    ]


def scattered(
    draw: random.Random, values: torch.Tensor, candidates: list[float], share: float
) -> torch.Tensor:
    """Some of the values replaced by candidates."""
    flat = values.reshape(-1)
    for place in range(flat.numel()) if flat.numel() < 2000 else range(0, flat.numel(), 97):
        if draw.random() < share:
            flat[place] = draw.choice(candidates)
    return values


def numbers(draw: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Finite values: normal at some scale, ties, constants, far ones, special ones."""
    values = torch.randn(shape, generator=generator(draw), dtype=torch.float64)
    kind = draw.random()
    if kind < 0.1:
        values = values.mul(2).round()
    elif kind < 0.15:
        values = torch.full_like(values, draw.choice([0.0, -0.0, 1.5, -100.0]))
    elif kind < 0.25:
        far = torch.rand(shape, generator=generator(draw), dtype=torch.float64)
        most = math.log10(torch.finfo(dtype).max)
        values = values.sign() * 10.0 ** (far * (most + 4.0) - 4.0)
    else:
        values = values * draw.choice([1.0, 1.0, 1.0, 1e-3, 10.0, 1e3]) + draw.choice([0.0, 0.0, 0.0, 50.0])
    largest = torch.finfo(dtype).max
    values = values.clamp(-largest, largest)
    if draw.random() < 0.1:
        values = scattered(draw, values, specials(dtype), 0.3)
    return values.to(dtype)


def inputs(draw: random.Random, shape: tuple[int, ...], dtype: torch.dtype, *, masks: bool) -> torch.Tensor:
    """`numbers`, some with NaN and infinities. masks: -inf is a value like others."""
    values = numbers(draw, shape, dtype)
    if masks and draw.random() < 0.3:
        values = scattered(draw, values, [-INF], draw.choice([0.05, 0.5, 0.95]))
    if draw.random() < 0.2:
        values = scattered(draw, values, [NAN, INF, -INF], draw.choice([0.02, 0.3]))
    return values


def codebook(draw: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Codes: normal, sorted, equal, duplicate, wide, huge; a NaN or an infinite one now and then."""
    kind = draw.random()
    if kind < 0.75:
        scale = draw.choice([1.0, 1.0, 1.0, 0.1, 100.0, 1e-5])
        values = torch.randn(shape, generator=generator(draw), dtype=torch.float64) * scale
        if draw.random() < 0.2:
            values = values.sort(dim=-1, descending=draw.random() < 0.5).values
        if draw.random() < 0.2:
            values = values.round()
        values = values.to(dtype)
    else:
        values = numbers(draw, shape, dtype)
    if draw.random() < 0.08:
        values = scattered(draw, values, [NAN, INF, -INF], draw.choice([0.01, 0.2]))
    return values


def as_view(draw: random.Random, values: torch.Tensor) -> torch.Tensor:
    """The same values, lying in memory in some other way: permuted, with steps, with an offset."""
    if values.dim() == 0 or draw.random() < 0.5:
        return values
    order = list(range(values.dim()))
    draw.shuffle(order)
    laid = values.permute(order).contiguous().permute([order.index(axis) for axis in range(len(order))])
    if draw.random() < 0.5:
        return laid
    step, start = draw.choice([2, 3]), draw.randrange(3)
    holder = torch.full((*values.shape[:-1], start + values.shape[-1] * step), 7.0, dtype=values.dtype)
    view = holder[..., start::step][..., : values.shape[-1]]
    view.copy_(values)
    return view
