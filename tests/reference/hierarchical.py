"""Hierarchical sampling and compositing in float64. Twin of ngp_warp/kernels/hierarchical.py."""

import numpy as np

from tests.reference.mlp import ACTIVATIONS
from tests.reference.samplers import random_bits, unit

FLOOR = 1e-5


def segment(origin, direction, near=0.0):
    """Return where a ray enters and leaves the unit cube, (0, 0) if never."""
    enter, leave = near, np.inf
    for o, d in zip(origin, direction, strict=True):
        if d == 0:
            if not 0 <= o <= 1:
                return 0.0, 0.0
            continue
        ends = sorted([-o / d, (1 - o) / d])
        enter, leave = max(enter, ends[0]), min(leave, ends[1])
    return (enter, leave) if leave > enter else (0.0, 0.0)


def strata(ends, n, u):
    """Return the stratified samples of a segment; u: a number in [0, 1) for each, or one."""
    return ends[0] + (ends[1] - ends[0]) * (np.arange(n) + u) / n


def random_numbers(seed, step, ray, n, axis):
    """Return the n random numbers of a ray: axis 0 for strata, 1 for quantiles."""
    return np.array([unit(random_bits(seed, step, ray * n + s, axis)) for s in range(n)])


def edges(ends, t):
    """Return the n + 1 edges of the samples' intervals."""
    return np.concatenate([[ends[0]], (t[1:] + t[:-1]) / 2, [ends[1]]])


def resample(ends, t, weights, n_new, u):
    """Return the sorted union of t and n_new quantiles (q + u_q) / n_new of the weights."""
    mass = np.asarray(weights, np.float64) + FLOOR
    cumulated = np.concatenate([[0.0], np.cumsum(mass)])
    wanted = (np.arange(n_new) + u) / n_new * cumulated[-1]
    return np.sort(np.concatenate([t, np.interp(wanted, cumulated, edges(ends, t))]))


def composite(ends, t, raw, rgb, scale, background, activation="relu"):
    """Return (colour, opacity, depth, weights [n]) of a ray."""
    tau = scale * ACTIVATIONS[activation][0](np.asarray(raw, np.float64)) * np.diff(edges(ends, t))
    light = np.exp(-np.concatenate([[0.0], np.cumsum(tau)]))
    w = light[:-1] - light[1:]
    color = w @ rgb + light[-1] * np.asarray(background, np.float64)
    return color, 1 - light[-1], w @ t, w


def composite_gradient(ends, t, raw, rgb, scale, background, g, activation="relu"):
    """Return (dL/draw [n], dL/drgb [n, 3]) of dL/dcolour g [3]."""
    act, slope = ACTIVATIONS[activation]
    raw = np.asarray(raw, np.float64)
    widths = np.diff(edges(ends, t))
    tau = scale * act(raw) * widths
    light = np.exp(-np.concatenate([[0.0], np.cumsum(tau)]))
    w = light[:-1] - light[1:]
    seen = w * (rgb @ g)
    behind = seen[::-1].cumsum()[::-1] - seen + light[-1] * np.dot(background, g)
    d_tau = light[1:] * (rgb @ g) - behind
    return d_tau * scale * widths * slope(raw), w[:, None] * g
