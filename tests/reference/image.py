"""Float64 twin of primitives/image/kernels.py: targets at positions, and a raster's positions."""

import numpy as np


def transfer(values: np.ndarray, gain: float, asinh: bool) -> np.ndarray:
    """Return the trained values of an image's."""
    scaled = values.astype(np.float64) * gain
    return np.arcsinh(scaled) if asinh else scaled


def pixel_targets(
    pixels: np.ndarray, x: np.ndarray, gain: float, asinh: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of the pixels that hold positions x [n, 2], and their centres."""
    size = np.array([pixels.shape[1], pixels.shape[0]])
    column, row = np.minimum((x * size).astype(int), size - 1).T
    centres = (np.stack([column, row], 1) + 0.5) / size
    return transfer(pixels[row, column], gain, asinh), centres


def bilinear_targets(pixels: np.ndarray, x: np.ndarray, gain: float, asinh: bool) -> np.ndarray:
    """Return values between pixel centres; beyond the outermost ones they stay constant."""
    values = np.pad(transfer(pixels, gain, asinh), ((1, 1), (1, 1), (0, 0)), mode="edge")
    place = x * [pixels.shape[1], pixels.shape[0]] + 0.5
    column, row = place.astype(int).T
    fx, fy = (place - place.astype(int)).T[..., None]
    above = values[row, column] * (1 - fx) + values[row, column + 1] * fx
    below = values[row + 1, column] * (1 - fx) + values[row + 1, column + 1] * fx
    return above * (1 - fy) + below * fy


def raster_positions(
    first: int, n: int, box: tuple[int, int, int], width: int, height: int
) -> np.ndarray:
    """Return the positions [n, 2] of pixels first, first + 1, ... of a box (left, top, width)."""
    left, top, box_width = box
    index = np.arange(first, first + n)
    columns, rows = left + index % box_width, top + index // box_width
    return np.stack([(columns + 0.5) / width, (rows + 0.5) / height], 1)
