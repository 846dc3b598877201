"""Numbers of images and factors, the sizes of the sets, the splits, and how sets are found by name."""

import itertools
import math

import numpy as np
import pytest
import torch

from fqvae.data import Isaac3D, MPI3DComplex, RayShapes, Shapes3D, open_dataset, split
from fqvae.data.factors import FactorGrid


class Grid(FactorGrid):
    name = "grid"
    factor_names = ("a", "b", "c")
    factor_sizes = (3, 2, 5)


def test_the_last_factor_is_the_fastest():
    every = list(itertools.product(range(3), range(2), range(5)))
    factors = Grid().factors(np.arange(30))
    assert factors.dtype == torch.int64
    assert factors.tolist() == [list(each) for each in every]
    assert Grid().index(torch.tensor(every)).tolist() == list(range(30))
    assert Grid().index(np.array(every, np.int32)).dtype == torch.int64


@pytest.mark.parametrize(
    ("kind", "count", "sizes"),
    [
        (RayShapes, 480_000, (10, 10, 10, 8, 4, 15)),
        (Shapes3D, 480_000, (10, 10, 10, 8, 4, 15)),
        (Isaac3D, 737_280, (3, 8, 5, 4, 4, 4, 6, 4, 4)),
        (MPI3DComplex, 460_800, (4, 4, 2, 3, 3, 40, 40)),
    ],
)
def test_published_sizes(kind, count, sizes):
    assert kind.factor_sizes == sizes
    assert len(kind.factor_names) == len(set(kind.factor_names)) == len(sizes)
    assert math.prod(sizes) == count == FactorGrid.__len__(kind)


def test_numbers_and_factors_invert_each_other_anywhere():
    shapes = RayShapes()
    index = torch.from_numpy(np.random.default_rng(0).integers(480_000, size=1000))
    factors = shapes.factors(index)
    weights = torch.tensor([48_000, 4_800, 480, 60, 15, 1])
    assert torch.equal((factors * weights).sum(1), index)
    assert torch.equal(shapes.index(factors), index)


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (np.array([0, 30]), IndexError, "below 30, the size of grid, but was 30"),
        (torch.tensor([-1]), IndexError, "but was -1"),
        (np.array([0.0]), TypeError, "integers, but was of float64"),
        (np.array([True]), TypeError, "integers, but was of bool"),
        (np.array([[0]]), ValueError, r"\(batch,\), but was \(1, 1\)"),
    ],
)
def test_bad_numbers(index, error, message):
    with pytest.raises(error, match=message):
        Grid().factors(index)


@pytest.mark.parametrize(
    ("factors", "error", "message"),
    [
        ([[0, 2, 0]], IndexError, "b must be at least 0 and below 2, but was 2"),
        ([[0, 0, -1]], IndexError, "c must be at least 0 and below 5, but was -1"),
        ([[0, 0]], ValueError, r"\(batch, 3\), but was \(1, 2\)"),
        ([[0.5, 0, 0]], TypeError, "integers"),
    ],
)
def test_bad_factors(factors, error, message):
    with pytest.raises(error, match=message):
        Grid().index(np.array(factors))


def test_no_images():
    nothing = np.empty(0, np.int64)
    assert RayShapes(32).factors(nothing).shape == (0, 6)
    assert RayShapes(32).images(nothing).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("length", [10, 48, 479_999])
def test_a_split_has_every_image_once(length):
    parts = split(length)
    assert [len(parts.valid), len(parts.test)] == [length // 10] * 2
    assert all(part.dtype == np.int64 for part in parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(length))


def test_a_split_depends_on_its_seed_alone():
    again = [split(Grid(), seed=7), split(30, seed=7)]
    assert all(np.array_equal(*pair) for pair in zip(*again, strict=True))
    assert not np.array_equal(split(30, seed=8).train, again[0].train)


def test_parts_are_in_random_order():
    """The first images of a part are a fair sample of it."""
    for part in split(480_000, seed=3):
        assert abs(part[:1000].mean() - 240_000) < 5 * 480_000 / math.sqrt(12 * 1000)
        assert abs(np.corrcoef(part, np.arange(len(part)))[0, 1]) < 5 / math.sqrt(len(part))


@pytest.mark.parametrize(
    ("arguments", "message"), [((9,), "at least 10 images, but had 9"), ((10, -1), "seed .* was -1")]
)
def test_bad_splits(arguments, message):
    with pytest.raises(ValueError, match=message):
        split(*arguments)


def test_open_by_name(tmp_path):
    assert open_dataset("rayshapes").image_shape == (3, 64, 64)
    small = open_dataset("rayshapes", "ignored", size=32, correlated={"shape": "wall_hue"}, strength=0.5)
    assert small.image_shape == (3, 32, 32) and small.correlation.pairs == {"shape": "wall_hue"}
    for name, original in [
        ("shapes3d", "3dshapes.h5"),
        ("isaac3d", "Isaac3D_down128.zip"),
        ("mpi3d_complex", "real3d_complicated_shapes_ordered.npz"),
    ]:
        with pytest.raises(FileNotFoundError, match=f"{name}: there is no .*{original}"):
            open_dataset(name, tmp_path)
        with pytest.raises(ValueError, match=f"root must be given for {name}"):
            open_dataset(name)
        with pytest.raises(ValueError, match=f"size must be 64 for {name}, but was 32"):
            open_dataset(name, tmp_path, size=32)


def test_open_by_a_wrong_name():
    with pytest.raises(ValueError, match="was 'shape3d'; did you mean 'shapes3d'"):
        open_dataset("shape3d")
    with pytest.raises(ValueError, match="did you mean 'rayshapes'"):
        open_dataset("RayShape")
    with pytest.raises(TypeError, match="colour"):
        open_dataset("rayshapes", colour=3)
