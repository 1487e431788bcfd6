"""Slices through a field as pictures: colours by sign and distance, contours at equal distances."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.field import Field

AXES = ("x", "y", "z")

# Colours at the zero level (both sides) and at the greatest distance shown, sRGB: warm inside, cool
# outside, both as light as each other.
_INSIDE = np.array([[253, 219, 199], [178, 60, 45]], np.float32)
_OUTSIDE = np.array([[222, 235, 247], [40, 96, 155]], np.float32)
_LINE, _ZERO = np.array([70, 70, 75], np.float32), np.array([10, 10, 12], np.float32)
_LINE_WIDTH, _ZERO_WIDTH = 1.0, 3.0
_LINE_STRENGTH = 0.45
_GAP = 12
"""Pixels of white around the slices."""
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


def draw_slice(values: np.ndarray, interval: float, pixel: float, limit: float) -> np.ndarray:
    """Return a slice as a picture, uint8 sRGB [h, w, 3].

    Args:
        values: signed distances [h, w] in any unit.
        interval: from contour to contour, in that unit.
        pixel: side of a pixel in that unit.
        limit: distance with the strongest colour, in that unit.
    """
    share = np.sqrt(np.clip(np.abs(values) / limit, 0, 1))[..., None]
    inside, outside = (c[0] * (1 - share) + c[1] * share for c in (_INSIDE, _OUTSIDE))
    picture = np.where(values[..., None] < 0, inside, outside)
    down, right = np.gradient(values.astype(np.float64))
    slope = np.hypot(down, right)
    # Pixels to the nearest contour; where the field is flat (its medial axis) a line is no wider.
    slope = np.maximum(slope, 0.25 * pixel)
    phase = values / interval
    to_line = np.abs(phase - np.rint(phase)) * interval / slope
    line = _coverage(to_line, _LINE_WIDTH) * (np.rint(phase) != 0) * _LINE_STRENGTH
    zero = _coverage(np.abs(values) / slope, _ZERO_WIDTH)
    for cover, colour in ((line, _LINE), (zero, _ZERO)):
        picture = picture * (1 - cover[..., None]) + colour * cover[..., None]
    return np.rint(picture).astype(np.uint8)


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
    return _sheet(pictures, texts)


def round_number(value: float) -> float:
    """Return the nearest of 1, 2 and 5 times a power of ten, not below ``value``."""
    power = 10.0 ** np.floor(np.log10(value))
    for factor in (1, 2, 5):
        if factor * power >= value * (1 - 1e-9):
            return float(f"{factor * power:.1g}")
    return float(f"{10 * power:.1g}")


def _coverage(distance: np.ndarray, width: float) -> np.ndarray:
    """Return how much of a pixel a line covers whose middle is ``distance`` pixels away."""
    return np.clip(width / 2 + 0.5 - distance, 0, 1)


def _sheet(pictures: list[np.ndarray], texts: list[str]) -> np.ndarray:
    """Return pictures side by side with their texts on white."""
    from PIL import Image, ImageDraw, ImageFont

    size = len(pictures[0])
    font_size = max(size // 32, 10)
    width = len(pictures) * (size + _GAP) + _GAP
    sheet = Image.new("RGB", (width, size + 2 * _GAP + 2 * font_size), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(font_size)
    for index, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        left = _GAP + index * (size + _GAP)
        sheet.paste(Image.fromarray(picture), (left, _GAP))
        draw.text((left, size + _GAP + font_size // 2), text, fill=(40, 40, 44), font=font)
    return np.asarray(sheet)
