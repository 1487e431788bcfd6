"""The original NeRF (Mildenhall et al. 2020): coarse and fine networks, hierarchical sampling."""

from functools import cached_property
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import distributed, launch
from ngp_warp.config import OptimizerConfig
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.field import as_numpy
from ngp_warp.kernels import layout
from ngp_warp.optimizer import Adam, Parameters, make_weights
from ngp_warp.radiance.batch import RayBatch, make_batch
from ngp_warp.radiance.marching import part
from ngp_warp.radiance.rendered import RayRenderer, Rendered
from ngp_warp.radiance.vanilla_network import DENSITY_SCALE, VanillaNetwork, VanillaSettings
from ngp_warp.radiance.vanilla_passes import Draw, Pass, Slice

__all__ = ["VanillaField", "VanillaSettings", "vanilla_optimizer"]

_RENDER_RAYS = {"cpu": 2**10, "cuda": 2**13}
"""Rays of a pass by kind of device, as each is waited for."""
_QUERY_POINTS = 4096
# Keeps the samples' random numbers apart from those of the rays, drawn from the same seed and step
_SAMPLING = 0x5DEECE66


def vanilla_optimizer() -> OptimizerConfig:
    """Return the paper's Adam: 5e-4, decaying to a tenth at the last step.

    The paper's decays from the first step on. This one waits for a fifth of the run, in which
    ``--seconds`` is turned into steps; both end alike.
    """
    return OptimizerConfig(
        learning_rate=5e-4,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-7,
        l2_regularization=0.0,
        decay_start=0.2,
        final_learning_rate=0.1,
    )


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
        self._group = distributed.current()
        self._seed = self._group.stream(seed ^ _SAMPLING)
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

    def make_batch(self) -> RayBatch:
        """Return a batch for training."""
        return make_batch(self.settings, self.settings.max_rays, self.device)

    @property
    def last_rays(self) -> int:
        """Rays of a step."""
        return self.settings.max_rays

    def counters(self) -> dict[str, int]:
        """Return the rays of all steps so far, and their samples in both networks."""
        rays = int(self.optimizer.step.numpy()[0]) * self.settings.max_rays * self._group.size
        return {"rays": rays, "samples": rays * self.settings.n_evaluations}

    def use_average(self) -> None:
        """Replace the parameters by their moving average, for evaluation; a no-op without one."""
        self.optimizer.use_average()

    def train_stages(self, batch: RayBatch) -> list[list[launch.Launch]]:
        """Record a step from rays to updated parameters; fills the batch's colours and losses."""
        work = self._make_slice(batch, training=True)
        return [*work.stages(batch, self.settings.near), *self.optimizer.update()]

    def render_stages(self, batch: RayBatch) -> list[list[launch.Launch]]:
        """Record colours, opacities and depths of a batch, with the last parameters."""
        batch.n_samples.fill_(self.settings.n_evaluations)
        return self._make_slice(batch, training=False).stages(batch, self.settings.near)

    def _make_slice(self, batch: RayBatch, *, training: bool) -> Slice:
        n_rays = self._slice_rays(batch.capacity, training=training)
        gradient = self.weights.gradient if training else None
        draw = Draw(training, self._seed, self.optimizer.step)
        return Slice(self._network, self.weights.value, gradient, n_rays, draw)

    def occupancy_stages(self) -> list[list[launch.Launch]]:
        """Record nothing: all of a ray is sampled."""
        return []

    def fill_occupancy(self) -> None:
        """Do nothing, for the same reason."""

    def _slice_rays(self, capacity: int, *, training: bool = True) -> int:
        """Return the rays of a slice: their activations stay in a CPU's outer cache.

        On CUDA they are bounded alone, and pictures keep two layers of them.
        """
        whole = training or self.device == "cpu"
        rows = self._network.training_rows() if whole else self._network.rendering_rows()
        per_ray = rows * self.settings.n_samples
        most = max(self._network.trunk.slice_floats // per_ray, 1)
        n_slices = -(-capacity // most)
        return -(-capacity // n_slices)

    @cached_property
    def renderer(self) -> RayRenderer:
        """What renders rays and views with the parameters as they are then."""
        rays = _RENDER_RAYS[self.device.partition(":")[0]]
        return RayRenderer(self.settings, self.render_stages, self.device, rays)

    def render_rays(
        self,
        origins: Any,
        directions: Any,
        *,
        background: Any = (0.0, 0.0, 0.0),
        latent: int | None = None,
        near: float | None = None,
    ) -> Rendered:
        """Return what is seen along rays.

        Args:
            origins: [n, 3], in box coordinates.
            directions: [n, 3], unit vectors.
            background: one colour, or [n, 3]; None: black.
            latent: None: there are no latent vectors.
            near: distance at which rays begin; None: that of the settings.

        Raises:
            ConfigError: a latent vector.
            ShapeError: other shapes.
        """
        if latent is not None:
            raise ConfigError("latent must be None: the original NeRF has no latent vectors")
        o, d = _points("origins", origins), _points("directions", directions)
        near = self.settings.near if near is None else near
        return self.renderer.render(o, d, background, latent, near)

    @cached_property
    def _query(self) -> tuple[Pass, list[launch.Launch]]:
        n = self._network.n_params
        fine = part(self.weights.value, n, 2 * n)
        work = Pass(self._network, fine, None, _QUERY_POINTS, 1)
        return work, work.forward()

    def _evaluate(self, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return [n, 4]: raw density and colour of the fine network."""
        work, items = self._query
        found = [np.zeros((0, 4), np.float32)]
        for begin in range(0, len(points), _QUERY_POINTS):
            rows = slice(begin, begin + _QUERY_POINTS)
            for values, array in (
                (points[rows] * 2 - 1, work.x),
                (directions[rows], work.directions),
            ):
                source = wp.array(values, dtype=wp.float32, device=self.device)
                launch.launch(layout.to_blocked, _QUERY_POINTS, [source, 3, array], self.device)
            for item in items:
                item.run()
            both = work.trunk_y.numpy(), work.rgb.numpy()
            raw, rgb = (a.reshape(_QUERY_POINTS // 32, -1, 32) for a in both)
            values = np.concatenate([raw[:, :1], rgb], axis=1).transpose(0, 2, 1).reshape(-1, 4)
            found.append(values[: len(points[rows])])
        return np.concatenate(found)

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
