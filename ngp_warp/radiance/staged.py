"""The radiance field's training and rendering in stages of whole batches, on any device.

March (count, scan, fill) -> encode -> density network -> transmittance -> the samples that are kept
-> colour network -> composite -> backward through all. Every launch is of a fixed size; how many
samples count lies on the device. Kernels: kernels/{march,packed,composite,spherical_harmonics}.py.
"""

from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ConfigError
from ngp_warp.kernels import composite as kernels
from ngp_warp.kernels import march, packed
from ngp_warp.kernels import spherical_harmonics as harmonics
from ngp_warp.kernels.grid_portable import FIXED_POINT
from ngp_warp.kernels.lanes import lane_items
from ngp_warp.kernels.ray_lanes import ray_items
from ngp_warp.launch import Call, Launch, Stages
from ngp_warp.networks.mlp import make_network
from ngp_warp.networks.network import Network
from ngp_warp.optimizer import Parameters
from ngp_warp.radiance.batch import RayBatch
from ngp_warp.radiance.counts import count_stages, depth_stages
from ngp_warp.radiance.marching import make_lattice, part, scan_stage
from ngp_warp.radiance.occupancy import OccupancyGrid
from ngp_warp.radiance.positions import PositionEncoding, in_order
from ngp_warp.radiance.settings import N_DIRECTION, N_GEOMETRY, RadianceSettings
from ngp_warp.radiance.staged_arrays import Gradients, Work, render_samples

N_CHUNKS = 128
"""Parts in which a step's samples are counted."""
_GRADIENT_SCALE = 128.0
"""What gradients of one ray's colors are carried times where they are half precision: those of a
sample that is thin or far behind are small, and below 3e-8 they would be gone."""
_SPARE = 1.25
"""Room for samples in shares of those that are wanted."""
_N_BANDS = 4
assert _N_BANDS**2 == N_DIRECTION


def make_networks(
    settings: RadianceSettings, n_features: int, device: str
) -> tuple[Network, Network]:
    """Return the density and the colour network of a field, fused or not."""
    n_in = N_GEOMETRY + N_DIRECTION + settings.n_latent_dims
    return (
        make_network(settings.density_network, n_features, N_GEOMETRY, device),
        make_network(settings.color_network, n_in, 3, device),
    )


def initial_weights(
    settings: RadianceSettings, n_features: int, device: str, seed: int
) -> np.ndarray:
    """Return the weights of both networks, float32: the density network's, then the colour's."""
    density, color = make_networks(settings, n_features, device)
    return np.concatenate([density.initial_weights(seed), color.initial_weights(seed + 1)])


