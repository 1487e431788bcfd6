"""The radiance field's training and rendering on a CPU, a chunk of rays at a time in the caches."""

from dataclasses import replace
from typing import Any

import warp as wp

from ngp_warp import launch
from ngp_warp.config import NetworkConfig
from ngp_warp.encodings.grid import GridEncoding
from ngp_warp.kernels import mlp, radiance_counts
from ngp_warp.kernels import radiance as kernels
from ngp_warp.kernels import radiance_points as point_kernels
from ngp_warp.kernels import radiance_text as text
from ngp_warp.launch import Launch, Stages
from ngp_warp.networks.mlp import FUSED_WIDTHS
from ngp_warp.networks.network import mlp_shape
from ngp_warp.optimizer import Parameters
from ngp_warp.radiance.batch import RayBatch
from ngp_warp.radiance.counts import count_stages, depth_stages
from ngp_warp.radiance.occupancy import OccupancyGrid
from ngp_warp.radiance.settings import N_DIRECTION, N_GEOMETRY, RadianceSettings

N_CHUNKS = 64
"""Items of a training step: fixed, for results must not depend on the number of threads."""
N_SLOTS = 16
"""Shards of a launch, each with a slot of scratch memory that its chunks use one after another."""
RENDER_RAYS = 256
"""Rays of a chunk that is rendered."""
_SPARE = 2
"""Room of a chunk in shares of the mean chunk's samples."""


def why_not_fused(settings: RadianceSettings) -> str | None:
    """Return what keeps a field from the fused kernels, or None."""
    for name, network in (
        ("density", settings.density_network),
        ("color", settings.color_network),
    ):
        reason = _why_not(network)
        if reason:
            return f"{reason} in the {name} network"
    if settings.encoding.interpolation != "linear":
        return f"interpolation {settings.encoding.interpolation}"
    return None


