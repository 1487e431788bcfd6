"""Small launches around a radiance field's step: ray counts, depths, latent vectors.

Source: Mueller et al. 2022, appendix E.1 (rays per batch adapted to the samples). Sums have one
order. Twin: tests/test_radiance_fused.py.
"""

import warp as wp

from ngp_warp.kernels.lanes import lane_sum, lane_sum_long, n_lanes
from ngp_warp.launch import module_options

wp.set_module_options(module_options())

EARLY_STEPS = 256
"""Steps of smaller batches: until empty cells are known, steps count for more than samples."""
EARLY_SHARE = 0.25
"""Samples of such a step, in shares of a full one."""
_EARLY_STEPS = wp.constant(wp.int64(EARLY_STEPS))
_EARLY_SHARE = wp.constant(wp.float64(EARLY_SHARE))


@wp.kernel
def finish_kernel(
    begin: int,
    # in
    counters: wp.array[wp.int64],  # [n_chunks, 4]: rays, samples, kept samples, rays given up
    n_chunks: int,
    step: wp.array[wp.int64],  # [1]
    batch_samples: wp.float64,  # of all processes
    max_rays: int,  # the same
    n_processes: int,
    # in and out
    totals: wp.array[wp.int64],  # [4]: the same over all steps
    # out
    last: wp.array[wp.int64],  # [4]: of this step
    n_rays: wp.array[int],  # [1]: rays of the next step, a multiple of n_processes
    count: wp.array[int],  # [1]: each process's part; may be the same array if there is one
):
    """next = 0.7 rays + 0.3 rays * batch_samples / samples, within 1 and max_rays; one sum.

    The counters are the sums over the processes.
    """
    lane = begin + wp.tid()
    sums = wp.vector(dtype=wp.int64, length=4)
    for c in range(lane, n_chunks, n_lanes()):
        for k in range(4):
            sums[k] += counters[c * 4 + k]
    for k in range(4):
        sums[k] = lane_sum_long(sums[k])
    if lane > 0:
        return
    for k in range(4):
        last[k] = sums[k]
        totals[k] += sums[k]
    rays = wp.float64(sums[0])
    samples = wp.float64(wp.max(sums[1], wp.int64(1)))
    target = batch_samples
    if step[0] < _EARLY_STEPS:
        target = batch_samples * _EARLY_SHARE
    wanted = wp.float64(0.7) * rays + wp.float64(0.3) * rays * target / samples
    # a step gives half as many again at most: what the next samples will be is not known
    wanted = wp.min(wanted, wp.max(rays * wp.float64(1.5), wp.float64(16.0)))
    n = int(wp.clamp(wanted, wp.float64(1.0), wp.float64(max_rays)))
    each = wp.max(n / n_processes, 1)
    n_rays[0] = each * n_processes
    count[0] = each


@wp.kernel
def depth_kernel(
    begin: int,
    # in
    count: wp.array[int],  # [1]
    capacity: int,
    n_chunks: int,
    depth_target: wp.array[float],  # [capacity]
    weight: wp.array[float],  # [capacity]
    # out
    depth_counts: wp.array[float],  # [n_chunks]
):
    """Number of rays of a chunk whose depth is known."""
    item = begin + wp.tid()
    chunk = item / n_lanes()
    lane = item % n_lanes()
    n_rays = wp.int64(wp.clamp(count[0], 0, capacity))
    first = int(n_rays * wp.int64(chunk) / wp.int64(n_chunks))
    end = int(n_rays * wp.int64(chunk + 1) / wp.int64(n_chunks))
    total = float(0.0)
    for r in range(first + lane, end, n_lanes()):
        if depth_target[r] > 0.0 and weight[r] > 0.0:
            total += 1.0
    total = lane_sum(total)
    if lane == 0:
        depth_counts[chunk] = total


@wp.kernel
def latents_kernel(
    begin: int,
    # in
    count: wp.array[int],  # [1]
    capacity: int,
    view: wp.array[int],  # [capacity]
    d_latents: wp.array[float],  # [capacity, n_latents]
    n_latents: int,
    n_views: int,
    # out
    gradient: wp.array[float],  # [n_views, n_latents]
):
    """Sum over a view's rays, ray by ray; an item is a column."""
    k = begin + wp.tid()
    for v in range(n_views):
        gradient[v * n_latents + k] = 0.0
    for r in range(wp.clamp(count[0], 0, capacity)):
        if view[r] >= 0:
            gradient[view[r] * n_latents + k] += d_latents[r * n_latents + k]
