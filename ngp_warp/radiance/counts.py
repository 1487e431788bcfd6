"""How many rays a step has, from what the last one found; the same in all processes of a run."""

import warp as wp

from ngp_warp import distributed, exchange, launch
from ngp_warp.kernels import radiance_counts as kernels
from ngp_warp.kernels.lanes import lane_items
from ngp_warp.launch import Stages
from ngp_warp.radiance.batch import RayBatch
from ngp_warp.radiance.settings import RadianceSettings


def count_stages(
    settings: RadianceSettings,
    batch: RayBatch,
    counters: wp.array,
    step: wp.array,
    totals: wp.array,
    last: wp.array,
    n_rays: wp.array,
) -> Stages:
    """Record the sums of a step's counters over chunks and processes, and the next step's rays.

    Args:
        settings: of this process: its part of the samples and rays.
        batch: its ``count`` is set.
        counters: int64 [n_chunks, 4]: rays, samples, kept samples and rays given up, which are
            summed over the processes.
        step: int64 [1], from 1.
        totals: int64 [4], added to.
        last: int64 [4], out.
        n_rays: int32 [1], out: rays of the next step in all processes.
    """
    size, device = distributed.current().size, batch.device
    most = min(batch.capacity, settings.max_rays)
    args = [counters, counters.size // 4, step, float(settings.batch_samples * size), most * size]
    args += [size, totals, last, n_rays, batch.count]
    finish = launch.record(kernels.finish_kernel, lane_items(1, device), args, device)
    return [*exchange.sum_values(counters, device), [finish]]


def depth_stages(batch: RayBatch, depth_counts: wp.array) -> Stages:
    """Record the number of rays whose depth is known, [n_chunks]; their mean over the processes.

    So the loss's mean over depths is one over all processes' rays.
    """
    n_chunks = depth_counts.size
    args = [batch.count, batch.capacity, n_chunks, batch.depth_target, batch.weight, depth_counts]
    n_items = lane_items(n_chunks, batch.device)
    count = launch.record(kernels.depth_kernel, n_items, args, batch.device)
    return [[count], *exchange.sum_values(depth_counts, batch.device, mean=True)]
