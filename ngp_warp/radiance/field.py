"""A radiance field: an encoding, a density and a colour network, and the cells that are marched."""

import numpy as np
import warp as wp

from ngp_warp import distributed
from ngp_warp.config import OptimizerConfig
from ngp_warp.encodings.grid import GridEncoding
from ngp_warp.errors import ConfigError
from ngp_warp.kernels import radiance_counts
from ngp_warp.launch import Launch
from ngp_warp.optimizer import Adam, Parameters, make_table, make_weights
from ngp_warp.radiance.batch import RayBatch, make_batch
from ngp_warp.radiance.fused import FusedRadiance, why_not_fused
from ngp_warp.radiance.occupancy import OccupancyGrid
from ngp_warp.radiance.points import PointQuery
from ngp_warp.radiance.positions import PositionEncoding
from ngp_warp.radiance.rendered import RayRenderer, Rendered
from ngp_warp.radiance.settings import RadianceSettings
from ngp_warp.radiance.staged import StagedRadiance, initial_weights

_FIRST_SAMPLES = 512
"""Samples of a ray that the first step expects: nothing is known to be empty."""


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
        encoding: of positions; None: the grid of the settings, which backend "vector" needs.

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
        encoding: PositionEncoding | None = None,
    ):
        self.settings, self.device = settings, device
        self.encoding = encoding or GridEncoding(3, settings.encoding, device)
        self.table = make_table(
            self.encoding.initial_table(seed),
            self.encoding.n_features,
            optimizer,
            device,
            half=settings.encoding.half,
            quantization=settings.encoding.quantization,
            fixed_point=deterministic and device != "cpu",
            flagged=self.encoding.flagged if isinstance(self.encoding, GridEncoding) else None,
            trainable=trainable,
        )
        self.weights = make_weights(
            initial_weights(settings, self.encoding.n_outputs, device, seed),
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
        self._n_processes = distributed.current().size
        n_rays = self._first_rays() * self._n_processes
        self.n_rays = wp.array([n_rays], dtype=wp.int32, device=device)
        """Rays of a step in all processes, int32 [1]."""
        self.totals = wp.zeros(4, dtype=wp.int64, device=device)
        self.last = wp.zeros(4, dtype=wp.int64, device=device)
        self.backend = _choose(backend, settings, self.encoding)
        parts = (self.table, self.weights, self.latents, self.occupancy)
        self._backend: FusedRadiance | StagedRadiance
        if self.backend == "vector" and isinstance(self.encoding, GridEncoding):
            self._backend = FusedRadiance(settings, self.encoding, *parts)
        else:
            self._backend = StagedRadiance(settings, self.encoding, *parts)
        # made when they are first asked for: a run that only trains has no use for their memory
        self._renderer: RayRenderer | None = None
        self._query: PointQuery | None = None

    def _first_rays(self) -> int:
        s = self.settings
        samples = s.batch_samples * radiance_counts.EARLY_SHARE
        return max(1, min(int(samples) // _FIRST_SAMPLES, s.max_rays))

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
        if self._n_processes == 1:
            batch.count = self.n_rays
        return batch

    @property
    def last_rays(self) -> int:
        """Rays of the newest step in this process."""
        return int(self.last.numpy()[0]) // self._n_processes

    def counters(self) -> dict[str, int]:
        """Return the rays of all steps so far, and the samples that reached each network."""
        rays, samples, kept, _ = (int(v) for v in self.totals.numpy())
        return {"rays": rays, "samples": samples, "kept": kept}

    def use_average(self) -> None:
        """Replace the parameters by their moving average, for evaluation; a no-op without one."""
        self.optimizer.use_average()

    def train_stages(self, batch: RayBatch) -> list[list[Launch]]:
        """Record a training step from rays to updated parameters.

        Fills the batch's outputs and sets its count for the next step; ``last`` and ``totals``
        (int64 [4]: rays, samples that reached the density network, samples that reached the colour
        network, rays given up for want of room) are counted.
        """
        if self._n_processes > 1:
            each = int(self.n_rays.numpy()[0]) // self._n_processes
            batch.count.fill_(min(max(each, 1), batch.capacity))
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

    @property
    def renderer(self) -> RayRenderer:
        """What renders rays and views with the parameters as they are then."""
        if self._renderer is None:
            self._renderer = RayRenderer(self.settings, self._backend.render, self.device)
        return self._renderer

    def render_rays(
        self,
        origins: np.ndarray,
        directions: np.ndarray,
        *,
        background: tuple[float, float, float] | np.ndarray | None = (0.0, 0.0, 0.0),
        latent: int | None = None,
        near: float = 0.0,
    ) -> Rendered:
        """Return what is seen along rays.

        Args:
            origins: [n, 3], box coordinates.
            directions: [n, 3], unit vectors.
            background: one colour, or [n, 3]; None: black.
            latent: view whose latent vector is used; None: zeros.
            near: distance at which rays begin, where that is more than the settings' own.

        Raises:
            ShapeError: other shapes.
        """
        return self.renderer.render(origins, directions, background, latent, near)

    def density(self, points: np.ndarray) -> np.ndarray:
        """Return densities, float32 [n], per side of the inner cube.

        Args:
            points: [n, 3], box coordinates (clamped to it).

        Raises:
            ShapeError: another shape.
        """
        return self._points().density(points)

    def color(self, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return the colours, float32 [n, 3], that points send against directions.

        Latent vectors are zero.

        Args:
            points: [n, 3], box coordinates (clamped to it).
            directions: [n, 3], unit vectors: those of the rays that look at the points.

        Raises:
            ShapeError: another shape.
        """
        return self._points().color(points, directions)

    def _points(self) -> PointQuery:
        if self._query is None:
            parts = (self._backend, self.weights, self.encoding.n_outputs, self.device)
            self._query = PointQuery(self.settings, *parts)
        return self._query


def _choose(backend: str, settings: RadianceSettings, encoding: PositionEncoding) -> str:
    reason = "a CUDA device" if encoding.device != "cpu" else why_not_fused(settings)
    if not isinstance(encoding, GridEncoding):
        reason = "an encoding that is no grid"
    if backend == "vector" and reason:
        raise ConfigError(f"backend vector cannot run {reason}; use auto or portable")
    if backend == "auto":
        return "portable" if reason else "vector"
    return backend
