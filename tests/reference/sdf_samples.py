"""Samples of a mesh in Python numbers. Twin of primitives/sdf/kernels/samples.py."""

import numpy as np

from tests.reference.samplers import random_bits, unit


def surface_point(vertices, faces, shares, seed, step, i, n):
    """Point i of n of a step: in the i-th n-th of the area."""
    u, v, w = (unit(random_bits(seed, step % 2**32, i, d)) for d in range(3))
    face = faces[np.searchsorted(shares, (i + u) / n, side="right")]
    a, b, c = vertices[face].astype(np.float64)
    root = np.sqrt(v)
    return a + (b - a) * root * (1 - w) + (c - a) * root * w


def near_point(vertices, faces, shares, seeds, step, scale, i, n):
    """A surface point moved by logistic noise."""
    p = surface_point(vertices, faces, shares, seeds[0], step, i, n)
    scale = scale * (6 if i % 4 == 0 else 1)
    u = [unit(random_bits(seeds[1], step % 2**32, i, d)) + 2.0**-25 for d in range(3)]
    return np.clip(p + scale * np.log(np.array(u) / (1 - np.array(u))), 0, 1)


def last_step(slot, n_parts, step):
    """Step of the newest point of a slot after ``step``, and its index in the step."""
    part = slot % n_parts
    return step - (step - part) % n_parts, slot // n_parts


def slot(seed, step, i, n, n_slots):
    """Slot that point i of n of a batch takes: one of the i-th n-th."""
    low, high = i * n_slots // n, (i + 1) * n_slots // n
    return low + ((high - low) * random_bits(seed, step, i, 0) >> 32)
