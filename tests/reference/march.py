"""The dense march in float64: every lattice point is looked at. Twin of kernels/march.py."""

import numpy as np

CELLS = 128


def span(settings, o, d):
    """Entry into the box (from ``near`` on) and exit; empty if the exit is not behind the entry."""
    t0, t1 = settings.near, np.inf
    for axis in range(3):
        if d[axis] != 0:
            a, b = sorted(((0 - o[axis]) / d[axis], (1 - o[axis]) / d[axis]))
            t0, t1 = max(t0, a), min(t1, b)
        elif not 0 <= o[axis] <= 1:
            t1 = -1.0
    return t0, t1


def step_length(settings, t):
    """dt(t)."""
    return min(max(t * settings.cone_angle, settings.min_step), settings.max_step)


def lattice(settings, o, d, jitter):
    """All points t_k of a ray inside the box, and their steps."""
    entry, t1 = span(settings, o, d)
    t = entry + jitter * step_length(settings, entry)
    points = []
    while t < t1:
        points.append((t, step_length(settings, t)))
        t += points[-1][1]
    return np.array(points).reshape(-1, 2)


def cell_of(settings, p, dt):
    """Cascade, z, y, x of the cell in which a point is looked up."""
    last = settings.n_cascades - 1
    for cascade in range(last + 1):
        side = 2.0**cascade / settings.aabb_scale
        inside = all(-side / 2 <= p[a] - 0.5 < side / 2 for a in range(3))
        if cascade == last or (inside and dt <= side / CELLS):
            break
    cell = np.floor((np.asarray(p) - 0.5) / side * CELLS).astype(int) + CELLS // 2
    x, y, z = np.clip(cell, 0, CELLS - 1)
    return cascade, z, y, x


def march(settings, occupied, o, d, jitter, max_samples=1024):
    """Samples [n, 2] of a ray: t and dt of the lattice points in occupied cells."""
    kept = [
        (t, dt)
        for t, dt in lattice(settings, o, d, jitter)
        if occupied[cell_of(settings, o + t * d, dt)]
    ]
    return np.array(kept[:max_samples]).reshape(-1, 2)
