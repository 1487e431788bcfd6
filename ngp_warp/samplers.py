"""Batches of points in the unit square or cube: a seed and a step give the batch."""

import warp as wp

from ngp_warp import launch
from ngp_warp.config import Sampler
from ngp_warp.kernels import samplers as kernels


def sample(
    kind: Sampler, n_dims: int, seed: int, step: wp.array, x: wp.array, device: str
) -> launch.Launch:
    """Record the drawing of a batch.

    Args:
        kind: uniform: independent; stratified: one random point a cell, in Morton order; halton,
            sobol: a sequence that goes on from step to step, shifted by the seed.
        n_dims: 2 or 3.
        seed: of every random number.
        step: int64 [1] on the device, read at each run.
        x: out, blocked, flat float32 [n_blocks * n_dims * 32], in [0, 1).
        device: "cpu" or a CUDA device.
    """
    n_points = x.size // n_dims
    cell_bits = max(n_points - 1, 1).bit_length()
    n_items = n_points // 32 if device == "cpu" else n_points
    kernel = kernels.sample_kernel(kind, n_dims)
    return launch.record(kernel, n_items, [seed, step, n_points, cell_bits, x], device)
