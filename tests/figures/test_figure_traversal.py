"""Which codes a latent uses, which of them are shown, and what is decoded."""

import numpy as np
import pytest
import torch
from picture_runs import VECTORS, untrained

from fqvae.figures.traversal import spread_codes, spread_values, traverse, used_codes
from fqvae.models import to_uint8

COUNTS = [[5, 0, 1, 2], [0, 0, 9, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (None, [[0, 2, 3], [2], [0, 1, 2, 3]]),
        ([0.5, -1.0, 3.0, -2.0], [[3, 0, 2], [2], [3, 1, 0, 2]]),
        ([1.0, 0.0, 1.0, -1.0], [[3, 0, 2], [2], [3, 1, 0, 2]]),  # equal values: by index
        ([[4, 3, 2, 1], [1, 2, 3, 4], [0, 2, 1, 3]], [[3, 2, 0], [2], [0, 2, 1, 3]]),
    ],
)
def test_used_codes(values, expected):
    assert [row.tolist() for row in used_codes(COUNTS, values)] == expected


def test_used_codes_errors():
    with pytest.raises(ValueError, match=r"counts must be of shape \(latents, codes\), but was \(4,\)"):
        used_codes(COUNTS[0])
    with pytest.raises(ValueError, match=r"values must be of shape \(4,\) or \(3, 4\), but was \(3,\)"):
        used_codes(COUNTS, [1, 2, 3])


@pytest.mark.parametrize(
    ("steps", "current", "expected"),
    [
        (9, 12, [10, 11, 12, 13, 14, 15, 16, 17, 18]),
        (20, 12, [10, 11, 12, 13, 14, 15, 16, 17, 18]),
        (5, 14, [10, 12, 14, 16, 18]),
        (5, 13, [10, 13, 14, 16, 18]),  # as near to 12 as to 14
        (5, 11, [10, 11, 14, 16, 18]),  # the first stays, though it is as near
        (3, 17, [10, 17, 18]),
        (4, 10, [10, 13, 15, 18]),
        (4, 18, [10, 13, 15, 18]),
        (2, 13, [13, 18]),
        (2, 15, [10, 15]),
        (1, 15, [15]),
    ],
)
def test_spread_codes(steps, current, expected):
    assert spread_codes(np.arange(10, 19), steps, current).tolist() == expected


def test_spread_codes_keeps_an_order_that_is_not_the_indices():
    used = np.array([7, 2, 9, 4, 0, 8])
    assert spread_codes(used, 3, 4).tolist() == [7, 4, 8]
    for steps in range(1, 8):
        for current in used:
            chosen = spread_codes(used, steps, current).tolist()
            assert current in chosen and len(set(chosen)) == len(chosen) == min(steps, 6)
            assert sorted(chosen, key=used.tolist().index) == chosen


def test_spread_values():
    values = np.arange(101.0)  # percentiles 1 and 99 are 1 and 99
    assert spread_values(values, 3, 50).tolist() == [1, 50, 99]
    assert spread_values(values, 3, 42.5).tolist() == [1, 42.5, 99]
    assert spread_values(values, 5, 2).tolist() == pytest.approx([1, 2, 50, 74.5, 99])
    assert spread_values(values, 3, 100).tolist() == [1, 50, 100]
    assert spread_values(values, 3, 0).tolist() == [0, 50, 99]
    assert spread_values([2.5, 2.5], 6, 2.5).tolist() == [2.5]
    assert spread_values(values, 3, 42.5).dtype == np.float32


def test_spread_errors():
    with pytest.raises(ValueError, match="steps must be at least 1, but was 0"):
        spread_codes(np.arange(3), 0, 1)
    with pytest.raises(ValueError, match="steps must be at least 1, but was -1"):
        spread_values([1, 2], -1, 1)
    with pytest.raises(ValueError, match="current must be one of the codes used, but was 5"):
        spread_codes(np.arange(3), 2, 5)


@pytest.mark.parametrize(("model", "settings"), [("qvae", []), ("qvae", VECTORS), ("qlae", []), ("vae", [])])
def test_traverse_moves_one_latent_at_a_time(model, settings):
    autoencoder = untrained(model, *settings)[1]
    base = autoencoder.encode(torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8))[0].detach()
    steps = [[5, 3], [1], [0, 2, 4]] if base.dtype == torch.int64 else [[-0.5, 2.0], [1.0], [0.0, 1.5, 3.0]]
    codes, images = traverse(autoencoder, base, steps, batch_size=4)
    assert [len(row) for row in codes] == [len(row) for row in images] == [2, 1, 3]
    for latent, (row, pictures) in enumerate(zip(codes, images, strict=True)):
        others = [other for other in range(3) if other != latent]
        assert row.dtype == base.dtype and row[:, latent].tolist() == steps[latent]
        assert (row[:, others] == base[others]).all()
        assert pictures.dtype == torch.uint8 and pictures.shape[1:] == (3, 32, 32)
        for code, picture in zip(row, pictures, strict=True):
            alone = to_uint8(autoencoder.decode(code[None]))[0]
            # One by one and in batches, sums are rounded differently: a grey level at most.
            assert (picture.int() - alone.int()).abs().max() <= 1
    assert not torch.equal(images[0][0], images[0][1])
    assert not any(image.requires_grad for image in images)


def test_traverse_errors():
    autoencoder = untrained()[1]
    base = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"there were 2 for codes of shape \(3,\)"):
        traverse(autoencoder, base, [[1], [2]])
    with pytest.raises(ValueError, match=r"there were 3 for codes of shape \(1, 3\)"):
        traverse(autoencoder, base[None], [[1], [2], [3]])
    with pytest.raises(TypeError, match=r"steps must be torch\.int64 like the codes, but latent 1 has"):
        traverse(autoencoder, base, [[1], [2.5], [3]])
    with pytest.raises(ValueError, match=r"codes must be in \[0, 8\), but ran from 0 to 8"):
        traverse(autoencoder, base, [[1], [2], [8]])
