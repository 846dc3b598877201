"""The scene of RayShapes: a room, an object on its floor, a camera that goes round it, cast ray by ray.

Coordinates: y up, the object stands at the origin, the back wall at z = BACK, the side walls at x = -SIDE and
x = SIDE; lengths in units of about half an object. All is float64 until the brightness of a ray is rounded to
an integer, so that sums over rays are exact in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

SHAPES = ("cube", "cylinder", "sphere", "capsule")
SCALES = np.linspace(0.75, 1.25, 8)
ORIENTATIONS = np.linspace(-30.0, 30.0, 15)  # degrees of the camera round the object
HUES = 10

FLOOR, WALL, OBJECT = 0, 1, 2

SUPERSAMPLING = 4  # rays a pixel along each axis
FULL = 371  # the brightness of white, in the integer units of one ray
WHITE = 11  # the largest level of a colour's channel

# A pixel is the sum over its rays of brightness times level. 16 rays of a white surface give 65,296; with the
# 128 that rounds the division by 256, this just fits 16 bits, and gives 255.
ROUNDING = 128
assert 255 << 8 <= SUPERSAMPLING**2 * FULL * WHITE + ROUNDING < 1 << 16

SIDE, BACK = 3.1, 4.0
CAMERA_DISTANCE, CAMERA_HEIGHT, TARGET_HEIGHT = 4.4, 3.0, 1.0
HALF_VIEW = np.tan(np.radians(25.0))
CUBE_TURN = np.radians(45.0)  # an edge towards the camera: two faces show at every orientation
LIGHT = np.array([-0.6, 0.7, -0.35]) / np.linalg.norm([-0.6, 0.7, -0.35])

AMBIENT = 0.4
CREVICE, CREVICE_REACH = 0.35, 0.5  # walls and floor darken towards each other
SHADOW, SHADOW_REACH = 0.6, 0.3  # the floor round the object
FOOT, FOOT_REACH = 0.4, 0.3  # the object near the floor
OBJECT_DIFFUSE, GLOSS, GLOSS_EXPONENT = 0.84, 0.16, 25  # together at most 1: nothing has to be clipped


def palette() -> NDArray[np.uint16]:
    """Ten evenly spaced hues of HSV at value 1 and saturation 10/11, red first: (hues, 3) levels up to WHITE.

    A step of 36 degrees moves a channel by multiples of a fifth, so the levels are integers.
    """
    hue = np.arange(HUES)[:, None]
    fifths = (5 * np.array([5, 3, 1]) + 3 * hue) % 30
    return (WHITE - 2 * np.clip(np.minimum(fifths, 20 - fifths), 0, 5)).astype(np.uint16)


@dataclass(frozen=True)
class Trace:
    """What the rays of one image hit; all arrays (SUPERSAMPLING**2, size**2), pixels row by row."""

    surface: NDArray[np.uint8]  # FLOOR, WALL or OBJECT
    brightness: NDArray[np.uint16]  # of the surface's own colour, 0 to FULL
    gloss: NDArray[np.uint16]  # of the white highlight; brightness + gloss <= FULL


class View:
    """The room from one camera, without the object: the part of a trace that 32 images share.

    Args:
        size: height and width of the image in pixels.
        degrees: of the camera round the object; at 0 it faces the back wall.
    """

    def __init__(self, size: int, degrees: float) -> None:
        yaw = np.radians(degrees)
        self.origin = np.array([CAMERA_DISTANCE * np.sin(yaw), CAMERA_HEIGHT, -CAMERA_DISTANCE * np.cos(yaw)])
        self.rays = _camera_rays(size, self.origin)
        self.distance, self.floor, self.brightness = _room(self.origin, self.rays)

    def trace(self, shape: str, scale: float) -> Trace:
        """Add an object of the given shape and scale."""
        surface = np.where(self.floor, FLOOR, WALL).astype(np.uint8)
        brightness = self.brightness.copy()
        gloss = np.zeros_like(brightness)

        ground = self.origin[:, None] + self.rays[:, self.floor] * self.distance[self.floor]
        shadow = SHADOW * np.exp(-((_from_foot(shape, scale, ground[0], ground[2]) / SHADOW_REACH) ** 2))
        brightness[self.floor] *= 1 - shadow

        # The ball round the object spares most rays the exact test.
        centre = np.array([0.0, MIDDLE * scale, 0.0]) - self.origin
        along = centre @ self.rays
        near = np.flatnonzero(centre @ centre - along**2 < (BALL * scale) ** 2)
        rays = self.rays[:, near]
        distance, normal = _HITS[shape](self.origin, rays, scale)
        hit = np.isfinite(distance)
        near, rays, normal = near[hit], rays[:, hit], normal[:, hit]
        height = self.origin[1] + rays[1] * distance[hit]
        surface[near] = OBJECT
        brightness[near] = OBJECT_DIFFUSE * _diffuse(LIGHT @ normal) * _darken(FOOT, height / FOOT_REACH)
        half = LIGHT[:, None] - rays
        half /= np.sqrt((half**2).sum(0))
        gloss[near] = GLOSS * np.maximum((normal * half).sum(0), 0) ** GLOSS_EXPONENT
        grid = (SUPERSAMPLING**2, -1)
        return Trace(
            surface.reshape(grid), _integers(brightness).reshape(grid), _integers(gloss).reshape(grid)
        )


def render(size: int, floor_hue: int, wall_hue: int, object_hue: int, trace: Trace) -> NDArray[np.uint8]:
    """One image the direct way, colouring every ray: (3, size, size).

    The truth for the tables of RayShapes, which colour sums of rays.
    """
    colours = palette()[[floor_hue, wall_hue, object_hue]].astype(np.int64)  # (surfaces, 3)
    white = WHITE * trace.gloss.astype(np.int64)
    rays = trace.brightness[..., None] * colours[trace.surface] + white[..., None]  # (rays, pixels, channels)
    pixels = (rays.sum(0) + ROUNDING) >> 8
    return np.ascontiguousarray(pixels.T.reshape(3, size, size).astype(np.uint8))


def _camera_rays(size: int, origin: Floats) -> Floats:
    """Unit directions (3, rays) through the middles of each pixel's 4 x 4 squares.

    The rays are ordered by the square in its pixel, then by the pixel.
    """
    forward = np.array([0.0, TARGET_HEIGHT, 0.0]) - origin
    forward /= np.linalg.norm(forward)
    right = np.cross(np.array([0.0, 1.0, 0.0]), forward)
    right /= np.linalg.norm(right)
    up = np.cross(forward, right)
    fine = size * SUPERSAMPLING
    edge = (2 * np.arange(fine) + 1 - fine) / fine * HALF_VIEW
    grid = edge.reshape(size, SUPERSAMPLING).T  # (square, pixel) along one axis
    down, across = np.broadcast_arrays(grid[:, None, :, None], grid[None, :, None, :])
    rays = forward[:, None] + right[:, None] * across.ravel() - up[:, None] * down.ravel()
    unit: Floats = rays / np.sqrt((rays**2).sum(0))
    return unit


def _room(origin: Floats, rays: Floats) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Distance, whether it is the floor, and brightness, for every ray."""
    x, y, z = rays
    with np.errstate(divide="ignore"):
        distances = np.stack(
            [
                np.where(y < 0, -origin[1] / y, np.inf),
                (np.copysign(SIDE, x) - origin[0]) / x,
                np.where(z > 0, (BACK - origin[2]) / z, np.inf),
            ]
        )
    nearest = distances.argmin(0)
    distance = distances.min(0)
    point = origin[:, None] + rays * distance
    facing = np.stack([np.full_like(x, LIGHT[1]), -np.sign(x) * LIGHT[0], np.full_like(x, -LIGHT[2])])
    brightness = _diffuse(np.take_along_axis(facing, nearest[None], 0)[0])
    gaps = (point[1], SIDE - np.abs(point[0]), BACK - point[2])
    for plane, gap in enumerate(gaps):
        brightness *= np.where(nearest == plane, 1.0, _darken(CREVICE, np.maximum(gap, 0) / CREVICE_REACH))
    return distance, nearest == 0, brightness


