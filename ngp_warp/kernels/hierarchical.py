"""Hierarchical sampling: a fixed number of samples along rays through the unit cube.

Source: Mildenhall et al. 2020, equation 2 and section 5.2. A sample stands for the interval between
the midpoints to its neighbours, the first one's beginning and the last one's ending with the ray's
segment; kernels/hierarchical_composite.py integrates over the same intervals.

Not differentiable, as in the paper. Twin: tests/reference/hierarchical.py. Arrays of rays are those
of radiance/batch.py; those of samples hold ``n_samples`` of each ray of a slice, whose first ray is
``first_ray``.
"""

import warp as wp

from ngp_warp.kernels.random import random_key, random_unit
from ngp_warp.launch import module_options

wp.set_module_options(module_options())

# Added to every weight before resampling, as in the paper's code: where a ray meets nothing, all
# intervals are equally likely
FLOOR = 1e-5
_FLOOR = wp.constant(FLOOR)
# Axes of the random numbers of a sample
_STRATUM, _QUANTILE = wp.constant(0), wp.constant(1)


@wp.func
def interval_edge(t: wp.array[float], first: int, s: int, n: int, near: float, far: float) -> float:
    """Return where interval s begins (s = n: where the last one ends)."""
    if s == 0:
        return near
    if s == n:
        return far
    return 0.5 * (t[first + s - 1] + t[first + s])


@wp.func
def box_segment(o: wp.vec3, d: wp.vec3, near: float) -> wp.vec2:
    """Return the distances at which a ray enters and leaves the unit cube, (0, 0) if never."""
    enter = near
    leave = float(1.0e30)
    for a in range(3):
        if d[a] == 0.0:
            if o[a] < 0.0 or o[a] > 1.0:
                leave = -1.0
        else:
            one = (0.0 - o[a]) / d[a]
            other = (1.0 - o[a]) / d[a]
            enter = wp.max(enter, wp.min(one, other))
            leave = wp.min(leave, wp.max(one, other))
    if leave <= enter:
        return wp.vec2(0.0, 0.0)
    return wp.vec2(enter, leave)


@wp.func
def ray_vector(values: wp.array[float], r: int) -> wp.vec3:
    """Return the three values of ray r."""
    return wp.vec3(values[r * 3], values[r * 3 + 1], values[r * 3 + 2])


@wp.kernel
def stratified_samples(
    begin: int,
    # in
    first_ray: int,
    count: wp.array[int],  # [1]
    origin: wp.array[float],
    direction: wp.array[float],
    jitter: wp.array[float],
    near: float,
    n_samples: int,
    is_random: int,  # 1: a random number for each sample; 0: the ray's jitter for all
    seed: int,
    step: wp.array[wp.int64],  # [1]
    # out
    segment: wp.array[float],  # [n_rays, 2]; (0, 0) for rays that miss the cube or do not count
    t: wp.array[float],  # [n_rays, n_samples], not decreasing
):
    """t_s = near + (far - near) (s + u_s) / n_samples, for a ray."""
    i = begin + wp.tid()
    r = first_ray + i
    ends = wp.vec2(0.0, 0.0)
    u = float(0.0)
    if r < count[0]:
        ends = box_segment(ray_vector(origin, r), ray_vector(direction, r), near)
        u = jitter[r]
    segment[i * 2] = ends[0]
    segment[i * 2 + 1] = ends[1]
    key = random_key(seed, step[0])
    for s in range(n_samples):
        if is_random != 0:
            u = random_unit(key, r * n_samples + s, _STRATUM)
        share = (float(s) + u) / float(n_samples)
        t[i * n_samples + s] = wp.min(ends[0] + (ends[1] - ends[0]) * share, ends[1])


@wp.kernel
def resample(
    begin: int,
    # in
    first_ray: int,
    count: wp.array[int],  # [1]
    jitter: wp.array[float],
    segment: wp.array[float],  # [n_rays, 2]
    t: wp.array[float],  # [n_rays, n_samples]
    weights: wp.array[float],  # [n_rays, n_samples]
    n_samples: int,
    n_new: int,
    is_random: int,
    seed: int,
    step: wp.array[wp.int64],  # [1]
    # out
    merged: wp.array[float],  # [n_rays, n_samples + n_new], not decreasing
):
    """Old samples and F^-1((q + u_q) / n_new), F the integral of the weights, for a ray.

    A weight is spread evenly over its interval. The quantiles increase, so that the new samples do
    too, and merging takes one pass.
    """
    i = begin + wp.tid()
    r = first_ray + i
    near = segment[i * 2]
    far = segment[i * 2 + 1]
    first = i * n_samples
    total = float(0.0)
    for s in range(n_samples):
        total += weights[first + s] + _FLOOR
    u = float(0.5)
    if r < count[0]:
        u = jitter[r]
    key = random_key(seed, step[0])
    out = i * (n_samples + n_new)
    s = wp.int32(0)  # the interval that the quantile lies in
    kept = wp.int32(0)  # old samples that are merged
    below = float(0.0)
    mass = weights[first] + _FLOOR
    left = near
    right = interval_edge(t, first, 1, n_samples, near, far)
    for q in range(n_new):
        if is_random != 0:
            u = random_unit(key, r * n_new + q, _QUANTILE)
        wanted = (float(q) + u) / float(n_new) * total
        while s < n_samples - 1 and below + mass <= wanted:
            below += mass
            s += 1
            mass = weights[first + s] + _FLOOR
            left = right
            right = interval_edge(t, first, s + 1, n_samples, near, far)
        new = left + (right - left) * wp.clamp((wanted - below) / mass, 0.0, 1.0)
        while kept < n_samples and t[first + wp.min(kept, n_samples - 1)] <= new:
            merged[out + kept + q] = t[first + kept]
            kept += 1
        merged[out + kept + q] = new
    for rest in range(kept, n_samples):
        merged[out + rest + n_new] = t[first + rest]


@wp.kernel
def sample_positions(
    begin: int,
    # in
    first_ray: int,
    count: wp.array[int],  # [1]
    origin: wp.array[float],
    direction: wp.array[float],
    t: wp.array[float],  # [n_rays, n_samples]
    n_samples: int,
    # out
    x: wp.array[float],  # [n_blocks, 3, 32], the box as +-1; zero for rays that do not count
):
    """x = 2 (o + t d) - 1, for a sample."""
    p = begin + wp.tid()
    r = first_ray + p / n_samples
    at = (p / 32) * 96 + p % 32
    if r < count[0]:
        v = ray_vector(origin, r) + t[p] * ray_vector(direction, r)
        for a in range(3):
            x[at + a * 32] = 2.0 * v[a] - 1.0
    else:
        for a in range(3):
            x[at + a * 32] = 0.0


@wp.kernel
def ray_directions(
    begin: int,
    # in
    first_ray: int,
    count: wp.array[int],  # [1]
    direction: wp.array[float],
    # out
    x: wp.array[float],  # [n_blocks, 3, 32]; zero for rays that do not count
):
    """Directions of the slice's rays, blocked, for a ray."""
    i = begin + wp.tid()
    at = (i / 32) * 96 + i % 32
    inside = first_ray + i < count[0]
    for a in range(3):
        v = float(0.0)
        if inside:
            v = direction[(first_ray + i) * 3 + a]
        x[at + a * 32] = v