def _why_not(network: NetworkConfig) -> str | None:
    reasons = {
        "backend unfused": network.backend == "unfused",
        "biases": network.bias,
        "a skip connection": network.skip_layer is not None,
        "no hidden layer": network.n_hidden_layers == 0,
        f"width {network.n_neurons}": network.n_neurons not in FUSED_WIDTHS,
        "the activation sine": "sine" in {network.activation, network.output_activation},
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


class FusedRadiance:
    """Records the launches of one field; see kernels/radiance.py.

    Args:
        settings: of the field; ``why_not_fused`` must have no objection.
        encoding: of positions.
        table: read, and its gradients.
        weights: of both networks, and their gradients.
        latents: of the views, where there are any.
        occupancy: cells that are marched.
    """

    device = "cpu"

    def __init__(
        self,
        settings: RadianceSettings,
        encoding: GridEncoding,
        table: Parameters,
        weights: Parameters,
        latents: Parameters | None,
        occupancy: OccupancyGrid,
    ):
        self.settings, self.encoding, self.table = settings, encoding, table
        self.weights, self.latents, self.occupancy = weights, latents, occupancy
        n_in = N_GEOMETRY + N_DIRECTION + settings.n_latent_dims
        n_samples = settings.batch_samples // N_CHUNKS * _SPARE + 2 * settings.max_samples
        self.shape = text.RadianceShape(
            grid=encoding.shape,
            n_levels=encoding.n_levels,
            density=mlp_shape(settings.density_network, encoding.n_outputs, N_GEOMETRY),
            color=mlp_shape(settings.color_network, n_in, 3),
            n_latents=settings.n_latent_dims,
            aabb_scale=settings.aabb_scale,
            cone=settings.cone_angle > 0,
            loss=settings.loss,
            color_space=settings.color_space,
            exposure=settings.exposure,
            depth=settings.depth_weight > 0,
            distortion=settings.distortion_weight > 0,
            background_gradients=settings.background_gradients,
            ray_gradients=settings.ray_gradients,
            n_samples=-(-n_samples // 32) * 32,
            max_samples=settings.max_samples,
        )
        self.counters = wp.zeros(N_CHUNKS * text.COUNTERS, dtype=wp.int64, device="cpu")
        self._no_floats = wp.zeros(0, dtype=wp.float32, device="cpu")

    def _floats(self, n: int) -> wp.array:
        # not written: memory that no chunk needs is never touched
        return wp.empty(n, dtype=float, device="cpu")

    def train(
        self,
        batch: RayBatch,
        step: wp.array,
        n_rays: wp.array,
        totals: wp.array,
        last: wp.array,
    ) -> Stages:
        """Record a step from rays to gradients of table, weights and latents, and the next count.

        Args:
            batch: rays; its outputs are filled, and ``count`` is set for the next step.
            step: int64 [1], from 1.
            n_rays: int32 [1], out: the same count.
            totals: int64 [4]: rays, samples, kept samples and rays given up, added to.
            last: int64 [4], out: those of this step.
        """
        shape = replace_rays(self.shape, -(-batch.capacity // N_CHUNKS) + 1)
        results = self._results(shape, batch)
        scratch = self._floats(N_SLOTS * text.slot_size(shape, train=True))
        marching = self._marching(batch, self.settings)
        args = [N_CHUNKS, N_SLOTS, _rays(batch), marching, self._model()]
        args += [self.table.read, results, scratch]
        kernel = kernels.train_kernel(shape)
        stages = [[launch.record(kernel, N_CHUNKS, args, "cpu", shards=N_SLOTS)]]
        if shape.depth:
            stages = [*depth_stages(batch, results.depth_counts), *stages]
        sums = [self._scatter(shape, results), *self._reduce(results)]
        stages.append(sums)
        if self.latents is not None:
            sums.append(self._sum_latents(batch, results))
        # after the sum of the latents, which reads the count
        found = totals, last, n_rays
        return stages + count_stages(self.settings, batch, self.counters, step, *found)

    def _results(self, shape: text.RadianceShape, batch: RayBatch) -> Any:
        r = kernels.Results()
        r.region_x = self._floats(N_CHUNKS * shape.n_samples * 3)
        r.region_d = self._floats(N_CHUNKS * shape.n_samples * shape.density.n_in)
        r.region_n = wp.zeros(N_CHUNKS, dtype=wp.int32, device="cpu")
        r.density_partials = self._floats(N_CHUNKS * shape.density.n_partials)
        r.color_partials = self._floats(N_CHUNKS * shape.color.n_partials)
        r.counters = self.counters
        r.d_latents = self._floats(batch.capacity * shape.n_latents)
        r.depth_counts = self._floats(N_CHUNKS)
        r.met = self.occupancy.met
        return r

    def _scatter(self, shape: text.RadianceShape, r: Any) -> Launch:
        assert self.table.touched is not None
        n_levels = self.encoding.n_levels
        args = [r.region_x, r.region_d, r.region_n, N_CHUNKS, shape.n_samples // 32]
        args += [self.encoding.scale, self.encoding.meta, self.table.gradient, self.table.touched]
        kernel = point_kernels.scatter_kernel(self.encoding.shape, self.encoding.n_outputs)
        return launch.record(kernel, n_levels, args, "cpu", shards=n_levels)

    def _reduce(self, r: Any) -> list[Launch]:
        launches, offset = [], 0
        for shape, partials in (
            (self.shape.density, r.density_partials),
            (self.shape.color, r.color_partials),
        ):
            n = shape.n_params
            gradient = self.weights.gradient[offset : offset + n]
            n_items = -(-n // mlp.WEIGHTS_PER_ITEM)
            args = [partials, N_CHUNKS, gradient]
            launches.append(launch.record(mlp.reduce_kernel(shape), n_items, args, "cpu"))
            offset += n
        return launches

    def _sum_latents(self, batch: RayBatch, r: Any) -> Launch:
        assert self.latents is not None
        n = self.settings.n_latent_dims
        args = [batch.count, batch.capacity, batch.view, r.d_latents, n, self.settings.n_views]
        args.append(self.latents.gradient)
        return launch.record(radiance_counts.latents_kernel, n, args, "cpu")

    def render(self, batch: RayBatch) -> Stages:
        """Record the colours, opacities, depths and numbers of samples of rays."""
        n_chunks = -(-batch.capacity // RENDER_RAYS)
        n_chunks = -(-n_chunks // N_SLOTS) * N_SLOTS
        # a round takes the ROUND next samples of each ray, or LONGEST of few
        n_samples = max(RENDER_RAYS * text.ROUND, 32 * text.LONGEST)
        settings = self.settings.rendering
        shape = replace(
            self.shape,
            n_rays=RENDER_RAYS,
            n_samples=n_samples,
            max_samples=settings.max_samples,
        )
        scratch = self._floats(N_SLOTS * text.slot_size(shape, train=False))
        args = [n_chunks, N_SLOTS, _rays(batch), self._marching(batch, settings), self._model()]
        args += [self.table.read, scratch]
        kernel = kernels.render_kernel(shape)
        return [[launch.record(kernel, n_chunks, args, "cpu", shards=N_SLOTS)]]

    def density(
        self, points: wp.array, density: wp.array, count: wp.array, geometry: wp.array | None = None
    ) -> Stages:
        """Record densities (and what else the density network gives) at points.

        Args:
            points: blocked [n_blocks, 3, 32], box coordinates.
            density: out, float32 [n_blocks * 32], per side of the inner cube.
            count: int32 [1]: points that matter, the first.
            geometry: out, blocked [n_blocks, N_GEOMETRY, 32]; None: not wanted.
        """
        n_points = points.size // 3
        out = self._no_floats if geometry is None else geometry
        args = [points, n_points, count, self._model(), self.table.read, density, out]
        n_items = -(-n_points // (32 * point_kernels.BLOCKS_PER_ITEM))
        kernel = point_kernels.density_kernel(replace_rays(self.shape, 0, n_samples=0))
        return [[launch.record(kernel, n_items, args, "cpu", shards=N_SLOTS)]]

    def _marching(self, batch: RayBatch, s: RadianceSettings) -> Any:
        m = kernels.Marching()
        m.occupied = self.occupancy.bits
        m.capacity = batch.capacity
        m.cone_angle, m.min_step, m.max_step = s.cone_angle, s.min_step, s.max_step
        m.near, m.min_transmittance = s.near, s.min_transmittance
        m.depth_weight, m.distortion_weight = s.depth_weight, s.distortion_weight
        return m

    def _model(self) -> Any:
        m = kernels.Model()
        m.scale, m.meta = self.encoding.scale, self.encoding.meta
        m.w = self.weights.value
        m.latents = self._no_floats if self.latents is None else self.latents.value
        return m


def replace_rays(
    shape: text.RadianceShape, n_rays: int, n_samples: int | None = None
) -> text.RadianceShape:
    """Return a shape for other chunks."""
    return replace(
        shape, n_rays=n_rays, n_samples=shape.n_samples if n_samples is None else n_samples
    )


def _rays(batch: RayBatch) -> Any:
    rays = kernels.Rays()
    for name in kernels.Rays.vars:  # type: ignore[attr-defined]
        setattr(rays, name, getattr(batch, name))
    return rays
