"""Float64 twin of primitives/volume/kernels/samples.py: positions in blocks, and values."""

import numpy as np

from tests.reference.samplers import random_bits, unit


def block_position(seed, step, i, k, n, blocks, shape, block=8):
    """Return the k-th of n positions in blocks [m, 3], [3], as a share of the box.

    Args:
        seed: of the random numbers.
        step: of the run.
        i: number of the position in the whole batch.
        k: its number among those in blocks.
        n: of those.
        blocks: in blocks.
        shape: voxels of the box.
        block: voxels along a side of a block.
    """
    at = int((k + unit(random_bits(seed, step, i, 3))) / n * len(blocks))
    low = np.array(blocks[at]) * block
    high = np.minimum(low + block, shape)
    share = np.array([unit(random_bits(seed, step, i, d)) for d in range(3)])
    return (low + (high - low) * share) / shape


def voxel_targets(values, x, margin):
    """Return the values of the voxels that hold x [n, 3], and their middles in the unit cube.

    Args:
        values: [x, y, z, channel], as trained.
        x: shares of the box.
        margin: voxels of the unit cube around the box.
    """
    shape = np.array(values.shape[:3])
    voxels = np.minimum((x * shape).astype(int), shape - 1)
    return values[tuple(voxels.T)], (voxels + margin + 0.5) / (shape.max() + 2 * margin)


def trilinear_targets(values, x, margin):
    """Return values between voxels' middles, and where: x moved to between the outermost."""
    shape = np.array(values.shape[:3])
    place = np.clip(x * shape - 0.5, 0, shape - 1)
    cell = np.minimum(place.astype(int), np.maximum(shape - 2, 0))
    f = place - cell
    result = 0.0
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, f, 1 - f), axis=1)
        result = result + weight[:, None] * values[tuple(np.minimum(cell + corner, shape - 1).T)]
    return result, (place + margin + 0.5) / (shape.max() + 2 * margin)