def _diffuse(cosine: Floats) -> Floats:
    """Ambient plus wrapped diffuse light, which varies over the dark side too; at most 1."""
    return AMBIENT + (1 - AMBIENT) * ((1 + cosine) / 2) ** 2


def _darken(amount: float, gap: Floats) -> Floats:
    darkened: Floats = 1 - amount * np.exp(-gap)
    return darkened


def _integers(brightness: Floats) -> NDArray[np.uint16]:
    return np.rint(FULL * brightness).astype(np.uint16)


# The objects, at scale 1. All lie in the ball of radius BALL round the point at height MIDDLE.
CUBE_HALF = 0.72
CYLINDER_RADIUS, CYLINDER_HEIGHT = 0.8, 1.5
SPHERE_RADIUS = 0.95
CAPSULE_RADIUS, CAPSULE_HEIGHT = 0.55, 2.1
MIDDLE, BALL = 1.05, 1.47


def _from_foot(shape: str, scale: float, x: Floats, z: Floats) -> Floats:
    """How far a point of the floor is from the object's foot, in units of scale; 0 below it."""
    if shape == "cube":
        across, along = _turn(x, z)
        return np.hypot(
            np.maximum(np.abs(across) / scale - CUBE_HALF, 0),
            np.maximum(np.abs(along) / scale - CUBE_HALF, 0),
        )
    # Round bottoms touch the floor in a point: their shadow begins inside their outline.
    radius = {"cylinder": CYLINDER_RADIUS, "sphere": 0.6 * SPHERE_RADIUS, "capsule": 0.7 * CAPSULE_RADIUS}
    return np.maximum(np.hypot(x, z) / scale - radius[shape], 0)


