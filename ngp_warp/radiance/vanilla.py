"""The original NeRF (Mildenhall et al. 2020): coarse and fine networks, hierarchical sampling."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import OptimizerConfig
from ngp_warp.errors import ShapeError
from ngp_warp.field import as_numpy
from ngp_warp.kernels import hierarchical, layout
from ngp_warp.kernels import hierarchical_composite as composite
from ngp_warp.optimizer import Adam, Parameters, make_weights
from ngp_warp.radiance.batch import RayBatch, make_batch
from ngp_warp.radiance.rendered import Rendered, expected_depth
from ngp_warp.radiance.vanilla_network import (
    DENSITY_SCALE,
    Pass,
    VanillaNetwork,
    VanillaSettings,
    part_of,
)

__all__ = ["RAYS_PER_BATCH", "VanillaField", "VanillaSettings", "vanilla_optimizer"]

RAYS_PER_BATCH = 256
"""Rays of a training step that suit a CPU; the paper has 4096."""
_RENDER_RAYS = 1024
_QUERY_POINTS = 4096
# Keeps the samples' random numbers apart from those of the rays, drawn from the same seed and step
_SAMPLING = 0x5DEECE66


def vanilla_optimizer() -> OptimizerConfig:
    """Return the paper's Adam: 5e-4, decaying from the first step on to a tenth at the last."""
    return OptimizerConfig(
        learning_rate=5e-4,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-7,
        l2_regularization=0.0,
        decay_start=0.0,
        final_learning_rate=0.1,
    )


@dataclass(frozen=True)
class _Slice:
    """Both passes over some rays of a batch."""

    coarse: Pass
    fine: Pass
    segment: wp.array
    """float32 [n_rays * 2]"""


