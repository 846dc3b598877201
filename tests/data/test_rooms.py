"""RayShapes with some values of some factors."""

import numpy as np
import pytest
import torch

from fqvae.data import RayShapes, has_full_grid, open_dataset
from fqvae.data.rooms import Rooms, some_rooms
from fqvae.runs.config import DataConfig
from fqvae.runs.data import describe, named, open_data

HUES = {"floor_hue": [0, 2, 4], "orientation": [7], "object_hue": [9, 3][::-1]}


def test_its_images_are_those_of_rayshapes_with_these_values():
    """Every image is found among all by its factors, translated by hand."""
    rooms, every = Rooms(32, HUES), RayShapes(32)
    assert rooms.factor_names == ("floor_hue", "wall_hue", "object_hue", "scale", "shape")
    assert rooms.factor_sizes == (3, 10, 2, 8, 4) and len(rooms) == 3 * 10 * 2 * 8 * 4
    assert has_full_grid(rooms)
    index = np.random.default_rng(0).permutation(len(rooms))[:200]
    factors = rooms.factors(index).numpy()
    meant = np.column_stack(
        [factors[:, 0] * 2, factors[:, 1], factors[:, 2] * 6 + 3, factors[:, 3:], np.full(200, 7)]
    )
    assert torch.equal(rooms.images(index), every.images(every.index(meant)))
    assert torch.equal(rooms.index(rooms.factors(index)), torch.from_numpy(index))


def test_all_values_are_the_whole_set():
    rooms, every = Rooms(32), RayShapes(32)
    assert rooms.factor_names == every.factor_names and len(rooms) == len(every)
    assert torch.equal(rooms.images(np.arange(5000, 5010)), every.images(np.arange(5000, 5010)))


def test_a_configuration_opens_it():
    arguments = '{"size": 32, "orientation": [0, 14]}'
    data = DataConfig(name="fqvae.data.rooms:some_rooms", arguments=arguments)
    dataset = open_data(data)
    assert dataset.factor_sizes[-1] == 2 and dataset.image_shape == (3, 32, 32)
    again = open_data(named(DataConfig(size=32, channels=3), dataset))
    assert again.factor_sizes == dataset.factor_sizes
    assert open_dataset(data.name, arguments={"size": 32}).factor_sizes == RayShapes(32).factor_sizes


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"floor_hu": [1]}, "there is no factor 'floor_hu'; did you mean 'floor_hue'?"),
        ({"scale": [0, 8]}, r"those of scale must be increasing and from 0 to 7, but were \[0, 8\]"),
        ({"scale": [3, 2]}, "those of scale must be increasing"),
        ({"scale": [2, 2]}, "those of scale must be increasing"),
        ({"scale": []}, "those of scale must be increasing"),
        ({name: [0] for name in RayShapes.factor_names}, "at least two values, but left none"),
    ],
)
def test_errors(values, words):
    with pytest.raises(ValueError, match=words):
        some_rooms(size=32, **values)
    with pytest.raises(ValueError, match="size must be one of"):
        Rooms(16)


def test_what_a_run_remembers_depends_on_no_pixel(monkeypatch):
    """Another processor may round them otherwise, as those of RayShapes; other values are another set."""
    first = describe(Rooms(32, HUES))
    monkeypatch.setattr(Rooms, "images", lambda *_: torch.zeros(1))
    assert describe(Rooms(32, HUES)) == first and describe(Rooms(32))["digest"] != first["digest"]
