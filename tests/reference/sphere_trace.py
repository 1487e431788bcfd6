"""Sphere tracing ray by ray, in float64. Twin of ngp_warp/kernels/sphere_trace.py."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Ray:
    """A ray's state; names as in the kernel."""

    origin: np.ndarray
    direction: np.ndarray
    t_end: float = 0.0
    t: float = 0.0
    near_t: float = 0.0
    near_d: float = 0.0
    far_t: float = 0.0
    far_d: float = 0.0
    side: float = 0.0
    clearance: float = 1e6
    count: int = 0
    status: str = "march"
    """march, bracket, bracket_near, bracket_far, hit or miss."""

    @property
    def position(self):
        return self.origin + self.t * self.direction


def start(ray, margin):
    """Clip to the unit cube grown by margin."""
    first, last = 0.0, math.inf
    for o, d in zip(ray.origin, ray.direction, strict=True):
        if d != 0:
            a, b = sorted([(-margin - o) / d, (1 + margin - o) / d])
            first, last = max(first, a), min(last, b)
        elif not -margin <= o <= 1 + margin:
            last = -1.0
    ray.t = ray.near_t = first
    ray.t_end = last
    ray.status = "march" if first < last else "miss"


def outside_bound(p, d):
    """Distance at p, from d at the nearest point of the cube."""
    e = np.linalg.norm(p - np.clip(p, 0, 1))
    return math.hypot(e, max(d, 0)) if e > 0 else d


def advance(ray, d, relaxation, min_step, tolerance, max_steps, max_refinements):
    """One step, given the field d at the ray's position clamped to the cube."""
    if ray.status in {"hit", "miss"}:
        return
    d = outside_bound(ray.position, d)
    if ray.side == 0:
        ray.side = -1.0 if d < 0 else 1.0
    f = d * ray.side
    ray.count += 1
    if f == 0:
        ray.status = "hit"
    elif ray.status == "march" and f > 0:
        step = ray.t - ray.near_t
        y = 0.0
        if step > 0:
            y = min(max((step**2 + f**2 - ray.near_d**2) / (2 * step), 0), step)
        h = math.sqrt(max(f**2 - y**2, 0))
        ray.clearance = min(ray.clearance, h / max(ray.t - y, 1e-6))
        ray.near_t, ray.near_d = ray.t, f
        ray.t += max(relaxation * f, min_step)
        if ray.t > ray.t_end or ray.count >= max_steps:
            ray.status = "miss"
    elif ray.status == "march":
        ray.far_t, ray.far_d, ray.status, ray.count = ray.t, f, "bracket", 0
        ray.t = secant(ray)
    else:
        refine(ray, f, tolerance, max_refinements)


def refine(ray, f, tolerance, max_refinements):
    """Replace an end of the bracket; the Illinois rule halves the other's value if it stays."""
    if f > 0:
        if ray.status == "bracket_near":
            ray.far_d /= 2
        ray.near_t, ray.near_d, ray.status = ray.t, f, "bracket_near"
    else:
        if ray.status == "bracket_far":
            ray.near_d /= 2
        ray.far_t, ray.far_d, ray.status = ray.t, f, "bracket_far"
    if abs(f) <= tolerance or ray.count >= max_refinements:
        ray.status = "hit"
    else:
        ray.t = secant(ray)


def secant(ray):
    return ray.near_t + (ray.far_t - ray.near_t) * ray.near_d / (ray.near_d - ray.far_d)


def trace(distance, origin, direction, margin, *settings):
    """Follow one ray through distance [3] -> float; return its state."""
    ray = Ray(np.asarray(origin, np.float64), np.asarray(direction, np.float64))
    start(ray, margin)
    while ray.status not in {"hit", "miss"}:
        advance(ray, distance(np.clip(ray.position, 0, 1)), *settings)
    return ray
