"""Between a mesh's own units and the unit cube, in which everything is learned and queried."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ngp_warp.errors import DataError

FILLED = 0.9
"""Share of the unit cube's edge that the mesh's largest extent fills; the rest is margin."""
_EXTENT_MIN, _EXTENT_MAX = 1e-30, 1e30  # their cubes, as volumes, still are float64


def bounds_of(points: np.ndarray) -> np.ndarray:
    """Return the lower and upper corner [2, 3] of the box around points [n, 3]."""
    return np.stack([points.min(axis=0), points.max(axis=0)])


@dataclass(frozen=True)
class Frame:
    """The map ``unit = (point - centre) * scale + 0.5`` and its inverse, in float64."""

    centre: tuple[float, float, float]
    """Centre of the mesh's bounds, in input units."""
    scale: float
    """Unit lengths per input unit."""

    @classmethod
    def around(cls, bounds: np.ndarray) -> "Frame":
        """Return the frame that brings a box into the middle of the unit cube.

        Args:
            bounds: [2, 3], lower and upper corner in input units.

        Raises:
            DataError: the largest extent is zero, or beyond what can be computed with.
        """
        with np.errstate(over="ignore"):
            extent = float((bounds[1] - bounds[0]).max())
        if not _EXTENT_MIN <= extent <= _EXTENT_MAX:
            raise DataError(
                f"its largest extent is {extent:g}, and must lie between {_EXTENT_MIN:g} and "
                f"{_EXTENT_MAX:g}; scale it"
            )
        # Halved first: the sum of two coordinates may overflow where neither does.
        x, y, z = (bounds[0] / 2 + bounds[1] / 2).tolist()
        return cls((x, y, z), FILLED / extent)

    def to_unit(self, points: np.ndarray) -> np.ndarray:
        """Return points [n, 3] of the input's units in unit space, float64 [n, 3]."""
        return (np.asarray(points, np.float64) - self.centre) * self.scale + 0.5

    def from_unit(self, points: np.ndarray) -> np.ndarray:
        """Return points [n, 3] of unit space in the input's units, float64 [n, 3]."""
        return (np.asarray(points, np.float64) - 0.5) / self.scale + self.centre

    def distance_from_unit(self, distance: Any) -> Any:
        """Return a distance of unit space, a number or an array, in the input's units."""
        return distance / self.scale

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"centre": list(self.centre), "scale": self.scale}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Frame":
        """Return the frame that `to_dict` described.

        Raises:
            DataError: values are missing, or are no finite numbers and a positive scale.
        """
        try:
            x, y, z = (float(value) for value in values["centre"])
            scale = float(values["scale"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"a frame needs a centre of 3 numbers and a scale: {values}") from error
        if not (all(map(math.isfinite, (x, y, z, scale))) and scale > 0):
            raise DataError(f"a frame's centre must be finite and its scale positive: {values}")
        return cls((x, y, z), scale)