class StagedRadiance:
    """Records the launches of one field, on a CPU or on CUDA, for every kind of network.

    Args:
        settings: of the field.
        encoding: of positions.
        table: read, and its gradients.
        weights: of both networks (see ``initial_weights``), and their gradients.
        latents: of the views, [n_views, n_latent_dims], where there are any.
        occupancy: cells that are marched.

    Raises:
        ConfigError: gradients of the rays through interpolation "nearest", which has none.
    """

    def __init__(
        self,
        settings: RadianceSettings,
        encoding: PositionEncoding,
        table: Parameters,
        weights: Parameters,
        latents: Parameters | None,
        occupancy: OccupancyGrid,
    ):
        if settings.ray_gradients and settings.encoding.interpolation == "nearest":
            raise ConfigError("gradients of rays need interpolation linear or smoothstep")
        self.settings, self.encoding, self.table = settings, encoding, table
        self.weights, self.latents, self.occupancy = weights, latents, occupancy
        self.device = encoding.device
        self.density_network, self.color_network = make_networks(
            settings, encoding.n_outputs, self.device
        )
        self._norms = wp.array(harmonics.norms(), dtype=float, device=self.device)
        self._no_latents = self._floats(1)

    def train(
        self,
        batch: RayBatch,
        step: wp.array,
        n_rays: wp.array,
        totals: wp.array,
        last: wp.array,
    ) -> Stages:
        """Record a step from rays to gradients of table, weights and latents, and the next count.

        Rays that have no room are left out, with -1 in ``batch.n_samples`` and no loss.

        Args:
            batch: rays; its outputs are filled, and ``count`` is set for the next step.
            step: int64 [1], from 1.
            n_rays: int32 [1], out: the same count.
            totals: int64 [4]: rays, samples, kept samples and rays given up, added to.
            last: int64 [4], out: those of this step.
        """
        room = max(int(self.settings.batch_samples * _SPARE), self.settings.max_samples)
        work = Work(self.settings, self.encoding.n_outputs, batch, -(-room // 32) * 32)
        stages = self._forward_stages(self.settings, batch, work)
        gradients = Gradients(self.settings, self.encoding.n_outputs, work)
        kept = work.kept
        args = [make_lattice(self.settings), kept.end, kept.positions, kept.length, kept.thickness]
        args.append(self.occupancy.met)
        stages.append(self._record(march.meet_kernel, work.samples.capacity, args))
        stages += self._loss_stages(batch, work, gradients)
        stages += self._backward_stages(batch, work, gradients)
        counters = wp.zeros(N_CHUNKS * 4, dtype=wp.int64, device=self.device)
        args = [batch.count, N_CHUNKS, work.samples.counted, work.kept.n]
        args += [batch.n_samples, counters]
        stages.append(self._record(packed.counters_kernel, self._sums(N_CHUNKS), args))
        found = totals, last, n_rays
        return stages + count_stages(self.settings, batch, counters, step, *found)

    def render(self, batch: RayBatch, capacity: int | None = None) -> Stages:
        """Record the colours, opacities, depths and numbers of samples of rays.

        Rays that have no room have -1 in ``batch.n_samples`` and must be rendered again; the first
        ray with samples always has room.

        Args:
            batch: rays; its outputs are filled.
            capacity: samples of a pass, at least 1024; None: as many as suit the device.
        """
        settings = self.settings.rendering
        room = capacity or render_samples(self.settings, self.encoding.n_outputs, self.device)
        room = max(room, settings.max_samples)
        work = Work(settings, self.encoding.n_outputs, batch, -(-room // 32) * 32)
        stages = self._forward_stages(settings, batch, work)
        kernel = kernels.render_kernel(self.settings.exposure, self.settings.color_space)
        args = [work.rays, work.kept, work.rgb, work.out]
        return [*stages, self._record(kernel, self._lanes(batch.capacity), args)]

    def density(
        self, points: wp.array, density: wp.array, count: wp.array, geometry: wp.array | None = None
    ) -> Stages:
        """Record densities (and what else the density network gives) at points.

        Args:
            points: blocked [n_blocks, 3, 32], box coordinates.
            density: out, float32 [n_blocks * 32], per side of the inner cube.
            count: int32 [1]: points that matter; of the others anything may be said.
            geometry: out, blocked [n_blocks, N_GEOMETRY, 32]; None: not wanted.
        """
        n = points.size // 3
        features = self._floats(n * self.encoding.n_outputs)
        out = self._floats(n * N_GEOMETRY) if geometry is None else geometry
        args = [out, N_GEOMETRY, density]
        return [
            *self._geometry_stages(points, features, out, count),
            self._record(packed.density_kernel, n, args),
        ]

    def _floats(self, n: int) -> wp.array:
        return wp.zeros(n, dtype=wp.float32, device=self.device)

    def _sums(self, n: int) -> int:
        return lane_items(n, self.device)

    def _lanes(self, n_rays: int) -> int:
        return ray_items(n_rays, self.device)

    def _record(
        self, kernel: Any, n_items: int, args: list[Any], shards: int | None = None
    ) -> list[Launch]:
        return [launch.record(kernel, n_items, args, self.device, shards=shards)]

    def _split(self, flat: wp.array) -> tuple[wp.array, wp.array]:
        """Return the density and the colour network's part of the weights or their gradients."""
        n = self.density_network.n_params
        return part(flat, 0, n), part(flat, n, flat.size)

    def _geometry_stages(
        self, x: wp.array, features: wp.array, out: wp.array, count: wp.array
    ) -> Stages:
        """Record features and the density network's outputs at the first ``count`` positions."""
        n_rows = self.encoding.n_outputs
        w = self._split(self.weights.value)[0]
        encode = self.encoding.forward(x, self.table.read, features, n_rows, count)
        passes = self.density_network.forward(w, features, out, count)
        return [[item] for item in (*in_order(encode), *passes)]

    def _forward_stages(self, s: RadianceSettings, batch: RayBatch, work: Work) -> Stages:
        """Record everything from rays to the colours of the samples that are kept."""
        samples, marched, n = work.samples, work.packed, batch.capacity
        stages = samples.march_stages(make_lattice(s), self.occupancy.bits, batch)
        args = [batch.direction, self._norms, _N_BANDS, batch.count, work.harmonics]
        stages[0] += self._record(harmonics.harmonics_kernel, n, args)
        arrays = samples.positions, marched.features, marched.geometry
        # fixed launches: how many samples have room, and are kept, is read on the device
        stages += self._geometry_stages(*arrays, part(samples.total, 1, 2))
        args = [samples.n, samples.end, marched.geometry, N_GEOMETRY, samples.length]
        args += [float(s.aabb_scale), s.min_transmittance, marched.thickness, work.kept.n]
        stages.append(self._record(packed.transmittance_kernel, self._lanes(n), args))
        stages.append(scan_stage(work.kept.n, work.kept.end, self.device))
        latents = self._no_latents if self.latents is None else self.latents.value
        args = [marched, self.encoding.n_outputs, N_GEOMETRY, work.harmonics, N_DIRECTION]
        args += [latents, s.n_latent_dims, batch.view, work.kept]
        stages.append(self._record(packed.keep_kernel, samples.capacity, args))
        w = self._split(self.weights.value)[1]
        n_kept = part(work.kept.end, n - 1, n)
        passes = self.color_network.forward(w, work.kept.color_input, work.rgb, n_kept)
        return stages + [[p] for p in passes]

    def _loss_stages(self, batch: RayBatch, work: Work, g: Gradients) -> Stages:
        """Record the rays' losses, and their gradients in colours and raw densities."""
        s = self.settings
        shape = kernels.CompositeShape(
            s.loss, s.color_space, s.exposure, s.background_gradients, s.distortion_weight > 0.0
        )
        depth_counts = self._floats(kernels.DEPTH_CHUNKS)
        stages = [
            *(depth_stages(batch, depth_counts) if s.depth_weight > 0.0 else []),
            [Launch([Call(a.zero_)], self.device) for a in (g.rgb, g.raw)],
        ]
        args = [work.rays, work.kept, work.rgb, depth_counts, s.depth_weight, s.distortion_weight]
        args += [g.weights, g.behind, work.out, g.rgb, g.raw]
        n_items = self._lanes(batch.capacity)
        return [*stages, self._record(kernels.train_kernel(shape), n_items, args)]

    def _backward_stages(self, batch: RayBatch, work: Work, g: Gradients) -> Stages:
        """Record the gradients of table, weights, latents and rays."""
        kept, capacity = work.kept, work.samples.capacity
        w_density, w_color = self._split(self.weights.value)
        dw_density, dw_color = self._split(self.weights.gradient)
        # the loss is a mean over the rays' colors; see Network.backward
        scale = _GRADIENT_SCALE * 3.0 * batch.capacity
        n_kept = part(kept.end, batch.capacity - 1, batch.capacity)
        *passes, last = self.color_network.backward(
            w_color, kept.color_input, g.rgb, g.color_input, dw_color, scale, n_kept
        )
        args = [g.color_input, work.n_color_rows, g.raw, N_GEOMETRY, n_kept, g.geometry]
        join = self._record(packed.geometry_gradient_kernel, capacity, args)
        stages = [[p] for p in passes]
        stages.append([last, *join, *self._sum_rows(batch, work, g)])
        *passes, last = self.density_network.backward(
            w_density, kept.features, g.geometry, g.features, dw_density, scale, n_kept
        )
        table, n_rows = self.table, self.encoding.n_outputs
        scatter = self.encoding.backward(
            kept.positions, g.features, table.gradient, table.touched, n_rows
        )
        first, *rest = in_order(scatter)
        stages += [[p] for p in passes]
        stages += [[last, first], *([p] for p in rest)]
        if self.settings.ray_gradients:
            stages += self._ray_stages(batch, work, g)
        return stages + self._latent_stages(batch, g)

    def _sum_rows(self, batch: RayBatch, work: Work, g: Gradients) -> list[Launch]:
        """Record sums over each ray's samples of the colour input's gradients."""
        wanted = [(N_GEOMETRY + N_DIRECTION, self.settings.n_latent_dims, g.latents)]
        if self.settings.ray_gradients:
            wanted.append((N_GEOMETRY, N_DIRECTION, g.harmonics))
        launches = []
        for row, n, out in wanted:
            args = [batch.count, work.kept.n, work.kept.end, g.color_input, work.n_color_rows]
            n_items = self._lanes(batch.capacity) if n else 0
            launches += self._record(packed.ray_sum_kernel, n_items, [*args, row, n, out])
        return launches

    def _ray_stages(self, batch: RayBatch, work: Work, g: Gradients) -> Stages:
        """Record the gradients of origins and directions."""
        n, kept = batch.capacity, work.kept
        d_positions, d_direction = self._floats(work.samples.capacity * 3), self._floats(n * 3)
        rows = self.encoding.n_outputs
        place = self.encoding.input_gradient(
            kept.positions, g.features, self.table.read, d_positions, rows
        )
        first, *rest = in_order(place)
        args = [batch.direction, self._norms, _N_BANDS, g.harmonics, d_direction]
        turn = self._record(harmonics.harmonics_gradient_kernel, n, args)
        args = [batch.count, kept.n, kept.end, kept.distance, d_positions, d_direction]
        args += [batch.d_origin, batch.d_direction]
        last = self._record(packed.ray_gradient_kernel, self._lanes(n), args)
        return [[first, *turn], *([p] for p in rest), last]

    def _latent_stages(self, batch: RayBatch, g: Gradients) -> Stages:
        """Record the gradients of the views' latent vectors."""
        if self.latents is None:
            return []
        n, unit = self.settings.n_latent_dims, wp.float64(FIXED_POINT)
        sums = wp.zeros(self.latents.gradient.size, dtype=wp.int64, device=self.device)
        args = [batch.count, batch.view, g.latents, n, unit, sums]
        # one shard on a CPU, where atomics of two shards would lose sums
        add = self._record(packed.latent_sum_kernel, batch.capacity * n, args, shards=1)
        args = [unit, sums, self.latents.gradient]
        return [add, self._record(packed.latent_gradient_kernel, sums.size, args)]
