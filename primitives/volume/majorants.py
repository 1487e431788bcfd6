"""A sparse grid of majorants: bounds of a dense field, block by block, and ways around empty ones.

Cells lie between neighbouring values, blocks are cubes of cells. A block's majorant is the largest
value on any corner of its cells, so that it bounds the *interpolated* field everywhere in it; the
blocks that touch share the values between them.
"""

from typing import Any

import numpy as np

from ngp_warp.errors import ConfigError, ShapeError

BLOCK = 4
"""Cells along a side of a block. Larger ones bound the field less tightly, smaller ones are more
to walk through."""

_SLACK = np.float32(1 + 2**-20)
"""The interpolation of ``kernels/fields.py`` rounds up by at most 9 * 2^-24."""


def padded(values: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """Return values with zeros around them: one plane below, and above up to whole blocks.

    Args:
        values: [x, y, z].
        block: cells along a side of a block.

    Returns:
        float32; every side is a multiple of ``block``, plus 1; negative values are 0.

    Raises:
        ConfigError: a block of no cells.
        ShapeError: values that are no scalars on a grid.
    """
    if block < 1:
        raise ConfigError(f"a block must have at least 1 cell along a side, got {block}")
    if values.ndim != 3 or values.size == 0:
        raise ShapeError(f"values must have shape [x, y, z], got {list(values.shape)}")
    # cells: one beyond the last value on either side
    shape = [-(-(n + 1) // block) * block + 1 for n in values.shape]
    result = np.zeros(shape, np.float32)
    inner = result[tuple(slice(1, n + 1) for n in values.shape)]
    np.maximum(values, 0, out=inner, casting="same_kind")
    return result


def block_majorants(values: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """Return bounds of the trilinear interpolation of values in blocks of cells.

    Args:
        values: float32 [x, y, z] of at least 0, each side a multiple of ``block``, plus 1.
        block: cells along a side of a block.

    Returns:
        float32 [x / block, y / block, z / block]; 0 where the field is 0 all over the block.
    """
    result = values
    for axis in range(3):
        rows = np.moveaxis(result, axis, 0)
        inner = rows[:-1].reshape(-1, block, *rows.shape[1:]).max(axis=1)
        # the last corners of a block are the first of the next
        result = np.moveaxis(np.maximum(inner, rows[block::block]), 0, axis)
    return np.ascontiguousarray(result * _SLACK)


def empty_reaches(majorants: np.ndarray) -> np.ndarray:
    """Return how far around each block all blocks are empty.

    Returns:
        int32 of the same shape: 0, the block is not empty; n, all blocks less than n away along
        every axis are (Chebyshev distance to the nearest that is not). Beyond the grid all is
        empty.
    """
    from scipy import ndimage

    if not majorants.any():
        return np.full(majorants.shape, max(majorants.shape), np.int32)
    distances: Any = ndimage.distance_transform_cdt(majorants == 0, metric="chessboard")
    return distances.astype(np.int32)
