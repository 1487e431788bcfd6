"""Passes of the original NeRF's networks over slices of rays, short enough for the caches."""

from dataclasses import dataclass
from typing import Any

import warp as wp

from ngp_warp import launch
from ngp_warp.kernels import hierarchical, rows
from ngp_warp.kernels import hierarchical_composite as composite
from ngp_warp.radiance.batch import RayBatch
from ngp_warp.radiance.marching import part
from ngp_warp.radiance.vanilla_network import DENSITY_SCALE, VanillaNetwork


def _parts(network: VanillaNetwork, flat: wp.array) -> tuple[wp.array, wp.array]:
    """Return the trunk's and the head's parts of a flat array."""
    n = network.trunk.n_params
    return part(flat, 0, n), part(flat, n, n + network.head.n_params)


class Pass:
    """Arrays of a network over ``n_samples`` samples of each of ``n_rays`` rays, and its launches.

    Args:
        network: what is passed through.
        w: its parameters.
        dw: gradients; None: no training.
        n_rays: of the slice.
        n_samples: of a ray; sample s of ray i is point i * n_samples + s.
    """

    def __init__(
        self,
        network: VanillaNetwork,
        w: wp.array,
        dw: wp.array | None,
        n_rays: int,
        n_samples: int,
    ):
        self.network, self.n_rays, self.n_samples = network, n_rays, n_samples
        self.device = network.device
        self.n_points = n_rays * n_samples
        self.n_blocks = -(-self.n_points // 32)
        self.ray_blocks = -(-n_rays // 32)
        self._w = _parts(network, w)
        # zeros: the padding is read, and its gradients are added up
        self.t, self.weights, self.after = (self._zeros(self.n_points) for _ in range(3))
        self.x = self._rows(3)
        trunk, head = network.trunk, network.head
        self._trunk_x, self.trunk_y = self._rows(trunk.n_in), self._rows(trunk.n_out)
        self._head_x, self.rgb = self._rows(head.n_in), self._rows(head.n_out)
        self.directions = self._zeros(self.ray_blocks * 3 * 32)
        self._encoded = self._zeros(self.ray_blocks * network.directions.n_outputs * 32)
        self._trains = dw is not None
        if dw is not None:
            self._dw = _parts(network, dw)
            self.d_trunk_y, self.d_rgb = self._rows(trunk.n_out), self._rows(head.n_out)
            self._d_head_x = self._rows(head.n_in)
            self._kept = trunk.make_pass(self.n_blocks), head.make_pass(self.n_blocks)

    def _zeros(self, size: int) -> wp.array:
        return wp.zeros(size, dtype=wp.float32, device=self.device)

    def _rows(self, n: int) -> wp.array:
        return self._zeros(self.n_blocks * n * 32)

    def forward(self) -> list[launch.Launch]:
        """Record rgb and trunk_y (row 0: the raw density) of x and the rays' directions."""
        n, w = self.network, self._w
        items = [n.positions.forward(self.x, self._trunk_x)]
        if self._trains:
            items += n.trunk.forward_pass(w[0], self._trunk_x, self.trunk_y, self._kept[0])
        else:
            items += n.trunk.forward(w[0], self._trunk_x, self.trunk_y)
        items += [n.directions.forward(self.directions, self._encoded), *self._join()]
        if self._trains:
            return items + n.head.forward_pass(w[1], self._head_x, self.rgb, self._kept[1])
        return items + n.head.forward(w[1], self._head_x, self.rgb)

    def _join(self) -> list[launch.Launch]:
        """Record the head's inputs: the trunk's features, the rays' encoded directions."""
        n = self.network
        args = [self._encoded, n.directions.n_outputs, self.n_samples, n.head.n_in, n.n_features]
        spread = launch.record(rows.spread_rows, self.n_points, [*args, self._head_x], self.device)
        return [self._copy(self.trunk_y, 1, self._head_x, 0), spread]

    def _copy(self, source: wp.array, first: int, target: wp.array, to: int) -> launch.Launch:
        """Record a copy of the features' rows."""
        n = self.network.n_features
        per_row = self.n_blocks * 32
        args = [source, source.size // per_row, first, n, target.size // per_row, to, target]
        n_items = rows.copy_items(self.n_blocks, n, self.device)
        return launch.record(rows.copy_rows_kernel(), n_items, args, self.device)

    def backward(self, *, accumulate: bool) -> list[launch.Launch]:
        """Record the gradients of the parameters from d_rgb and d_trunk_y (row 0)."""
        n, w, dw = self.network, self._w, self._dw
        head, trunk = self._kept[1], self._kept[0]
        return [
            *n.head.backward_pass(
                w[1], self._head_x, self.rgb, self.d_rgb, self._d_head_x, dw[1], head,
                accumulate=accumulate,
            ),
            self._copy(self._d_head_x, 0, self.d_trunk_y, 1),
            *n.trunk.backward_pass(
                w[0], self._trunk_x, self.trunk_y, self.d_trunk_y, None, dw[0], trunk,
                accumulate=accumulate,
            ),
        ]  # fmt: skip

    def place(
        self, first_ray: int, count: wp.array, origin: wp.array, direction: wp.array
    ) -> list[launch.Launch]:
        """Record x and the directions of the slice's rays from t."""
        args = [first_ray, count, origin, direction, self.t, self.n_samples, self.x]
        kernel = hierarchical.sample_positions
        place = launch.record(kernel, self.n_points, args, self.device)
        args = [first_ray, count, direction, self.directions]
        return [place, launch.record(hierarchical.ray_directions, self.n_rays, args, self.device)]


@dataclass(frozen=True)
class Draw:
    """Where samples lie in their strata, and quantiles in theirs."""

    training: bool
    """At random; else at the rays' jitter."""
    seed: int
    step: wp.array
    """int64 [1]"""


class Slice:
    """Both levels over the rays of a slice of a batch, one slice after another.

    Args:
        network: of both levels.
        w: the coarse network's parameters, then the fine one's.
        dw: gradients, likewise; None: no training.
        n_rays: of a slice.
        draw: where the samples lie.
    """

    def __init__(
        self,
        network: VanillaNetwork,
        w: wp.array,
        dw: wp.array | None,
        n_rays: int,
        draw: Draw,
    ):
        s, n = network.settings, network.n_params
        self.network, self.settings, self.n_rays, self.draw = network, s, n_rays, draw
        self.device = network.device

        def level(i: int, n_samples: int) -> Pass:
            gradient = None if dw is None else part(dw, i * n, (i + 1) * n)
            return Pass(network, part(w, i * n, (i + 1) * n), gradient, n_rays, n_samples)

        self.levels = level(0, s.n_coarse), level(1, s.n_samples)
        self.segment = wp.zeros(n_rays * 2, dtype=wp.float32, device=self.device)

    def stages(self, batch: RayBatch, near: float) -> list[list[launch.Launch]]:
        """Record all slices of a batch: colours, and with training the parameters' gradients.

        The networks' launches are the same for every slice, but for adding to the gradients.
        """
        forward = [level.forward() for level in self.levels]
        backward: dict[bool, list[list[launch.Launch]]] = {}
        if self.draw.training:
            for added in (False, True):
                backward[added] = [level.backward(accumulate=added) for level in self.levels]
        items: list[launch.Launch] = []
        for first in range(0, batch.capacity, self.n_rays):
            for i in range(2):
                items += [*self._sample(batch, first, i, near), *forward[i]]
                items.append(self._composite(batch, first, i))
                if self.draw.training:
                    items += [self._gradient(batch, first, i), *backward[first > 0][i]]
        return [[item] for item in items]

    def _sample(self, batch: RayBatch, first: int, i: int, near: float) -> list[launch.Launch]:
        """Record the places of a level's samples: stratified (i = 0), or by the coarse weights."""
        s, (coarse, fine) = self.settings, self.levels
        draw = [int(self.draw.training), self.draw.seed, self.draw.step]
        rays = [batch.origin, batch.direction]
        if i == 0:
            args = [first, batch.count, *rays, batch.jitter, near, s.n_coarse]
            args += [*draw, self.segment, coarse.t]
            kernel = hierarchical.stratified_samples
        else:
            args = [first, batch.count, batch.jitter, self.segment, coarse.t, coarse.weights]
            args += [s.n_coarse, s.n_fine, *draw, fine.t]
            kernel = hierarchical.resample
        sample = launch.record(kernel, self.n_rays, args, self.device)
        return [sample, *self.levels[i].place(first, batch.count, *rays)]

    def _quadrature(self, batch: RayBatch, first: int, level: Pass) -> list[Any]:
        """Return the first arguments of both compositing kernels."""
        scale = DENSITY_SCALE * self.settings.aabb_scale
        args = [first, batch.count, self.segment, level.t, level.n_samples]
        args += [level.trunk_y, self.network.trunk.n_out]
        return [*args, level.rgb, scale, batch.background]

    def _composite(self, batch: RayBatch, first: int, i: int) -> launch.Launch:
        """Record the colours, which those of the fine network overwrite, and the weights."""
        level = self.levels[i]
        args = [*self._quadrature(batch, first, level), self.settings.n_evaluations]
        args += [level.weights, level.after, batch.color, batch.opacity, batch.depth]
        kernel = composite.composite_kernel(self.settings.density_activation)
        return launch.record(kernel, self.n_rays, [*args, batch.n_samples], self.device)

    def _gradient(self, batch: RayBatch, first: int, i: int) -> launch.Launch:
        """Record the loss, to which that of the fine network is added, and its gradients."""
        level = self.levels[i]
        args = [*self._quadrature(batch, first, level), level.weights, level.after]
        args += [batch.color, batch.target, batch.weight, i, batch.loss]
        args += [level.d_trunk_y, level.d_rgb]
        kernel = composite.composite_gradient_kernel(self.settings.density_activation)
        return launch.record(kernel, self.n_rays, args, self.device)
