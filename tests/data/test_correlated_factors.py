"""The training part of a set with correlated factors follows the distribution that Correlation states."""

import numpy as np
import pytest
from scipy import stats

from fqvae.data import RayShapes, split

NAMES = RayShapes.factor_names


def table(shapes, index, *names):
    """How often each combination of these factors occurs."""
    factors = shapes.factors(index).numpy()
    columns = [NAMES.index(name) for name in names]
    sizes = tuple(shapes.factor_sizes[j] for j in columns)
    cells = np.ravel_multi_index(tuple(factors[:, j] for j in columns), sizes)
    return np.bincount(cells, minlength=np.prod(sizes)).reshape(sizes)


def tied(size_a, size_b, strength):
    """p(a, b) for uniform a, written out cell by cell."""
    p = np.empty((size_a, size_b))
    for a in range(size_a):
        for b in range(size_b):
            p[a, b] = ((1 - strength) / size_b + strength * (b == int(a * size_b / size_a))) / size_a
    return p


def fits(counts, p):
    """Counts are of a sample without replacement, which strays less than the test assumes, never more."""
    return stats.chisquare(counts.ravel(), (p * counts.sum()).ravel()).pvalue > 1e-3


@pytest.mark.parametrize("strength", [0.1, 0.5, 0.9])
def test_pairs_of_equal_sizes(strength):
    shapes = RayShapes(32, correlated={"object_hue": "wall_hue"}, strength=strength)
    train = split(shapes, seed=1).train
    counts = table(shapes, train, "wall_hue", "object_hue")
    assert fits(counts, tied(10, 10, strength))
    assert not fits(counts, tied(10, 10, strength + 0.02))  # the test can tell
    assert np.trace(counts) / counts.sum() == pytest.approx(strength + (1 - strength) / 10, abs=0.01)
    # The rest of the factors notices nothing.
    assert fits(table(shapes, train, "floor_hue", "object_hue"), np.full((10, 10), 1 / 100))
    assert fits(table(shapes, train, "wall_hue", "scale", "shape"), np.full((10, 8, 4), 1 / 320))


def test_pairs_of_unequal_sizes_and_two_pairs():
    shapes = RayShapes(32, correlated={"shape": "object_hue", "orientation": "scale"}, strength=0.6)
    train = split(shapes, seed=2).train
    assert fits(table(shapes, train, "object_hue", "shape"), tied(10, 4, 0.6))
    assert fits(table(shapes, train, "scale", "orientation"), tied(8, 15, 0.6))
    joint = np.einsum("ab,cd->abcd", tied(10, 4, 0.6), tied(8, 15, 0.6))
    assert fits(table(shapes, train, "object_hue", "shape", "scale", "orientation"), joint)


def test_two_factors_tied_to_one():
    shapes = RayShapes(32, correlated={"object_hue": "wall_hue", "floor_hue": "wall_hue"}, strength=0.7)
    counts = table(shapes, split(shapes, seed=3).train, "wall_hue", "object_hue", "floor_hue")
    pair = tied(10, 10, 0.7)
    assert fits(counts, np.einsum("ab,ac->abc", pair, pair) * 10)


def test_full_strength_leaves_what_is_tied():
    shapes = RayShapes(32, correlated={"object_hue": "wall_hue"}, strength=1.0)
    factors = shapes.factors(split(shapes).train).numpy()
    assert np.array_equal(factors[:, 1], factors[:, 2])
    assert 37_500 < len(factors) < 39_300  # a tenth of 384,000


def test_only_the_training_part_is_thinned():
    plain = split(RayShapes(32), seed=4)
    for strength in (0.0, 0.5):
        thinned = split(RayShapes(32, correlated={"shape": "scale"}, strength=strength), seed=4)
        assert np.array_equal(thinned.valid, plain.valid) and np.array_equal(thinned.test, plain.test)
        assert np.isin(thinned.train, plain.train).all() and len(np.unique(thinned.train)) == len(
            thinned.train
        )
        assert (len(thinned.train) == len(plain.train)) == (strength == 0)
    again = split(RayShapes(64, correlated={"shape": "scale"}, strength=0.5), seed=4)
    assert np.array_equal(again.train, thinned.train)
