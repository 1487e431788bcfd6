"""A radiance field: an encoding, a density and a colour network, and the cells that are marched."""

from dataclasses import dataclass

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import OptimizerConfig
from ngp_warp.encodings.grid import GridEncoding
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.kernels import radiance_counts
from ngp_warp.launch import Launch
from ngp_warp.networks.network import mlp_shape, xavier_uniform
from ngp_warp.optimizer import Adam, Parameters, make_table, make_weights
from ngp_warp.radiance.batch import RayBatch, make_batch
from ngp_warp.radiance.fused import FusedRadiance, why_not_fused
from ngp_warp.radiance.occupancy import OccupancyGrid
from ngp_warp.radiance.settings import N_DIRECTION, N_GEOMETRY, RadianceSettings

RENDER_CAPACITY = 2**15
"""Rays of one pass of ``render_rays``."""
QUERY_POINTS = 2**16
_FIRST_SAMPLES = 512
"""Samples of a ray that the first step expects: nothing is known to be empty."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """What ``RadianceField.render_rays`` returns."""

    color: np.ndarray
    """float32 [n, 3], over the background."""
    opacity: np.ndarray
    """float32 [n]."""
    depth: np.ndarray
    """float32 [n]: expected distance in sides of the box; infinite where nothing is hit."""
    n_samples: np.ndarray
    """int32 [n]: samples that reached the density network."""


class RadianceField:
    """See the module; all positions are in the box, the unit cube.

    Args:
        settings: resolved.
        optimizer: settings.
        seed: of the initial values and of the occupancy grid's points.
        device: "cpu" or a CUDA device.
        deterministic: sum the table's gradients in fixed point on CUDA.
        trainable: False: no gradients and moments.
        backend: "vector" (fused, CPU only), "portable", or "auto": the faster one that can.
        visible: cells that a camera sees, see ``OccupancyGrid``.

    Raises:
        ConfigError: backend "vector" where it cannot be.
    """

    def __init__(
        self,
        settings: RadianceSettings,
        *,
        optimizer: OptimizerConfig,
        seed: int,
        device: str,
        deterministic: bool = False,
        trainable: bool = True,
        backend: str = "auto",
        visible: np.ndarray | None = None,
    ):
        self.settings, self.device = settings, device
        self.encoding = GridEncoding(3, settings.encoding, device)
        self.table = make_table(
            self.encoding.initial_table(seed),
            self.encoding.n_features,
            optimizer,
            device,
            half=settings.encoding.half,
            quantization=settings.encoding.quantization,
            fixed_point=deterministic and device != "cpu",
            trainable=trainable,
        )
        self.weights = make_weights(
            _initial_weights(settings, self.encoding.n_outputs, seed),
            optimizer,
            device,
            trainable=trainable,
        )
        self.latents: Parameters | None = None
        if settings.n_latent_dims:
            n = settings.n_views * settings.n_latent_dims
            self.latents = make_weights(
                np.zeros(n, np.float32), optimizer, device, trainable=trainable
            )
        self.optimizer = Adam(optimizer, list(self.parameters().values()), device)
        self.occupancy = OccupancyGrid(settings, device, visible, seed)
        self.n_rays = wp.array([self._first_rays()], dtype=wp.int32, device=device)
        self.totals = wp.zeros(4, dtype=wp.int64, device=device)
        self.last = wp.zeros(4, dtype=wp.int64, device=device)
        self.backend = _choose(backend, settings, device)
        self._backend = self._make_backend()

    def _first_rays(self) -> int:
        s = self.settings
        samples = s.batch_samples * radiance_counts.EARLY_SHARE
        return max(1, min(int(samples) // _FIRST_SAMPLES, s.max_rays))

    def _make_backend(self) -> FusedRadiance:
        parts = (self.encoding, self.table, self.weights, self.latents, self.occupancy)
        return FusedRadiance(self.settings, *parts)

    @property
    def n_params(self) -> int:
        """Number of trained values."""
        return sum(p.value.size for p in self.parameters().values())

    def parameters(self) -> dict[str, Parameters]:
        """Return the trained arrays by name: the density network, then the colour network."""
        found = {"network": self.weights, "encoding": self.table}
        if self.latents is not None:
            found["latents"] = self.latents
        return found

    def extra_state(self) -> dict[str, wp.array]:
        """Return what a checkpoint holds beside the parameters, by name."""
        cells = {f"occupancy_{name}": a for name, a in self.occupancy.state().items()}
        return {**cells, "n_rays": self.n_rays, "totals": self.totals}

    def make_batch(self) -> RayBatch:
        """Return a batch for training whose count is the field's own, resumed with it."""
        batch = make_batch(self.settings, self.settings.max_rays, self.device)
        batch.count = self.n_rays
        return batch

    @property
    def last_rays(self) -> int:
        """Rays of the newest step."""
        return int(self.last.numpy()[0])

    def counters(self) -> dict[str, int]:
        """Return the rays of all steps so far, and the samples that reached each network."""
        rays, samples, kept, _ = (int(v) for v in self.totals.numpy())
        return {"rays": rays, "samples": samples, "kept": kept}

    def use_average(self) -> None:
        """Replace the parameters by their moving average, for evaluation; a no-op without one."""
        for p in self.parameters().values():
            if p.average is not None:
                p.assign(self.optimizer.averaged(p))

    def train_stages(self, batch: RayBatch) -> list[list[Launch]]:
        """Record a training step from rays to updated parameters.

        Fills the batch's outputs and sets its count for the next step; ``last`` and ``totals``
        (int64 [4]: rays, samples that reached the density network, samples that reached the colour
        network, rays given up for want of room) are counted.
        """
        stages = self._backend.train(
            batch, self.optimizer.step, self.n_rays, self.totals, self.last
        )
        return stages + self.optimizer.update()

    def occupancy_stages(self) -> list[list[Launch]]:
        """Record the update of this step's slice of the occupancy grid."""
        return self.occupancy.update_stages(self.optimizer.step, self._backend.density)

    def fill_occupancy(self) -> None:
        """Evaluate all cells once: before the first step, or where no grid was stored."""
        self.occupancy.fill(self._backend.density)

    def render_stages(self, batch: RayBatch) -> list[list[Launch]]:
        """Record colour, opacity, depth and number of samples of a batch's rays."""
        return self._backend.render(batch)

    def render_rays(
        self,
        origins: np.ndarray,
        directions: np.ndarray,
        *,
        background: tuple[float, float, float] | np.ndarray | None = (0.0, 0.0, 0.0),
        latent: int | None = None,
    ) -> Rendered:
        """Return what is seen along rays.

        Args:
            origins: [n, 3], box coordinates.
            directions: [n, 3], unit vectors.
            background: one colour, or [n, 3]; None: black.
            latent: view whose latent vector is used; None: zeros.

        Raises:
            ShapeError: other shapes.
        """
        n = len(origins)
        for name, array in (("origins", origins), ("directions", directions)):
            if array.shape != (n, 3):
                raise ShapeError(f"{name} must have shape [{n}, 3], got {list(array.shape)}")
        behind = np.zeros(3, np.float32) if background is None else np.asarray(background)
        behind = np.broadcast_to(behind.astype(np.float32), (n, 3))
        batch, stages = self._renderer()
        batch.view.fill_(-1 if latent is None else latent)
        color, opacity = np.empty((n, 3), np.float32), np.empty(n, np.float32)
        depth, n_samples = np.empty(n, np.float32), np.empty(n, np.int32)
        for begin in range(0, n, RENDER_CAPACITY):
            part = slice(begin, min(begin + RENDER_CAPACITY, n))
            m = part.stop - part.start
            for target, source in (
                (batch.origin, origins),
                (batch.direction, directions),
                (batch.background, behind),
            ):
                _put(target, np.ascontiguousarray(source[part], np.float32).reshape(-1))
            batch.count.fill_(m)
            for stage in stages:
                launch.run_all(stage)
            color[part] = batch.color.numpy()[: 3 * m].reshape(m, 3)
            opacity[part] = batch.opacity.numpy()[:m]
            depth[part] = batch.depth.numpy()[:m]
            n_samples[part] = batch.n_samples.numpy()[:m]
        seen = opacity > _SEEN
        depth = np.where(seen, depth / np.where(seen, opacity, 1), np.inf).astype(np.float32)
        return Rendered(color=color, opacity=opacity, depth=depth, n_samples=n_samples)

    def _renderer(self) -> tuple[RayBatch, list[list[Launch]]]:
        if self._rendering is None:
            batch = make_batch(self.settings, RENDER_CAPACITY, self.device)
            batch.jitter.fill_(0.5)
            self._rendering = (batch, self._backend.render(batch))
        return self._rendering

    _rendering: tuple[RayBatch, list[list[Launch]]] | None = None


_SEEN = 1e-3


def _put(target: wp.array, values: np.ndarray) -> None:
    target[: values.size].assign(values)


def _initial_weights(settings: RadianceSettings, n_features: int, seed: int) -> np.ndarray:
    n_in = N_GEOMETRY + N_DIRECTION + settings.n_latent_dims
    density = mlp_shape(settings.density_network, n_features, N_GEOMETRY)
    color = mlp_shape(settings.color_network, n_in, 3)
    return xavier_uniform([*density.layers, *color.layers], seed)


def _choose(backend: str, settings: RadianceSettings, device: str) -> str:
    reason = "a CUDA device" if device != "cpu" else why_not_fused(settings)
    if backend == "vector" and reason:
        raise ConfigError(f"backend vector cannot run {reason}; use auto or portable")
    if backend == "auto":
        return "portable" if reason else "vector"
    return backend
