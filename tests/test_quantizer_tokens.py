"""Tokens: the number whose digits are a position's indices, computed here with Python's own integers."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from quantizers import fresh_compiler, z_of  # noqa: F401

from fqvae_kernels import ScalarQuantizer


def number(digits, sizes):
    """Of which these are the digits; -1 if one is."""
    weights = [math.prod(sizes[latent + 1 :]) for latent in range(len(sizes))]
    return -1 if -1 in digits else sum(digit * weight for digit, weight in zip(digits, weights, strict=True))


@st.composite
def positions(draw):
    """Sizes whose product has at most 63 bits, and indices below them, of some positions that are masked."""
    sizes = [draw(st.integers(1, 2**20))]
    while len(sizes) < 12 and draw(st.booleans()) | (len(sizes) < 2):
        sizes.append(draw(st.integers(1, max(1, min(2**20, 2**63 // math.prod(sizes))))))
    rows = [
        [-1] * len(sizes)
        if draw(st.integers(0, 3)) == 0
        else [draw(st.sampled_from([0, size - 1, draw(st.integers(0, size - 1))])) for size in sizes]
        for _ in range(draw(st.integers(0, 4)))
    ]
    return sizes, rows


class Sized:
    """A quantizer of these levels, without the memory of their codes."""

    def __new__(cls, sizes, **options):
        q = ScalarQuantizer(levels=[1] * len(sizes), **options)
        q.levels = tuple(sizes)
        return q


@given(case=positions(), channel_first=st.booleans(), dtype=st.sampled_from([torch.int32, torch.int64]))
def test_tokens_are_the_numbers_and_round_trip(case, channel_first, dtype):
    sizes, rows = case
    q = Sized(sizes, channel_first=channel_first)
    indices = torch.tensor(rows, dtype=dtype).reshape(len(rows), len(sizes))
    tokens = q.to_tokens(indices)
    assert tokens.dtype == torch.int64 and tokens.tolist() == [number(row, sizes) for row in rows]
    back = q.from_tokens(tokens)
    assert back.dtype == torch.int64 and torch.equal(back, indices.long())


def test_all_tokens_of_levels():
    """0 to the product, in the order in which the indices follow each other."""
    levels = [3, 1, 2, 4]
    q = ScalarQuantizer(levels=levels)
    indices = torch.tensor(list(itertools.product(*map(range, levels))))
    assert q.to_tokens(indices).tolist() == list(range(24))
    assert torch.equal(q.from_tokens(torch.arange(24, dtype=torch.int32)), indices)
    for outside in (24, -2):
        with pytest.raises(ValueError, match=rf"tokens must be in \[0, 24\).* held {outside}$"):
            q.from_tokens(torch.tensor([outside]))


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3), (2, 4, 5, 3), (0, 3)])
@pytest.mark.parametrize(
    "options", [{"num_codebooks": 3}, {"dim": 3, "num_latents": 3}, {"channel_first": False}]
)
def test_shapes(shape, options):
    q = ScalarQuantizer(7, **options)
    mask = z_of(*shape, seed=1)[..., 0] > -0.5
    indices = q(z_of(*shape), mask=mask).indices
    tokens = q.to_tokens(indices)
    assert tokens.shape == shape[:-1] and torch.equal(tokens == -1, ~mask)
    assert torch.equal(tokens[mask], indices[mask] @ torch.tensor([49, 7, 1]))
    assert torch.equal(q.from_tokens(tokens, num_latents=3), indices)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_channel_first_equals_movedim(shape):
    q, other = (ScalarQuantizer(7, num_codebooks=3, channel_first=first) for first in (True, False))
    indices = q(z_of(*shape)).indices
    tokens = q.to_tokens(indices)
    assert tokens.shape == (*shape[:1], *shape[2:])
    assert torch.equal(tokens, other.to_tokens(indices.movedim(1, -1)))
    assert torch.equal(q.from_tokens(tokens), indices) and q.from_tokens(tokens).is_contiguous()


def test_one_masked_latent_masks_the_token():
    q = ScalarQuantizer(7, num_codebooks=3)
    assert q.to_tokens(torch.tensor([[1, -1, 2], [0, 1, 2]])).tolist() == [-1, 9]
    assert q.from_tokens(torch.tensor(-1)).tolist() == [-1, -1, -1]


def test_products_beyond_63_bits_are_named():
    assert ScalarQuantizer(2).to_tokens(torch.ones(63, dtype=torch.int64)).item() == 2**63 - 1
    big = ScalarQuantizer(64)
    with pytest.raises(ValueError, match=rf"2\*\*63.*64\*\*11 = {64**11};"):
        big.to_tokens(torch.zeros(4, 11, dtype=torch.int64))
    with pytest.raises(ValueError, match=rf"64\*\*11 = {64**11};"):
        big.from_tokens(torch.zeros(4, dtype=torch.int64), num_latents=11)
    several = ScalarQuantizer(levels=[100] * 9 + [10])
    with pytest.raises(ValueError, match=rf"100 \* .* \* 10 = {10**19};"):
        several.to_tokens(torch.zeros(10, dtype=torch.int64))


def test_bad_arguments_are_named():
    q = ScalarQuantizer(5)
    for call, message in (
        (lambda: q.to_tokens(torch.tensor(1)), r"indices must have shape \(\.\.\., latents\)"),
        (lambda: q.to_tokens(torch.zeros(2, 3)), "indices must be a torch.int64 or torch.int32"),
        (lambda: q.to_tokens(torch.full((2, 3), 5)), r"indices must be in \[0, 5\)"),
        (lambda: q.to_tokens(torch.zeros(2, 3, 4, 4, dtype=torch.int64)), "channel_first must be given"),
        (lambda: q.from_tokens(torch.zeros(2, dtype=torch.int64)), "num_latents must be given"),
        (lambda: q.from_tokens(torch.zeros(2), 3), "tokens must be a torch.int64 or torch.int32"),
        (
            lambda: q.from_tokens(torch.zeros(2, dtype=torch.int64), 0),
            "num_latents must be an int of at least 1",
        ),
        (
            lambda: ScalarQuantizer(5, num_codebooks=3).from_tokens(torch.zeros(2, dtype=torch.int64), 2),
            "num_latents must be 3 here, but was 2",
        ),
        (
            lambda: ScalarQuantizer(5, channel_first=True).from_tokens(torch.tensor(1), 2),
            r"tokens must have shape \(batch, \.\.\.\)",
        ),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_under_compile_and_export():
    """From z to tokens and back to codes in one program."""

    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q = ScalarQuantizer(levels=[8, 5, 5]).eval()

        def forward(self, z):
            tokens = self.q.to_tokens(self.q(z).indices)
            return tokens, self.q.codes(self.q.from_tokens(tokens))

    module, z = Tokens(), z_of(6, 3)
    expected = module(z)
    assert torch.equal(expected[1], module.q(z).quantized)
    for program in (
        torch.compile(module, fullgraph=True, backend="aot_eager"),
        torch.export.export(module, (z,)).module(),
    ):
        for value, wanted in zip(program(z), expected, strict=True):
            assert torch.equal(value, wanted)
