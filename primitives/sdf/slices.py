"""Slices through a field as pictures: colours by sign and distance, contours at equal distances."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.field import Field
from ngp_warp.primitives.contours import draw_slice, round_number
from ngp_warp.primitives.pictures import picture_row

AXES = ("x", "y", "z")

_CONTOURS = 12
"""About as many contours on either side as the greatest distance shown has."""


@dataclass(frozen=True)
class Slice:
    """A plane of the unit cube that is perpendicular to an axis."""

    axis: int
    """0, 1 or 2: x, y or z."""
    position: float = 0.5
    """Along it, in the unit cube."""

    def points(self, size: int) -> np.ndarray:
        """Return the pixels' centres, float32 [size * size, 3], row by row from the top.

        Right and up are z and y across x, x and z across y, x and y across z.
        """
        right, up = ((2, 1), (0, 2), (0, 1))[self.axis]
        at = (np.arange(size, dtype=np.float32) + 0.5) / size
        points = np.full((size, size, 3), self.position, np.float32)
        points[..., right] = at[None, :]
        points[..., up] = at[::-1, None]
        return points.reshape(-1, 3)


def slice_values(field: Field, plane: Slice, size: int) -> np.ndarray:
    """Return the field on a slice, float32 [size, size], in sides of the unit cube."""
    return field.query(plane.points(size))[:, 0].reshape(size, size)


def render_slices(
    field: Field,
    *,
    size: int = 512,
    scale: float = 1.0,
    interval: float | None = None,
    planes: Sequence[Slice] = (Slice(0), Slice(1), Slice(2)),
) -> np.ndarray:
    """Return slices side by side, each with a line of text below, uint8 sRGB [h, w, 3].

    Warm is inside, cool outside, the thick line the zero level, the thin ones contours.

    Args:
        field: 3D, one output: the signed distance, negative inside.
        size: side of a slice in pixels.
        scale: the unit cube's sides per unit of the input (``Frame.scale``).
        interval: from contour to contour in the input's units; None: a round number.
        planes: the slices; by default across the three axes through the middle.

    Raises:
        ConfigError: a size, scale or interval that cannot be.
    """
    if not 16 <= size <= 16384:
        raise ConfigError(f"a slice must have 16 to 16384 pixels a side, got {size}")
    if not (scale > 0 and np.isfinite(scale)):
        raise ConfigError(f"the scale must be above 0, got {scale:g}")
    if interval is not None and not (interval > 0 and np.isfinite(interval)):
        raise ConfigError(f"the contours' interval must be above 0, got {interval:g}")
    values = [slice_values(field, plane, size) / np.float32(scale) for plane in planes]
    limit = max(float(np.abs(v).max()) for v in values) or 1.0
    step = interval or round_number(limit / _CONTOURS)
    pixel = 1 / (size * scale)
    pictures = [draw_slice(v, step, pixel, limit) for v in values]
    texts = [
        f"{AXES[p.axis]} = {p.position:g} of the cube, contours every {step:g}" for p in planes
    ]
    return picture_row(pictures, texts)
