"""Planes across a volume's index axes, and a volume's values on them.

Values are interpolated linearly, and a pixel is as wide as it is high in the world: voxels are
drawn in their proportions. A plane shows whole voxels, half a voxel beyond the outermost middles.
"""

from dataclasses import dataclass

import numpy as np

from ngp_warp.config import check_range
from ngp_warp.primitives.volume.grid import Index, checked_transform
from ngp_warp.rays.cameras import Up, up_vector

AXES = ("x", "y", "z")


@dataclass(frozen=True)
class Plane:
    """A plane across an index axis, as a picture."""

    axis: int
    """0, 1 or 2: x, y or z."""
    position: float
    """Along it, in voxels from the first value."""
    right: int
    """Axis that is right in the picture."""
    up: int
    """Axis that is up."""
    flipped: tuple[bool, bool]
    """Whether the world runs against the index along ``right`` and ``up``; the picture follows
    the world."""
    size: tuple[float, float]
    """Width and height in the world."""

    def pixels(self, pixel: float) -> tuple[int, int]:
        """Return the picture's height and width for pixels of a world size."""
        width, height = (max(round(side / pixel), 1) for side in self.size)
        return height, width

    def section(self, values: np.ndarray) -> np.ndarray:
        """Return values [x, y, z] or [x, y, z, channel] on the plane at the index points.

        Returns:
            [up, right] or [up, right, channel], by rising index.
        """
        plane = _between(np.moveaxis(values, self.axis, 0), np.array([self.position]))[0]
        # the two axes that are left are in their order
        return plane if self.up < self.right else np.swapaxes(plane, 0, 1)

    def picture(self, section: np.ndarray, pixel: float) -> np.ndarray:
        """Return scalars [up, right] interpolated at the pixels' centres, float32 [h, w]."""
        for n, flip in zip(self.pixels(pixel), self.flipped[::-1], strict=True):
            at = (np.arange(n) + 0.5) * (len(section) / n) - 0.5
            section = _between(section, at[::-1] if flip else at).T
        return np.ascontiguousarray(section[::-1], np.float32)


def middle_planes(
    shape: tuple[int, ...],
    to_world: np.ndarray | None = None,
    first: Index = (0, 0, 0),
    *,
    at: tuple[float, float, float] | None = None,
    up: Up = "y",
) -> list[Plane]:
    """Return the three planes across the index axes.

    Right and up are z and y across x, x and z across y, x and y across z. With another axis up,
    that one is up in the two planes that have it, and right is the other.

    Args:
        shape: numbers of values along the axes.
        to_world: float64 [4, 4], index to world; None: the index itself.
        first: index of the first value.
        at: index at which the planes cross; None: the middle of the values.
        up: the index axis that is up where it can be.

    Raises:
        ConfigError: a place outside the volume, or no such axis.
    """
    up_vector(up)
    matrix = checked_transform(to_world)
    middle = tuple((n - 1) // 2 for n in shape[:3])
    place = middle if at is None else tuple(p - f for p, f in zip(at, first, strict=True))
    for axis, (p, n) in enumerate(zip(place, shape, strict=False)):
        check_range(f"the slice's {AXES[axis]}", first[axis] + p, first[axis], first[axis] + n - 1)
    sides = np.linalg.norm(matrix[:3, :3], axis=0) * shape[:3]
    strongest = np.abs(matrix[:3, :3]).argmax(axis=0)
    against = [bool(matrix[strongest[a], a] < 0) for a in range(3)]
    planes = []
    for axis in range(3):
        right, upward = ((2, 1), (0, 2), (0, 1))[axis]
        if right == AXES.index(up):
            right, upward = upward, right
        flipped = (against[right], against[upward])
        size = (float(sides[right]), float(sides[upward]))
        planes.append(Plane(axis, float(place[axis]), right, upward, flipped, size))
    return planes


def _between(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return values at places of their first axis, linear, and constant beyond the ends."""
    at = np.clip(at, 0, len(values) - 1)
    low = np.minimum(at.astype(int), max(len(values) - 2, 0))
    share = (at - low).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    high = np.minimum(low + 1, len(values) - 1)
    return values[low] * (1 - share) + values[high] * share
