"""Smaller photos, masks and depth maps, and the lenses that belong to them.

A photo of n pixels along an axis becomes one of n' = n / downscale, rounded. Each pixel of the
result is the mean over exactly the n / n' pixels that it covers, shares of pixels counted, of the
values as they are stored: an sRGB photo is averaged in sRGB, as the reduced copies are that data
sets come with. Colours count by their opacity. The lens is scaled by n' / n of each axis.

JPEG's scaled decoding is not used: it is twice as fast, but no mean (53 dB from it at a quarter).
"""

from dataclasses import replace

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.primitives.image.info import rows_per_band
from ngp_warp.rays.lenses import Lens

MIN_SIDE = 4
"""Pixels; a photo with fewer shows nothing."""


def reduced_size(size: tuple[int, int], downscale: float) -> tuple[int, int]:
    """Return the width and height that a photo of ``size`` (width, height) is reduced to.

    Args:
        size: pixels.
        downscale: at least 1.

    Raises:
        ConfigError: next to nothing is left.
    """
    width, height = (int(n / downscale + 0.5) for n in size)
    if downscale > 1.0 and min(width, height) < MIN_SIDE:
        raise ConfigError(
            f"--downscale {downscale:g} leaves {width}x{height} pixels of a photo of "
            f"{size[0]}x{size[1]}; give less"
        )
    return width, height


def scale_lens(lens: Lens, size: tuple[int, int]) -> Lens:
    """Return the lens of the same photo at another size (width, height)."""
    x, y = size[0] / lens.width, size[1] / lens.height
    return replace(
        lens,
        width=size[0],
        height=size[1],
        fx=lens.fx * x,
        cx=lens.cx * x,
        fy=lens.fy * y,
        cy=lens.cy * y,
    )


def average(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the mean over the pixels that each pixel of the result covers.

    Args:
        pixels: [h, w, c], any real dtype.
        size: width and height of the result, at most w and h.

    Returns:
        float32 [height, width, c]; exact to float32's rounding.
    """
    height, width, channels = pixels.shape
    if size == (width, height):
        return pixels.astype(np.float32)
    rows, columns = _coverage(height, size[1]), _coverage(width, size[0])
    out = np.empty((size[1], size[0], channels), np.float32)
    ratio = height / size[1]
    step = max(1, int(rows_per_band(width * channels * 4) / ratio))
    for y in range(0, size[1], step):
        part = rows[y : y + step]
        first, last = int(part.indices.min()), int(part.indices.max()) + 1
        band = pixels[first:last].astype(np.float32).reshape(last - first, -1)
        tall = (part[:, first:last] @ band).reshape(-1, width, channels)
        wide = np.ascontiguousarray(tall.swapaxes(0, 1)).reshape(width, -1)
        out[y : y + step] = (columns @ wide).reshape(size[0], -1, channels).swapaxes(0, 1)
    out /= np.float32(ratio * (width / size[0]))
    return out


def _coverage(n: int, n_out: int):
    """Return a sparse float32 [n_out, n]: the part of each input pixel that an output covers."""
    from scipy import sparse

    # In units of 1 / n_out of an input pixel everything is an integer, so that whole pixels
    # count exactly 1, and sums of 8-bit values are exact.
    starts = np.arange(n_out, dtype=np.int64) * n
    first, last = starts // n_out, -(-(starts + n) // n_out)
    counts = last - first
    outputs = np.repeat(np.arange(n_out), counts)
    inputs = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    inputs += first[outputs]
    low = np.maximum(inputs * n_out, starts[outputs])
    high = np.minimum((inputs + 1) * n_out, starts[outputs] + n)
    parts = ((high - low) / n_out).astype(np.float32)
    return sparse.csr_matrix((parts, (outputs, inputs)), shape=(n_out, n))


def smallest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the smallest value among all pixels that each pixel of the result touches.

    Args:
        mask: uint8 [h, w].
        size: width and height of the result, larger or smaller.
    """
    for axis, n_out in enumerate((size[1], size[0])):
        n = mask.shape[axis]
        if n == n_out:
            continue
        starts = np.arange(n_out, dtype=np.int64) * n
        ends = np.stack([starts // n_out, -(-(starts + n) // n_out)], axis=1).reshape(-1)
        # reduceat wants indices below the length, and the last end is the length.
        padding = [(0, int(a == axis)) for a in range(2)]
        padded = np.pad(mask, padding, constant_values=255)
        mask = np.minimum.reduceat(padded, ends, axis=axis)
        mask = mask[::2] if axis == 0 else mask[:, ::2]
    return mask


def nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the value at the middle of each pixel of the result: nothing is mixed over edges.

    Args:
        values: [h, w].
        size: width and height of the result.
    """
    height, width = values.shape
    rows = (2 * np.arange(size[1]) + 1) * height // (2 * size[1])
    columns = (2 * np.arange(size[0]) + 1) * width // (2 * size[0])
    return values[rows[:, None], columns]
