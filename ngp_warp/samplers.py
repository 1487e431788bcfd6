"""Batches of points in the unit square or cube: a seed and a step give the batch."""

import warp as wp

from ngp_warp import launch
from ngp_warp.config import Sampler
from ngp_warp.kernels import samplers as kernels


def sample(
    kind: Sampler,
    n_dims: int,
    seed: int,
    step: wp.array,
    x: wp.array,
    device: str,
    part: tuple[int, int] = (0, 1),
) -> launch.Launch:
    """Record the drawing of a batch, or of one of its equal parts.

    Args:
        kind: uniform: independent; stratified: one random point a cell, in Morton order; halton,
            sobol: a sequence that goes on from step to step, shifted by the seed.
        n_dims: 2 or 3.
        seed: of every random number.
        step: int64 [1] on the device, read at each run.
        x: out, blocked, flat float32 [n_blocks * n_dims * 32], in [0, 1).
        device: "cpu" or a CUDA device.
        part: which part of how many x is.
    """
    n_here, (index, n_parts) = x.size // n_dims, part
    n_points = n_here * n_parts
    cell_bits = max(n_points - 1, 1).bit_length()
    n_items = n_here // 32 if device == "cpu" else n_here
    kernel = kernels.sample_kernel(kind, n_dims)
    args = [seed, step, index * n_here, n_points, cell_bits, x]
    return launch.record(kernel, n_items, args, device)
