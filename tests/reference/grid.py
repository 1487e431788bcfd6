"""Multiresolution grid in float64. Twin of ngp_warp/kernels/grid.py and grid_portable.py.

A level has ``scale``, ``resolution``, ``size`` and ``offset``; whether it is hashed follows.
Tables are [n_entries, F], positions [n, d], features [n, L * F].
"""

from itertools import product

import numpy as np

PRIMES = (1, 2654435761, 805459861)

# s, ds/df and hence dy/dx of the fraction f in a cell
FRACTIONS = {
    "linear": (lambda f: f, np.ones_like),
    "smoothstep": (lambda f: 3 * f**2 - 2 * f**3, lambda f: 6 * f - 6 * f**2),
    "nearest": (np.zeros_like, np.zeros_like),
}


def entry(vertex, resolution, size, grid_type, primes=PRIMES):
    """Index in its level of a vertex [..., d] of integers; all arithmetic modulo 2^32."""
    vertex = np.asarray(vertex, np.uint64)
    n_dims = vertex.shape[-1]
    word = np.uint64(0xFFFFFFFF)
    if resolution**n_dims > size and grid_type == "hash":
        index = np.zeros(vertex.shape[:-1], np.uint64)
        for d in range(n_dims):
            index ^= (vertex[..., d] * np.uint64(primes[d])) & word
    else:
        index, stride = np.zeros(vertex.shape[:-1], np.uint64), 1
        for d in range(n_dims):
            # an axis that a tiled level has no room for is left out
            if stride <= size:
                index = (index + vertex[..., d] * np.uint64(stride)) & word
            stride *= resolution
    return (index % np.uint64(size)).astype(np.int64)


def corners(x, level, grid_type, interpolation, primes=PRIMES):
    """Yield (entry of the whole table [n], weight [n], its gradient in x [n, d])."""
    x = np.where(np.isnan(x), 0.0, np.asarray(x, np.float64))
    position = np.clip(x, 0, 1) * level.scale + 0.5
    cell = np.floor(position)
    s, ds = (f(position - cell) for f in FRACTIONS[interpolation])
    n_dims = x.shape[1]
    bits = [(0,) * n_dims] if interpolation == "nearest" else product((0, 1), repeat=n_dims)
    for bit in np.array(list(bits)):
        factor = np.where(bit, s, 1 - s)
        slope = np.where(bit, ds, -ds) * level.scale
        gradient = np.stack(
            [slope[:, d] * np.delete(factor, d, axis=1).prod(axis=1) for d in range(n_dims)], axis=1
        )
        index = entry(cell + bit, level.resolution, level.size, grid_type, primes)
        yield level.offset + index, factor.prod(axis=1), gradient


def forward(x, table, levels, grid_type, interpolation, primes=PRIMES):
    """Features: sum over corners of weight times entry."""
    return np.concatenate(
        [
            sum(
                w[:, None] * table[k] for k, w, _ in corners(x, v, grid_type, interpolation, primes)
            )
            for v in levels
        ],
        axis=1,
    )


def backward(x, d_out, levels, grid_type, interpolation, n_entries):
    """Return (gradient of the table, whether any corner fell on an entry)."""
    n_features = d_out.shape[1] // len(levels)
    d_table, hit = np.zeros((n_entries, n_features)), np.zeros(n_entries, bool)
    for i, level in enumerate(levels):
        d = d_out[:, i * n_features : (i + 1) * n_features]
        for k, w, _ in corners(x, level, grid_type, interpolation):
            np.add.at(d_table, k, w[:, None] * d)
            hit[k] = True
    return d_table, hit


def input_gradient(x, d_out, table, levels, grid_type, interpolation):
    """Gradient of sum(features * d_out) in the positions."""
    n_features = table.shape[1]
    dx = np.zeros(x.shape)
    for i, level in enumerate(levels):
        d = d_out[:, i * n_features : (i + 1) * n_features]
        for k, _, gradient in corners(x, level, grid_type, interpolation):
            dx += gradient * (table[k] * d).sum(axis=1, keepdims=True)
    return dx
