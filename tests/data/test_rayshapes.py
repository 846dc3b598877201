"""RayShapes against an independent ray-caster, and its tables against casting ray by ray."""

import colorsys
import copy
import math
import pickle

import numpy as np
import pytest
import torch

from fqvae.data import RayShapes, scene


def rotated(a, b, angle):
    """The plane's vector (a, b) turned from a towards b."""
    return a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle)


class Marched:
    """The scene by sphere tracing in float64: signed distances, numerical normals, the camera by its angles.

    It shares the scene's dimensions with the package, and no geometry.
    """

    def __init__(self, shape, scale, degrees):
        self.shape, self.scale = shape, scale
        self.yaw = math.radians(degrees)
        self.eye = np.array(
            [
                scene.CAMERA_DISTANCE * math.sin(self.yaw),
                scene.CAMERA_HEIGHT,
                -scene.CAMERA_DISTANCE * math.cos(self.yaw),
            ]
        )
        self.pitch = math.atan2(scene.CAMERA_HEIGHT - scene.TARGET_HEIGHT, scene.CAMERA_DISTANCE)

    def rays(self, size, row, column):
        """(rays, 3), the 16 of each pixel together."""
        sub = (np.arange(4) + 0.5) / 4
        right = ((column[:, None, None] + sub[None, None, :]) / size * 2 - 1) * math.tan(math.radians(25))
        up = (1 - (row[:, None, None] + sub[None, :, None]) / size * 2) * math.tan(math.radians(25))
        right, up = (each.ravel() for each in np.broadcast_arrays(right, up))
        forward, up = rotated(np.ones_like(up), up, -self.pitch)
        # At yaw 0 the camera looks along z, with x to its right; it turns to the left as it moves right.
        forward, right = rotated(forward, right, -self.yaw)
        rays = np.stack([right, up, forward], 1)
        return rays / np.linalg.norm(rays, axis=1, keepdims=True)

    def room(self, p):
        """Distances to floor, side walls, back wall: (3, rays)."""
        return np.stack([p[:, 1], scene.SIDE - abs(p[:, 0]), scene.BACK - p[:, 2]])

    def thing(self, p):
        x, y, z = (p / self.scale).T
        if self.shape == "cube":
            x, z = rotated(x, z, math.pi / 4)
            q = abs(np.stack([x, y - scene.CUBE_HALF, z])) - scene.CUBE_HALF
            distance = np.linalg.norm(np.maximum(q, 0), axis=0) + np.minimum(q.max(0), 0)
        elif self.shape == "cylinder":
            half = scene.CYLINDER_HEIGHT / 2
            q = np.stack([np.hypot(x, z) - scene.CYLINDER_RADIUS, abs(y - half) - half])
            distance = np.linalg.norm(np.maximum(q, 0), axis=0) + np.minimum(q.max(0), 0)
        elif self.shape == "sphere":
            distance = np.sqrt(x**2 + (y - scene.SPHERE_RADIUS) ** 2 + z**2) - scene.SPHERE_RADIUS
        else:
            r = scene.CAPSULE_RADIUS
            nearest = np.clip(y, r, scene.CAPSULE_HEIGHT - r)
            distance = np.sqrt(x**2 + (y - nearest) ** 2 + z**2) - r
        return distance * self.scale

    def outline(self, p):
        """Distance on the floor from the foot that the contact shadow starts at, over the scale."""
        x, z = p[:, 0] / self.scale, p[:, 2] / self.scale
        if self.shape == "cube":
            x, z = rotated(x, z, math.pi / 4)
            return np.linalg.norm(np.maximum(abs(np.stack([x, z])) - scene.CUBE_HALF, 0), axis=0)
        foot = {"cylinder": 0.8, "sphere": 0.6 * 0.95, "capsule": 0.7 * 0.55}[self.shape]
        return np.maximum(np.hypot(x, z) - foot, 0)

    def pixels(self, size, row, column, hues):
        """(pixels, 3), 0 to 255, not rounded."""
        rays = self.rays(size, row, column)
        travelled = np.zeros(len(rays))
        for _ in range(400):
            p = self.eye + rays * travelled[:, None]
            travelled += np.minimum(self.room(p).min(0), self.thing(p))
        p = self.eye + rays * travelled[:, None]
        room = self.room(p)
        plane = room.argmin(0)
        is_thing = self.thing(p) < room.min(0)

        axes = 1e-5 * np.eye(3)
        normal = np.stack([self.thing(p + e) - self.thing(p - e) for e in axes], 1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        walls = np.zeros_like(p)
        walls[plane == 0, 1] = 1
        walls[plane == 1, 0] = -np.sign(p[plane == 1, 0])
        walls[plane == 2, 2] = -1
        normal = np.where(is_thing[:, None], normal, walls)

        light = np.array([-0.6, 0.7, -0.35]) / math.sqrt(0.36 + 0.49 + 0.1225)
        shade = 0.4 + 0.6 * ((1 + normal @ light) / 2) ** 2
        crevice = 1 - 0.35 * np.exp(-room / 0.5)
        crevice[plane, np.arange(len(p))] = 1
        shadow = np.where(plane == 0, 1 - 0.6 * np.exp(-((self.outline(p) / 0.3) ** 2)), 1)
        foot = 1 - 0.4 * np.exp(-p[:, 1] / 0.3)
        shade *= np.where(is_thing, 0.84 * foot, crevice.prod(0) * shadow)
        half = light - rays
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        gloss = np.where(is_thing, 0.16 * np.maximum((normal * half).sum(1), 0) ** 25, 0)

        colours = np.array([colorsys.hsv_to_rgb(hue / 10, 10 / 11, 1) for hue in hues])
        surface = np.where(is_thing, 2, np.where(plane == 0, 0, 1))
        colour = shade[:, None] * colours[surface] + gloss[:, None]
        return 255 * colour.reshape(-1, 16, 3).mean(1)


@pytest.mark.parametrize("shape", range(4))
@pytest.mark.parametrize(
    ("size", "hues", "scale", "orientation"), [(64, (4, 7, 0), 7, 3), (32, (1, 9, 5), 2, 12)]
)
def test_pixels_are_those_of_an_independent_ray_caster(shape, size, hues, scale, orientation):
    shapes = RayShapes(size)
    image = shapes.images(shapes.index(np.array([[*hues, scale, shape, orientation]])))[0]
    generator = np.random.default_rng(shape)
    # As many pixels round the object as all over.
    middle = generator.integers(size // 4, 3 * size // 4, (2, 150))
    row, column = np.concatenate([middle, generator.integers(size, size=(2, 150))], 1)
    marched = Marched(
        ("cube", "cylinder", "sphere", "capsule")[shape],
        0.75 + 0.5 * scale / 7,
        -30 + 60 * orientation / 14,
    )
    truth = marched.pixels(size, row, column, hues)
    error = np.abs(image[:, row, column].numpy().T - truth).max(1)
    # Half a level from rounding, the rest from brightness in 371 steps. A ray in a few thousand grazes an
    # edge and is marched to the other side of it: a sixteenth of its pixel.
    assert np.sort(error)[:-3].max() < 0.75
    assert error.max() < 255 / 16 + 0.75


@pytest.mark.parametrize(("size", "count"), [(64, 60), (32, 200)])
def test_images_are_equal_to_those_cast_ray_by_ray(size, count):
    shapes = RayShapes(size)
    index = np.random.default_rng(size).integers(len(shapes), size=count)
    index[:2] = 0, len(shapes) - 1
    images = shapes.images(index)
    assert images.dtype == torch.uint8 and images.shape == (count, 3, size, size) and images.is_contiguous()
    for image, number in zip(images, index, strict=True):
        assert torch.equal(image, shapes.render(int(number)))


def test_an_image_follows_from_its_number_alone():
    shapes = RayShapes(32)
    index = np.random.default_rng(1).integers(len(shapes), size=300)
    images = shapes.images(torch.from_numpy(index))
    order = np.random.default_rng(2).permutation(300)
    assert torch.equal(RayShapes(32).images(index[order]), images[order])
    images.fill_(0)  # what is returned is the caller's
    assert shapes.images(index).any()


def test_colours_are_ten_hues_at_full_value():
    hsv = np.array([colorsys.rgb_to_hsv(*(level / 11 for level in colour)) for colour in scene.palette()])
    assert np.allclose(hsv, [[k / 10, 10 / 11, 1] for k in range(10)])


def test_no_sum_leaves_sixteen_bits():
    """All rays of a pixel on the brightest point of a white surface, highlight included."""
    brightest = np.rint(scene.FULL * scene.OBJECT_DIFFUSE) + np.rint(scene.FULL * scene.GLOSS)
    assert brightest <= scene.FULL
    assert 16 * scene.FULL * 11 + 128 < 2**16
    assert (16 * scene.FULL * 11 + 128) // 256 == 255


@pytest.mark.parametrize("size", [32, 64])
def test_every_factor_shows(size):
    """A step of any factor changes some pixel by 30 levels at least, whatever the others are."""
    shapes = RayShapes(size)
    generator = np.random.default_rng(0)
    for j, count in enumerate(shapes.factor_sizes):
        factors = np.stack([generator.integers(n, size=100) for n in shapes.factor_sizes], 1)
        factors[:, 2] = (factors[:, :2].max(1) + 3) % 10  # an object of the room's colour is hard to see
        factors[:, j] = generator.integers(count - 1, size=100)
        moved = factors.copy()
        moved[:, j] += 1
        change = shapes.images(shapes.index(factors)).int() - shapes.images(shapes.index(moved)).int()
        assert change.abs().amax((1, 2, 3)).min() >= 30, shapes.factor_names[j]


@pytest.mark.parametrize("shape", scene.SHAPES)
def test_sparing_rays_the_exact_test_changes_nothing(shape, monkeypatch):
    views = [scene.View(32, degrees) for degrees in scene.ORIENTATIONS]
    spared = [view.trace(shape, 1.0).surface for view in views]
    monkeypatch.setattr(scene, "BALL", 100.0)
    assert all(
        np.array_equal(view.trace(shape, 1.0).surface, each) for view, each in zip(views, spared, strict=True)
    )


@pytest.mark.parametrize("shape", scene.SHAPES)
def test_the_largest_object_keeps_clear_of_the_edges(shape):
    for degrees in (-30, 0, 30):
        surface = scene.View(32, degrees).trace(shape, scene.SCALES[-1]).surface.reshape(16, 32, 32)
        inside = np.zeros((32, 32), bool)
        inside[2:-2, 2:-2] = True
        assert (surface[:, inside] == scene.OBJECT).any()
        assert not (surface[:, ~inside] == scene.OBJECT).any()


def test_the_orientation_shows_behind_round_shapes():
    """Far from the object, on the wall: the corners of the room move with the camera."""
    shapes = RayShapes(32)
    for shape in (1, 2, 3):
        factors = np.array([[4, 6, 0, 7, shape, k] for k in range(15)])
        top = shapes.images(shapes.index(factors))[:, :, :6].int()
        assert (top[1:] - top[:-1]).abs().amax((1, 2, 3)).min() >= 20


def test_the_camera_goes_round_a_symmetric_room():
    """Opposite orientations mirror each other in what light does not decide: where each surface is."""
    for shape in scene.SHAPES:
        left, right = (scene.View(32, sign * 30).trace(shape, 1.0).surface for sign in (-1, 1))
        grids = [
            surface.reshape(4, 4, 32, 32).transpose(2, 0, 3, 1).reshape(128, 128) for surface in (left, right)
        ]
        assert (grids[0] != grids[1][:, ::-1]).mean() < 1e-3
        assert set(np.unique(left)) == {scene.FLOOR, scene.WALL, scene.OBJECT}


def test_copies_are_small_and_equal():
    shapes = RayShapes(32, correlated={"object_hue": "wall_hue"}, strength=0.3)
    index = np.array([5, 300_000])
    images = shapes.images(index)
    data = pickle.dumps(shapes)
    assert len(data) < 2000
    for twin in (pickle.loads(data), copy.deepcopy(shapes)):
        assert torch.equal(twin.images(index), images)
        assert np.array_equal(twin.correlation.acceptance(index), shapes.correlation.acceptance(index))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 48}, r"size must be one of \(32, 64\), but was 48"),
        ({"strength": 0.5}, "strength was 0.5, but correlated names no factors"),
        ({"correlated": {"object_hue": "wall_hue"}, "strength": 1.5}, "between 0 and 1, but was 1.5"),
        ({"correlated": {"object_hue": "wall_hue"}, "strength": math.nan}, "between 0 and 1, but was nan"),
        ({"correlated": {"object_hue": "wallhue"}}, "no factor 'wallhue'; did you mean 'wall_hue'"),
        ({"correlated": {"form": "wall_hue"}}, "rayshapes has no factor 'form'"),
        ({"correlated": {"scale": "shape", "shape": "wall_hue"}}, "shape is tied to a factor and has"),
        ({"correlated": {"scale": "scale"}}, "scale is tied"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        RayShapes(**arguments)