class VanillaField:
    """Two networks, one that says where the other is to be sampled.

    The loss of a ray is the sum of the squared errors of both colours; ``batch.depth_target`` and
    ``batch.view`` are not looked at. A step's samples are stratified at random, by ``seed`` and the
    optimizer's step; a rendering's lie at ``batch.jitter`` in their strata. Results do not depend
    on the number of threads, and on CUDA they repeat.

    Args:
        settings: of the field.
        optimizer: settings; ``vanilla_optimizer()`` are the paper's.
        seed: of the initial values and the samples.
        device: "cpu" or a CUDA device.
        trainable: False: no gradients and moments.
        backend: of the networks: "vector" (CPU only), "portable", or "auto": the faster one.
    """

    def __init__(
        self,
        settings: VanillaSettings,
        *,
        optimizer: OptimizerConfig,
        seed: int,
        device: str,
        trainable: bool = True,
        backend: str = "auto",
    ):
        self.settings = settings
        self.device = device
        self.occupancy = None
        self._seed = (seed ^ _SAMPLING) & 0x7FFFFFFF
        self._network = VanillaNetwork(settings, device, backend)
        values = [self._network.initial_weights(2 * seed + i) for i in range(2)]
        self.weights = make_weights(np.concatenate(values), optimizer, device, trainable=trainable)
        self.optimizer = Adam(optimizer, [self.weights], device)

    @property
    def n_params(self) -> int:
        """Number of trained values."""
        return self.weights.value.size

    def parameters(self) -> dict[str, Parameters]:
        """Return the trained arrays by name: trunk and head of the coarse network, of the fine."""
        return {"network": self.weights}

    def extra_state(self) -> dict[str, wp.array]:
        """Return what a checkpoint holds beside the parameters: nothing."""
        return {}

    def use_average(self) -> None:
        """Replace the parameters by their moving average, for evaluation; a no-op without one."""
        if self.weights.average is not None:
            self.weights.assign(self.optimizer.averaged(self.weights))

    def train_stages(self, batch: RayBatch) -> list[list[launch.Launch]]:
        """Record a step from rays to updated parameters; fills the batch's colours and losses."""
        n_rays = self._slice_rays(batch.capacity)
        part = self._make_slice(n_rays, training=True)
        items: list[launch.Launch] = []
        forward = [level.forward() for level in (part.coarse, part.fine)]
        backward = {
            added: [level.backward(accumulate=added) for level in (part.coarse, part.fine)]
            for added in (False, True)
        }
        for first in range(0, batch.capacity, n_rays):
            for i, level in enumerate((part.coarse, part.fine)):
                items += self._sample(part, batch, first, i, training=True)
                items += forward[i]
                items.append(self._composite(part, batch, first, level))
                items.append(self._gradient(part, batch, first, level, accumulate=i))
                items += backward[first > 0][i]
        return [[item] for item in items] + self.optimizer.update()

    def render_stages(self, batch: RayBatch) -> list[list[launch.Launch]]:
        """Record colours, opacities and depths of a batch, with the last parameters."""
        n_rays = self._slice_rays(batch.capacity)
        part = self._make_slice(n_rays, training=False)
        forward = [level.forward() for level in (part.coarse, part.fine)]
        items: list[launch.Launch] = []
        for first in range(0, batch.capacity, n_rays):
            for i, level in enumerate((part.coarse, part.fine)):
                items += self._sample(part, batch, first, i, training=False)
                items += forward[i]
                items.append(self._composite(part, batch, first, level))
        return [[item] for item in items]

    def _slice_rays(self, capacity: int) -> int:
        """Return the rays of a slice: their activations stay in the outer cache."""
        per_ray = self._network.training_rows() * self.settings.n_samples
        most = max(self._network.trunk.slice_floats // per_ray, 1)
        n_slices = -(-capacity // most)
        return -(-capacity // n_slices)

    def _level(self, flat: wp.array, i: int) -> wp.array:
        n = self._network.n_params
        return part_of(flat, i * n, n)

    def _make_slice(self, n_rays: int, *, training: bool) -> _Slice:
        value, gradient = self.weights.value, self.weights.gradient
        s = self.settings
        passes = [
            Pass(
                self._network,
                self._level(value, i),
                self._level(gradient, i) if training else None,
                n_rays,
                n_samples,
            )
            for i, n_samples in enumerate((s.n_coarse, s.n_samples))
        ]
        segment = wp.zeros(n_rays * 2, dtype=wp.float32, device=self.device)
        return _Slice(passes[0], passes[1], segment)

    def _sample(
        self, part: _Slice, batch: RayBatch, first: int, i: int, *, training: bool
    ) -> list[launch.Launch]:
        """Record the places of a level's samples: stratified (i = 0), or by the coarse weights."""
        c, s = part.coarse, self.settings
        draw = [int(training), self._seed, self.optimizer.step]
        rays = [batch.origin, batch.direction]
        if i == 0:
            args = [first, batch.count, *rays, batch.jitter, s.near, s.n_coarse]
            kernel, args, level = hierarchical.stratified_samples, [*args, *draw, part.segment], c
        else:
            args = [first, batch.count, batch.jitter, part.segment, c.t, c.weights]
            args += [s.n_coarse, s.n_fine, *draw]
            kernel, level = hierarchical.resample, part.fine
        sample = launch.record(kernel, level.n_rays, [*args, level.t], self.device)
        return [sample, *level.place(first, batch.count, *rays)]

    def _quadrature(self, part: _Slice, batch: RayBatch, first: int, level: Pass) -> list[Any]:
        """Return the first arguments of both compositing kernels."""
        scale = DENSITY_SCALE * self.settings.aabb_scale
        args = [first, batch.count, part.segment, level.t, level.n_samples]
        rows = self._network.trunk.n_out
        return [*args, level.trunk_y, rows, level.rgb, scale, batch.background]

    def _composite(self, part: _Slice, batch: RayBatch, first: int, level: Pass) -> launch.Launch:
        s = self.settings
        args = [*self._quadrature(part, batch, first, level), s.n_coarse + s.n_samples]
        args += [level.weights, level.after, batch.color, batch.opacity, batch.depth]
        kernel = composite.composite_kernel(s.density_activation)
        return launch.record(kernel, level.n_rays, [*args, batch.n_samples], self.device)

    def _gradient(
        self, part: _Slice, batch: RayBatch, first: int, level: Pass, *, accumulate: int
    ) -> launch.Launch:
        args = [*self._quadrature(part, batch, first, level), level.weights, level.after]
        args += [batch.color, batch.target, batch.weight, accumulate, batch.loss]
        args += [level.d_trunk_y, level.d_rgb]
        kernel = composite.composite_gradient_kernel(self.settings.density_activation)
        return launch.record(kernel, level.n_rays, args, self.device)

    @cached_property
    def _renderer(self) -> tuple[RayBatch, list[list[launch.Launch]]]:
        batch = make_batch(self.settings, _RENDER_RAYS, self.device)
        batch.jitter.fill_(0.5)
        return batch, self.render_stages(batch)

    def render_rays(
        self, origins: Any, directions: Any, *, background: Any = (0.0, 0.0, 0.0)
    ) -> Rendered:
        """Return what rays see.

        Args:
            origins: [n, 3], in box coordinates.
            directions: [n, 3], unit vectors.
            background: [3] or [n, 3].

        Raises:
            ShapeError: other shapes.
        """
        o, d = _points("origins", origins), _points("directions", directions)
        if len(o) != len(d):
            raise ShapeError(f"directions must have {len(o)} rows as origins, got {len(d)}")
        behind = np.broadcast_to(np.asarray(background, np.float32), o.shape)
        batch, stages = self._renderer
        parts = []
        for begin in range(0, len(o), batch.capacity):
            rows = slice(begin, begin + batch.capacity)
            for array, values in (
                (batch.origin, o),
                (batch.direction, d),
                (batch.background, behind),
            ):
                array.assign(_padded(values[rows], batch.capacity))
            batch.count.fill_(len(o[rows]))
            for stage in stages:
                launch.run_all(stage)
            out = batch.color, batch.opacity, batch.depth
            color, opacity, depth = (a.numpy().reshape(batch.capacity, -1) for a in out)
            parts.append(np.hstack([color, opacity, depth])[: len(o[rows])])
        found = np.concatenate(parts) if parts else np.zeros((0, 5), np.float32)
        n_samples = len(o) * (self.settings.n_coarse + self.settings.n_samples)
        depth = expected_depth(found[:, 4], found[:, 3])
        return Rendered(found[:, :3].copy(), found[:, 3].copy(), depth, n_samples)

    @cached_property
    def _query(self) -> tuple[Pass, list[launch.Launch]]:
        part = Pass(self._network, self._level(self.weights.value, 1), None, _QUERY_POINTS, 1)
        return part, part.forward()

    def _evaluate(self, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return [n, 4]: raw density and colour of the fine network."""
        part, items = self._query
        found = []
        for begin in range(0, len(points), _QUERY_POINTS):
            rows = slice(begin, begin + _QUERY_POINTS)
            for values, array in (
                (points[rows] * 2 - 1, part.x),
                (directions[rows], part.directions),
            ):
                source = wp.array(values, dtype=wp.float32, device=self.device)
                launch.launch(layout.to_blocked, _QUERY_POINTS, [source, 3, array], self.device)
            for item in items:
                item.run()
            both = part.trunk_y.numpy(), part.rgb.numpy()
            raw, rgb = (a.reshape(_QUERY_POINTS // 32, -1, 32) for a in both)
            values = np.concatenate([raw[:, :1], rgb], axis=1).transpose(0, 2, 1).reshape(-1, 4)
            found.append(values[: len(points[rows])])
        return np.concatenate(found) if found else np.zeros((0, 4), np.float32)

    def density(self, points: Any) -> np.ndarray:
        """Return float32 [n]: densities at points [n, 3] of the box, per side of the inner cube."""
        x = _points("points", points)
        raw = self._evaluate(x, np.zeros_like(x))[:, 0]
        if self.settings.density_activation == "softplus":
            return DENSITY_SCALE * np.logaddexp(raw * 10, 0) / 10
        return DENSITY_SCALE * np.maximum(raw, 0)

    def color(self, points: Any, directions: Any) -> np.ndarray:
        """Return float32 [n, 3]: colours at points of the box in directions (unit vectors)."""
        x, d = _points("points", points), _points("directions", directions)
        if len(x) != len(d):
            raise ShapeError(f"directions must have {len(x)} rows as points, got {len(d)}")
        return self._evaluate(x, d)[:, 1:]


def _points(name: str, values: Any) -> np.ndarray:
    """Return values as float32 [n, 3]."""
    array = as_numpy(values)[0]
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        shape = f"{array.dtype} {list(array.shape)}"
        raise ShapeError(f"{name} must be real numbers of shape [n, 3], got {shape}")
    return np.ascontiguousarray(array, dtype=np.float32)


def _padded(values: np.ndarray, n: int) -> np.ndarray:
    """Return the rows flat, followed by zeros up to n rows."""
    result = np.zeros((n, 3), np.float32)
    result[: len(values)] = values
    return result.ravel()
