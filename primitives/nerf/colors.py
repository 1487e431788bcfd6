"""Colours of pictures: backgrounds by name, from the field's colour space to 8 bits."""

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.primitives.pictures import linear_to_srgb, srgb_to_linear
from ngp_warp.radiance.settings import ColorSpace

Color = tuple[float, float, float]

NAMED: dict[str, Color] = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


def parse_background(text: str) -> Color | None:
    """Return the colour that ``R,G,B`` (0 to 1, sRGB), white or black names; transparent: None.

    Raises:
        ConfigError: something else.
    """
    if text == "transparent":
        return None
    if (color := named_color(text)) is None:
        raise ConfigError(
            "--background must be white, black, transparent or R,G,B (each from 0 to 1), "
            f"got {text!r}"
        )
    return color


def named_color(text: str) -> Color | None:
    """Return the colour that white, black or ``R,G,B`` (0 to 1) names; None where it names none."""
    if text in NAMED:
        return NAMED[text]
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        return None
    return (red, green, blue) if all(0 <= v <= 1 for v in (red, green, blue)) else None


def to_srgb(values: np.ndarray, color_space: ColorSpace) -> np.ndarray:
    """Return values as sRGB in 0..1, float32; what lies beyond is cut off."""
    values = np.clip(np.asarray(values, np.float32), 0, 1)
    return linear_to_srgb(values) if color_space == "linear" else values


def to_srgb8(values: np.ndarray, color_space: ColorSpace) -> np.ndarray:
    """Return values as sRGB of 8 bits."""
    return np.rint(to_srgb(values, color_space) * 255).astype(np.uint8)


def from_srgb(color: Color, color_space: ColorSpace) -> np.ndarray:
    """Return an sRGB colour float32 [3] in a colour space."""
    values = np.array(color, np.float32)
    return srgb_to_linear(values) if color_space == "linear" else values
