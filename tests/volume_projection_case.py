"""Volumes and cameras of the tests of projections."""

import math

import numpy as np

from ngp_warp.primitives.pictures import srgb_to_linear
from ngp_warp.primitives.volume.grid import world_cube
from ngp_warp.primitives.volume.transfer_function import TransferFunction
from ngp_warp.rays.cameras import Camera, orbit

FIRST = (5, -3, 2)
COLORS = TransferFunction(
    ((0.1, 0.9, 0.2, 0.1, 0.0), (0.6, 0.2, 0.9, 0.4, 0.1), (0.9, 0.9, 0.9, 1.0, 0.6))
)
ALBEDO = np.array([0.84, 0.74, 0.62])
KINDS = [
    {"kind": "mip"},
    {"kind": "surface", "level": 0.65},
    {"kind": "transfer", "transfer": COLORS},
]


def camera_at(values, to_world, first=(0, 0, 0), size=24, view=(35, 25, 1.9)):
    camera = orbit(*view, width=size + 3, height=size)
    return camera.moved(*world_cube(values.shape, to_world, first))


def lattice(shape, to_world, first=(0, 0, 0)):
    """World points [x, y, z, 3] of the values."""
    index = np.moveaxis(np.indices(shape), 0, -1) + np.array(first)
    return index @ to_world[:3, :3].T + to_world[:3, 3]


def blobs(points):
    """A smooth function of world points, 0 to about 1.2."""
    centres = np.array([[8.0, 9, 10], [15, 12, 9], [11, 16, 14]])
    squares = np.sum((points[..., None, :] - centres) ** 2, axis=-1)
    return np.exp(-squares / (2 * np.array([3.5, 3.0, 4.0]) ** 2)).sum(axis=-1)


def along(axis, shape, distance=1e5):
    """A camera so far away that its rays are parallel, each through a column of middles."""
    right, up = ((1, 2), (0, 2), (0, 1))[axis]
    middle = (np.array(shape) - 1) / 2
    place = middle.copy()
    place[axis] += distance
    pixels = shape[up]
    return Camera(
        position=tuple(place.tolist()), look_at=tuple(middle.tolist()),
        up=tuple(np.eye(3)[up].tolist()), width=shape[right], height=pixels,
        fov=math.degrees(2 * math.atan(pixels / (2 * distance))),
    )  # fmt: skip


def as_seen(plane, axis):
    """Values by the two axes that are left, in their order, as ``along`` sees them."""
    # from above an axis, the others are right-handed but for y
    flipped = plane if axis != 1 else plane[::-1]
    return flipped.T[::-1]


def unblended(projection, background=(1, 1, 1)):
    """Premultiplied linear RGB of a picture over a background."""
    share = 1 - projection.opacity[..., None]
    return srgb_to_linear(projection.color) - share * srgb_to_linear(np.array(background))
