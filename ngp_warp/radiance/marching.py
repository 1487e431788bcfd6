"""Packed ray marching: count, scan and fill as recorded launches of a fixed size.

Kernels: ngp_warp/kernels/march.py, on CUDA march_lanes.py and march_growing.py. Twin:
tests/reference/march.py.
"""

from typing import Any, cast

import warp as wp

from ngp_warp import launch
from ngp_warp.kernels import march as kernels
from ngp_warp.kernels import march_growing, march_lanes
from ngp_warp.kernels.lanes import lane_items
from ngp_warp.launch import Call, Launch, Stages
from ngp_warp.radiance.batch import RayBatch
from ngp_warp.radiance.settings import RadianceSettings


def make_lattice(settings: RadianceSettings) -> Any:
    """Return how rays step, for the kernels."""
    lattice: Any = kernels.Lattice()
    lattice.n_cascades = settings.n_cascades
    lattice.inner_half = 0.5**settings.n_cascades
    lattice.cone_angle = settings.cone_angle
    lattice.min_step = settings.min_step
    lattice.rate = 1.0 / settings.min_step
    lattice.max_step = max(settings.max_step, settings.min_step)
    lattice.near = settings.near
    lattice.max_samples = settings.max_samples
    return lattice


class Samples:
    """Samples of a batch's rays, packed ray by ray at a fixed capacity.

    Rays that have no room are left out whole: the first whose samples end behind the capacity, and
    all after it; ``RayBatch.n_samples`` is -1 there.

    Args:
        n_rays: most rays.
        capacity: most samples, a multiple of 32.
        device: "cpu" or a CUDA device.

    Attributes:
        span: float32 [n_rays * 3]: entry into the box, first lattice point, exit.
        n: int32 [n_rays]: samples of each ray; 0 where it has no room.
        end: int32 [n_rays]: where they end among all.
        total: int32 [2]: samples of all rays, and of those that have room.
        positions: blocked [capacity / 32, 3, 32], box coordinates.
        distance: float32 [capacity], along the ray.
        length: float32 [capacity]: step at the sample.
        ray: int32 [capacity].
    """

    def __init__(self, n_rays: int, capacity: int, device: str):
        def floats(n: int) -> wp.array:
            return wp.zeros(n, dtype=wp.float32, device=device)

        def ints(n: int) -> wp.array:
            return wp.zeros(n, dtype=wp.int32, device=device)

        self.n_rays, self.capacity, self.device = n_rays, capacity, device
        self.span = floats(n_rays * 3)
        self.counted, self.end, self.n = ints(n_rays), ints(n_rays), ints(n_rays)
        self.total = ints(2)
        self.positions = floats(capacity * 3)
        self.distance, self.length, self.ray = floats(capacity), floats(capacity), ints(capacity)

    def march_stages(
        self, lattice: Any, bits: wp.array, batch: RayBatch, *, shared: bool | None = None
    ) -> Stages:
        """Record the marching of a batch's rays through the cells that ``bits`` has.

        Args:
            lattice: how they step.
            bits: of the occupancy grid.
            batch: the rays.
            shared: lanes share a ray; None: on CUDA.
        """
        if shared is None:
            shared = self.device != "cpu"
        several = self._shared if lattice.cone_angle == 0.0 else self._growing
        *counts, fill = (several if shared else self._single)(lattice, bits, batch)
        total = total_stage(self.end, self.capacity, self.total, self.device)
        scan = scan_stage(self.counted, self.end, self.device)
        return [*([count] for count in counts), scan, [fill, *total]]

    def _single(self, lattice: Any, bits: wp.array, batch: RayBatch) -> list[Launch]:
        """Record the counting and the filling, one item a ray."""
        device, n = self.device, self.n_rays
        rays = [batch.count, batch.origin, batch.direction]
        args = [lattice, bits, *rays, batch.jitter, batch.weight, self.span, self.counted]
        count = launch.record(kernels.count_kernel, n, args, device)
        args = [lattice, bits, *rays, self.span, self.counted, self.end, self.capacity]
        args += [self.n, batch.n_samples, self.positions, self.distance, self.length, self.ray]
        return [count, launch.record(kernels.fill_kernel, n, args, device)]

    def _shared(self, lattice: Any, bits: wp.array, batch: RayBatch) -> list[Launch]:
        """Record the same for equal steps, a warp's lanes along a ray."""
        n = march_lanes.warp_items(self.n_rays, self.device)
        rays = [batch.count, batch.origin, batch.direction]
        args = [lattice, bits, *rays, batch.jitter, batch.weight, self.span, self.counted]
        count = launch.record(march_lanes.count_kernel, n, args, self.device, block_dim=128)
        args = [lattice, bits, *rays, self.span, self.counted, self.end, self.capacity]
        args += [self.n, batch.n_samples, self._filled()]
        fill = launch.record(march_lanes.fill_kernel, n, args, self.device, block_dim=128)
        return [count, fill]

    def _growing(self, lattice: Any, bits: wp.array, batch: RayBatch) -> list[Launch]:
        """Record the same for growing steps."""
        n = march_lanes.warp_items(self.n_rays, self.device)
        n_starts = lane_items(self.n_rays, self.device)
        starts = wp.zeros(n_starts, dtype=wp.float32, device=self.device)
        rays = [batch.count, batch.origin, batch.direction]
        args = [lattice, *rays, batch.jitter, batch.weight, self.span, starts]
        start = launch.record(march_growing.start_kernel, self.n_rays, args, self.device)
        args = [lattice, bits, *rays, batch.weight, self.span, starts, self.counted]
        count = launch.record(march_growing.count_kernel, n, args, self.device, block_dim=128)
        args = [lattice, bits, *rays, self.span, starts, self.counted, self.end, self.capacity]
        args += [self.n, batch.n_samples, self._filled()]
        fill = launch.record(march_growing.fill_kernel, n, args, self.device, block_dim=128)
        return [start, count, fill]

    def _filled(self) -> Any:
        """Return the arrays of samples for the kernels."""
        filled: Any = march_lanes.Filled()
        for name in ("positions", "distance", "length", "ray"):
            setattr(filled, name, getattr(self, name))
        return filled


def scan_stage(values: wp.array, sums: wp.array, device: str) -> list[Launch]:
    """Record the inclusive sums of int32 values."""
    if device == "cpu":
        return [launch.record(kernels.scan_kernel, 1, [values, values.size, sums], device)]
    scan = Call(lambda: wp.utils.array_scan(values, sums, inclusive=True))
    # its temporary memory comes from the device's pool, which a graph can hold; without a pool
    # (some virtual GPUs) the step is launched
    return [Launch([scan], device, wp.is_mempool_enabled(device), [values, sums])]


def total_stage(sums: wp.array, capacity: int, total: wp.array, device: str) -> list[Launch]:
    """Record the total of inclusive sums, and that of the rays that have room."""
    args = [sums, sums.size, capacity, total]
    return [launch.record(kernels.total_kernel, lane_items(1, device), args, device)]


def part(array: wp.array, begin: int, end: int) -> wp.array:
    """Return a view of some of an array's values."""
    return cast(wp.array, array[begin:end])
