"""Batches of points of a medium with the light that they scatter, from a pool.

Following light is dear: a path in a thick cloud scatters a hundred times. So each step follows it
from a few new points, which replace one part of a pool, and trains on some parts, this one among
them; a point is seen ``REUSE`` times in all. What the pool holds follows from the step alone.
"""

import time
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch, loading
from ngp_warp.primitives.volume.kernels.targets import pool_batch, target_kernel
from ngp_warp.primitives.volume.light import Light
from ngp_warp.primitives.volume.medium import Medium
from ngp_warp.primitives.volume.samples import morton
from ngp_warp.primitives.volume.transport import MAX_BOUNCES

COLLISIONS = 0.5
"""Share of the points that are first collisions of rays: what pictures see. The others are
anywhere in blocks that are not empty, so that thin parts get their density too."""
REUSE = 16
"""Parts of a batch."""
STRIDE = 4
"""Steps between the parts of a batch: neighbouring steps share few points."""


class RadianceBatches:
    """Fills x and target with the batch of a seed and a step.

    Args:
        medium: what light goes through.
        light: the sky and the sun.
        n_points: of a batch; a multiple of 32 * ``REUSE``.
        seed: of the random numbers.
        density_gain: what takes densities to 0..1.
        side: grid units along a side of the unit cube.
    """

    fill_seconds = 0.0
    """What filling the pool took; its kernels are compiled before."""

    def __init__(
        self,
        medium: Medium,
        light: Light,
        *,
        n_points: int,
        seed: int,
        density_gain: float,
        side: int,
    ):
        self.device = medium.device
        self._n_points, self._n_fresh = n_points, n_points // REUSE
        self._n_parts = REUSE * STRIDE
        n_pool = self._n_parts * self._n_fresh
        vec3: Any = wp.vec3
        vec4: Any = wp.vec4
        self._x = wp.zeros(n_pool, dtype=vec3, device=self.device)
        self._target = wp.zeros(n_pool, dtype=vec4, device=self.device)
        blocks = np.argwhere(medium.majorants > 0).astype(np.int32)
        blocks = blocks[np.argsort(morton(blocks), kind="stable")]
        vec3i: Any = wp.vec3i
        width, _ = medium.cube
        self._kernel = target_kernel(medium.kind)
        self._scene = [medium.data, medium.cloud, light.data()]
        self._scene += [wp.array(blocks, dtype=vec3i, device=self.device)]
        # the cube's diagonal is the farthest that two of its points lie apart
        self._scene += [self._n_fresh, self._n_parts, round(COLLISIONS * self._n_fresh)]
        self._scene += [2.0 * width, seed]
        self._units = [MAX_BOUNCES, density_gain, float(side), self._x, self._target]

    def stages(self, step: wp.array, x: wp.array, target: wp.array) -> list[list[launch.Launch]]:
        """Fill the pool as it is after the steps that ``step`` says were done; record a batch.

        Args:
            step: int64 [1], the run's step.
            x: out, blocked [n_blocks, 3, 32], in the unit cube.
            target: out, blocked [n_blocks, 4, 32].
        """
        done = int(step.numpy()[0])
        at = wp.zeros(1, dtype=wp.int64, device=self.device)
        refresh = self._refresh(at)
        loading.load()  # compiling is no training time
        start = time.perf_counter()
        for t in range(done - self._n_parts + 1, done + 1):
            at.assign(np.array([t], np.int64))
            refresh.run()
        self.fill_seconds = time.perf_counter() - start
        args = [self._x, self._target, self._n_fresh, self._n_parts, STRIDE, step, x, target]
        batch = launch.record(pool_batch, self._n_points, args, self.device)
        return [[self._refresh(step)], [batch]]

    def _refresh(self, step: wp.array) -> launch.Launch:
        args = [*self._scene, step, *self._units]
        return launch.record(self._kernel, self._n_fresh, args, self.device)