def _turn(x: Floats, z: Floats) -> tuple[Floats, Floats]:
    """From the room's axes to the cube's."""
    cos, sin = np.cos(CUBE_TURN), np.sin(CUBE_TURN)
    return cos * x - sin * z, sin * x + cos * z


def _hit_cube(origin: Floats, rays: Floats, scale: float) -> tuple[Floats, Floats]:
    """First hits: distances (rays,), infinite for a miss, and unit normals (3, rays)."""
    half = CUBE_HALF * scale
    start = np.array([*_turn(origin[0], origin[2]), origin[1] - half])
    direction = np.stack([*_turn(rays[0], rays[2]), rays[1]])
    with np.errstate(divide="ignore"):
        enter = (-np.copysign(half, direction) - start[:, None]) / direction
        leave = (np.copysign(half, direction) - start[:, None]) / direction
    axis = enter.argmax(0)
    distance = np.where(enter.max(0) < leave.min(0), enter.max(0), np.inf)
    across, along, up = np.where(np.arange(3)[:, None] == axis, -np.sign(direction), 0.0)
    cos, sin = np.cos(CUBE_TURN), np.sin(CUBE_TURN)
    return distance, np.stack([cos * across + sin * along, up, cos * along - sin * across])


def _hit_cylinder(origin: Floats, rays: Floats, scale: float) -> tuple[Floats, Floats]:
    radius, height = CYLINDER_RADIUS * scale, CYLINDER_HEIGHT * scale
    side = _enter(origin, rays, radius, upright=True)
    y = origin[1] + rays[1] * side
    side = np.where((y >= 0) & (y <= height), side, np.inf)
    with np.errstate(divide="ignore"):
        top = np.where(rays[1] < 0, (height - origin[1]) / rays[1], np.inf)
    # An infinite distance times a zero is no distance from the axis, and no hit either.
    reach = np.where(np.isfinite(top), top, 0.0)
    off_axis = np.hypot(origin[0] + rays[0] * reach, origin[2] + rays[2] * reach)
    top = np.where(off_axis <= radius, top, np.inf)
    distance = np.minimum(side, top)
    point = origin[:, None] + rays * np.where(np.isfinite(distance), distance, 0.0)
    normal = np.where(top < side, np.array([[0.0], [1.0], [0.0]]), point * [[1.0], [0.0], [1.0]] / radius)
    return distance, normal


def _hit_sphere(origin: Floats, rays: Floats, scale: float) -> tuple[Floats, Floats]:
    return _hit_pill(origin, rays, SPHERE_RADIUS * scale, 2 * SPHERE_RADIUS * scale)


def _hit_capsule(origin: Floats, rays: Floats, scale: float) -> tuple[Floats, Floats]:
    return _hit_pill(origin, rays, CAPSULE_RADIUS * scale, CAPSULE_HEIGHT * scale)


def _hit_pill(origin: Floats, rays: Floats, radius: float, height: float) -> tuple[Floats, Floats]:
    """An upright capsule: a cylinder between two balls, which coincide in a sphere."""
    low, high = radius, height - radius
    side = _enter(origin, rays, radius, upright=True)
    y = origin[1] + rays[1] * side
    distance = np.where((y >= low) & (y <= high), side, np.inf)
    for centre in (low, high):
        lowered = origin - np.array([0.0, centre, 0.0])
        distance = np.minimum(distance, _enter(lowered, rays, radius, upright=False))
    point = origin[:, None] + rays * np.where(np.isfinite(distance), distance, 0.0)
    point[1] -= np.clip(point[1], low, high)
    return distance, point / radius


def _enter(origin: Floats, rays: Floats, radius: float, *, upright: bool) -> Floats:
    """Distance to the ball round 0, or to the endless cylinder round the y axis; infinite for a miss."""
    axes = [0, 2] if upright else [0, 1, 2]
    start, direction = origin[axes], rays[axes]
    a = (direction**2).sum(0)
    b = start @ direction
    discriminant = b**2 - a * (start @ start - radius**2)
    root = np.sqrt(np.maximum(discriminant, 0))
    return np.where((discriminant > 0) & (b < 0), (-b - root) / a, np.inf)


_HITS = {"cube": _hit_cube, "cylinder": _hit_cylinder, "sphere": _hit_sphere, "capsule": _hit_capsule}
