"""Samples of a mesh: training batches as recorded launches, and points for evaluation.

A batch is one eighth exact surface points, five eighths points near the surface, a quarter points
of the whole cube. Mueller et al. 2022, section 5.2, take 4, 3 and 1 eighths; with so many targets
of exactly zero the field learns to be flat at the surface: after 2,000 steps of 2^15 its slope was
0.3 there instead of 1, twice as many points had the wrong sign, and normals were noise. A quarter
of the near points are moved six times as far, which halves the error in a band of 0.02.

Surface points are fresh at every step. The others come from pools of which every step refreshes
one part, because their distance and sign cost: the part and its points depend on the seed and the
step alone, so that a resumed run finds its pools again by repeating the last refresh of each part.
A batch is drawn before the step's refresh, which CUDA runs beside the training on it.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch, loading, samplers
from ngp_warp.primitives.sdf.kernels import samples as kernels
from ngp_warp.primitives.sdf.kernels.distance import lanes
from ngp_warp.primitives.sdf.sign import Sign
from ngp_warp.primitives.sdf.truth import SignedDistance

# Refreshed points a step, as a share of the batch's points of the kind: near, uniform. A query
# near the surface costs 0.6, 12 or 22 us (normal, winding, raystab), one far from it 2, 10 or 5: of
# a step of 15 to 20 ms, truth takes a tenth with normals, a fifth with the others.
_FRESH: dict[Sign, tuple[float, float]] = {
    "normal": (1 / 6, 1 / 16),
    "winding": (1 / 64, 1 / 64),
    "raystab": (1 / 128, 1 / 64),
}
# Slots of a pool on small batches: filled in about a second, and too many to be learned by heart
_POOL_SLOTS = 2**17

NOISE_STD = 8.5e-4
"""Standard deviation of the noise of the points near the surface, an axis, in unit space."""

_SURFACE, _UNIFORM = 1 / 8, 1 / 4
"""Shares of a batch; the rest lies near the surface."""

_Stages = list[list[launch.Launch]]


@dataclass(frozen=True)
class _Pool:
    """Points and their signed distances; part t mod n_parts is refreshed at step t."""

    n_fresh: int
    n_parts: int
    x: wp.array
    distance: wp.array

    @staticmethod
    def make(n_points: int, share: float, device: str) -> "_Pool":
        # whole blocks, as samplers write them
        n_fresh = 32 * max(math.ceil(n_points * share / 32), 1)
        n_parts = max(-(-n_points // n_fresh), _POOL_SLOTS // n_fresh)
        dtype: Any = wp.vec3
        x = wp.empty(n_fresh * n_parts, dtype=dtype, device=device)
        return _Pool(n_fresh, n_parts, x, wp.empty(len(x), dtype=float, device=device))


class Batches:
    """Fills x and target with the batch of a seed and a step.

    The first n/8 points lie on the surface, the next 5/8 n near it, the last n/4 in the whole cube.
    Constructing it fills the pools as they are after the steps that ``step`` says were done.

    Args:
        truth: signed distances.
        n_points: of a batch; a multiple of 32, at least 32.
        seed: of every random number.
        step: int64 [1] on the device, the step's number while its stages run.
        x: out, positions, blocked, flat float32 [n_blocks * 3 * 32].
        target: out, signed distances, blocked, flat float32 [n_blocks * 32].
        noise_std: of most points near the surface, an axis, in unit space; a quarter have six
            times as much.

    Raises:
        ShapeError: an array of another size, or on another device.
    """

    truth_stages: _Stages
    """Refresh the pools, for later steps: all that queries the mesh. After ``batch_stages``."""
    fill_seconds: float
    """What filling the pools took; their kernels are compiled before."""
    batch_stages: _Stages
    """Fill x and target from the pools."""

    def __init__(
        self,
        truth: SignedDistance,
        n_points: int,
        seed: int,
        step: wp.array,
        x: wp.array,
        target: wp.array,
        noise_std: float = NOISE_STD,
    ):
        self.truth, self.device = truth, truth.device
        launch.check_size("x", x, n_points * 3, self.device)
        launch.check_size("target", target, n_points, self.device)
        launch.check_size("step", step, 1, self.device)
        self._seeds = [_stream(seed, k) for k in range(6)]
        self._noise_scale = noise_std * math.sqrt(3) / math.pi
        n_surface, n_uniform = int(n_points * _SURFACE), int(n_points * _UNIFORM)
        n_near = n_points - n_surface - n_uniform
        shares = _FRESH[truth.sign]
        self._near = _Pool.make(n_near, shares[0], self.device)
        self._uniform = _Pool.make(n_uniform, shares[1], self.device)
        areas = truth.areas()
        shares_of_area = np.cumsum(areas) / areas.sum()
        self._cumulated = wp.array(shares_of_area, dtype=wp.float64, device=self.device)
        refresh = self._refresh_near(step), self._refresh_uniform(step)
        self.truth_stages = launch.beside(refresh, self.device)
        self.batch_stages = [self._fill(step, x, target, n_near, n_uniform)]
        loading.load()  # compiling is no training time
        done, start = int(step.numpy()[0]), time.perf_counter()
        self._restore(self._near, self._refresh_near, done)
        self._restore(self._uniform, self._refresh_uniform, done)
        self.fill_seconds = time.perf_counter() - start

    def stages(self) -> _Stages:
        """Return the stages of a step: its batch, then what later ones are drawn from."""
        return self.batch_stages + self.truth_stages

    def _refresh_near(self, step: wp.array) -> _Stages:
        pool, truth = self._near, self.truth
        args = [truth.scene, self._cumulated, self._seeds[0], self._seeds[1], step]
        args += [self._noise_scale, pool.n_fresh, pool.n_parts, pool.x, pool.distance]
        return [[self._query(kernels.near_kernel(truth.sign, truth.search), pool.n_fresh, args)]]

    def _refresh_uniform(self, step: wp.array) -> _Stages:
        pool, truth = self._uniform, self.truth
        fresh = wp.empty(pool.n_fresh * 3, dtype=float, device=self.device)
        draw = samplers.sample("stratified", 3, self._seeds[2], step, fresh, self.device)
        args = [truth.scene, fresh, step, pool.n_parts, pool.x, pool.distance]
        return [
            [draw],
            [self._query(kernels.uniform_kernel(truth.sign, truth.search), pool.n_fresh, args)],
        ]

    def _fill(
        self, step: wp.array, x: wp.array, target: wp.array, n_near: int, n_uniform: int
    ) -> list[launch.Launch]:
        n_surface = len(target) - n_near - n_uniform
        args = [self.truth.scene.mesh, self._cumulated, self._seeds[3], step, n_surface, x, target]
        launches = [self._record(kernels.surface_samples, n_surface, args)]
        first = n_surface
        parts = ((self._near, n_near, self._seeds[4]), (self._uniform, n_uniform, self._seeds[5]))
        for pool, n, seed in parts:
            args = [pool.x, pool.distance, seed, step, first, n, x, target]
            launches.append(self._record(kernels.pool_samples, n, args))
            first += n
        return launches

    def _query(self, kernel: Any, n_points: int, args: list[Any]) -> launch.Launch:
        n_lanes = lanes(self.truth.search)
        n_items = n_points * n_lanes
        block_dim = launch.spread(n_items, self.device, n_lanes)
        return self._record(kernel, n_items, args, block_dim)

    def _record(
        self, kernel: Any, n_items: int, args: list[Any], block_dim: int = 256
    ) -> launch.Launch:
        item = launch.record(kernel, n_items, args, self.device, block_dim=block_dim)
        # the scene holds the mesh's address alone
        item.arguments = (*args, self.truth)
        return item

    def _restore(self, pool: _Pool, refresh: Callable[[wp.array], _Stages], done: int) -> None:
        """Repeat the last refresh of each part up to step ``done``; steps before 1 count too."""
        step = wp.zeros(1, dtype=wp.int64, device=self.device)
        stages = refresh(step)
        for t in range(done - pool.n_parts + 1, done + 1):
            step.assign(np.array([t], np.int64))
            launch.run_stages(stages)


def _stream(seed: int, k: int) -> int:
    """Return the seed of the k-th independent stream, a non-negative 32-bit int."""
    return (seed + k * 0x632BE5AB) & 0x7FFFFFFF


def uniform_points(n: int, seed: int) -> np.ndarray:
    """Return n independent points of the unit cube, float32 [n, 3]."""
    return np.random.default_rng(seed).random((n, 3), dtype=np.float32)


def surface_points(truth: SignedDistance, n: int, seed: int) -> np.ndarray:
    """Return n independent points of the surface, evenly by area, float32 [n, 3]."""
    rng = np.random.default_rng(seed)
    areas = truth.areas()
    shares = np.cumsum(areas) / areas.sum()
    face = np.minimum(np.searchsorted(shares, rng.random(n), side="right"), len(areas) - 1)
    a, b, c = (truth.vertices[truth.faces[face, k]].astype(np.float64) for k in range(3))
    root, share = np.sqrt(rng.random((n, 1))), rng.random((n, 1))
    return (a + (b - a) * root * (1 - share) + (c - a) * root * share).astype(np.float32)
