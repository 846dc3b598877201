"""Data order, schedules and seeds: functions of the step alone."""

import math

import numpy as np
import pytest
from blobset import BlobSet

from fqvae.training.counters import Batches, cosine, derive_seed

TRAIN = np.arange(0, 200, 2)


def batches(**settings):
    return Batches(BlobSet(), TRAIN, **{"seed": 0, "batch_size": 12, "steps": 30, **settings})


def test_an_epoch_has_every_image_at_most_once_and_epochs_differ():
    made = batches()
    epochs = [np.concatenate([made.index(8 * epoch + i) for i in range(8)]) for epoch in range(3)]
    for epoch in epochs:
        assert len(set(epoch)) == 96 and set(epoch) <= set(TRAIN)
    assert not np.array_equal(epochs[0], epochs[1])


def test_order_depends_on_seed_and_step_only():
    late = batches(start=11)
    assert np.array_equal(late.index(11), batches().index(11))
    assert not np.array_equal(batches(seed=1).index(11), batches().index(11))
    backwards = batches()
    assert all(np.array_equal(backwards.index(step), batches().index(step)) for step in range(29, -1, -1))


def test_iterating_gives_what_is_left():
    made = batches(start=26)
    seen = list(made)
    assert len(made) == len(seen) == 4
    images = BlobSet().images(made.index(29))
    assert (seen[-1] == images).all() and seen[-1].shape == (12, 3, 16, 16)


def test_ranks_share_each_half_of_a_batch():
    whole = batches(parts=2).index(5)
    shares = [batches(parts=2, rank=rank, world=3).index(5) for rank in range(3)]
    for half in range(2):
        together = np.concatenate([share[2 * half : 2 * half + 2] for share in shares])
        assert np.array_equal(together, whole[6 * half : 6 * half + 6])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 101}, "batch_size must be at most 100, .* but was 101"),
        ({"batch_size": 10, "parts": 2, "world": 3}, r"multiple of 6, 2 part\(s\) for each of 3"),
    ],
)
def test_batches_that_do_not_fit(settings, words):
    with pytest.raises(ValueError, match=words):
        batches(**settings)


def test_an_error_of_the_data_arrives():
    made = Batches(BlobSet(), TRAIN + 1_000, seed=0, batch_size=12, steps=3)
    with pytest.raises(IndexError, match="out of bounds"):
        next(iter(made))


def test_cosine():
    assert cosine(0, 50_000, 1e-3, 1.25e-6) == pytest.approx(1e-3)
    assert cosine(50_000, 50_000, 1e-3, 1.25e-6) == pytest.approx(1.25e-6)
    assert cosine(25_000, 50_000, 1e-3, 1.25e-6) == pytest.approx((1e-3 + 1.25e-6) / 2)
    assert cosine(12_500, 50_000, 1.0, 0.0) == pytest.approx((1 + math.sqrt(0.5)) / 2)


def test_seeds_are_distinct_and_in_range():
    seeds = {derive_seed(seed, purpose, step) for seed in range(20) for purpose in "ab" for step in range(50)}
    assert len(seeds) == 2_000 and all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "noise", 23) != derive_seed(12, "noise", 3)
