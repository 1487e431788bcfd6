"""Signed distances on a plane as a picture: colours by sign and distance, and contours."""

import numpy as np

# Colours at the zero level (both sides) and at the greatest distance shown, sRGB: warm inside, cool
# outside, both as light as each other.
_INSIDE = np.array([[253, 219, 199], [178, 60, 45]], np.float32)
_OUTSIDE = np.array([[222, 235, 247], [40, 96, 155]], np.float32)
_LINE, _ZERO = np.array([70, 70, 75], np.float32), np.array([10, 10, 12], np.float32)
_LINE_WIDTH, _ZERO_WIDTH = 1.0, 3.0
_LINE_STRENGTH = 0.45
_FLAT = 1e-3
"""Slope, of a distance's 1, up to which there is no contour."""


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
    # Narrow bands end at a constant, which may be a multiple of the interval: no contour.
    sloping = slope > _FLAT * pixel
    # Pixels to the nearest contour; where the field is flat (its medial axis) a line is no wider.
    slope = np.maximum(slope, 0.25 * pixel)
    phase = values / interval
    to_line = np.abs(phase - np.rint(phase)) * interval / slope
    line = _coverage(to_line, _LINE_WIDTH) * ((np.rint(phase) != 0) & sloping) * _LINE_STRENGTH
    zero = _coverage(np.abs(values) / slope, _ZERO_WIDTH)
    for cover, colour in ((line, _LINE), (zero, _ZERO)):
        picture = picture * (1 - cover[..., None]) + colour * cover[..., None]
    return np.rint(picture).astype(np.uint8)


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
