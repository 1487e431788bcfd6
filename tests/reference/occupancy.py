"""The occupancy grid in float64 and Python integers. Twin of ngp_warp/kernels/occupancy.py.

Cells are indexed [cascade, z, y, x]; a cell's number is their place in that order.
"""

import numpy as np

from tests.reference.samplers import random_bits, unit

CELLS, EARLY_STEPS = 128, 256


def slices(n_cascades):
    """(x, cascades) of each slice: x in bit-reversed order, one or two cascades at a time."""
    n_groups = -(-n_cascades // 2)
    order = [sum((k >> b & 1) << (6 - b) for b in range(7)) for k in range(CELLS)]
    return [
        (x, list(range(group, n_cascades, n_groups))) for group in range(n_groups) for x in order
    ]


def updated(step, n_cascades):
    """Numbers of the slices that a step (from 1) updates."""
    n = 2 if step <= EARLY_STEPS else 1
    start = (step - 1) * n % (128 * -(-n_cascades // 2))
    return list(range(start, start + n))


def decay(step, n_cascades):
    """Of a value from one update of its cell to the next: 0.6 per 16 steps."""
    interval = 128 * -(-n_cascades // 2) / (2 if step <= EARLY_STEPS else 1)
    return 0.6 ** (interval / 16)


def cells_of(index, used):
    """Indices (arrays) of a slice's used cells, cascade by cascade, z and then y."""
    x, cascades = slices(len(used))[index]
    cells = [(c, z, y, x) for c in cascades for z, y in np.argwhere(used[c, :, :, x])]
    return tuple(np.array(cells).reshape(-1, 4).T)


def point(cell, seed, step, n_cascades):
    """The random point of a cell, box coordinates."""
    cascade, *zyx = cell
    number = int(np.ravel_multi_index(cell, (n_cascades, CELLS, CELLS, CELLS)))
    side = 2.0 ** (cascade + 1 - n_cascades)
    u = [(i + unit(random_bits(seed, step, number, d))) / CELLS for d, i in enumerate(zyx[::-1])]
    return 0.5 + (np.array(u) - 0.5) * side


def threshold(values):
    """Thickness above which a cell is occupied."""
    used = values[values >= 0]
    return min(0.01, 0.5 * used.mean()) if used.size else 0.0
