"""Views of a radiance field: their rays and pictures are made on the field's device.

Kernels: ngp_warp/kernels/view_rays.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import warp as wp

from ngp_warp import launch, loading
from ngp_warp.errors import ShapeError
from ngp_warp.kernels import view_rays as kernels
from ngp_warp.launch import Stages
from ngp_warp.radiance.batch import RayBatch
from ngp_warp.radiance.transfers import make_transfers, with_room
from ngp_warp.rays.lenses import Lens, lens_table
from ngp_warp.recording import recorded_step

# Rows of a strip: on a CPU neighbouring rays share its caches, on CUDA 8 x 4 pixels are a warp.
_STRIP = {"cpu": 64, "cuda": 8}
# many, as the rays that count are the first ones of the batch, often a part of it
_SHARDS = 16
MAX_SAMPLES = 4096
"""Samples of a pixel."""


class Surroundings(Protocol):
    """What lies behind a field, by direction."""

    def lookup(self, directions: wp.array, colors: wp.array) -> launch.Launch:
        """Record the colours, flat [n * 3], in directions of the box, flat [n * 3]."""
        ...


@dataclass(frozen=True, kw_only=True)
class FieldView:
    """From where a field is seen, and before what."""

    pose: np.ndarray
    """float64 [3, 4]: camera to box, OpenGL's camera axes."""
    lens: Lens
    """Of the picture's own size."""
    latent: int | None = None
    """View whose latent vector is used; None: zeros."""
    begin: float = 0.0
    """Distance at which rays begin, beyond the settings' own."""
    unit: float = 1.0
    """Units of the picture's depth in a side of the box."""
    color: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Behind the field, where there are no surroundings."""

    def values(self) -> np.ndarray:
        """Return what the kernels read, float32 [N_VIEW]."""
        lens, pose = lens_table([self.lens])[0], np.ravel(self.pose)
        return np.concatenate([lens, pose, [self.begin, self.unit], self.color]).astype(np.float32)


@dataclass(frozen=True)
class Viewed:
    """Pixels of a view; arrays of a pass, which the next one fills again."""

    color: np.ndarray
    """float32 [..., 3], over what is behind; 0 where the lens has no ray."""
    opacity: np.ndarray
    """float32 [...]."""
    depth: np.ndarray
    """float32 [...]: expected, along the optical axis, in the view's unit; infinite where nothing
    is hit."""


class ViewRenderer:
    """Renders views in passes of one graph each, which the host waits for once.

    Args:
        batch: rays of a pass.
        stages: from its rays to their colours, opacities, depths and numbers of samples.
        surroundings: what is behind; None: the view's colour.
        staging: see ``make_transfers``.
        record: how a pass becomes a function.
    """

    def __init__(
        self,
        batch: RayBatch,
        stages: Stages,
        surroundings: Surroundings | None = None,
        staging: bool = False,
        record: Callable[[Stages, str], Callable[[], None]] = recorded_step,
    ):
        self.batch, device, n = batch, batch.device, batch.capacity
        self._strip = _STRIP[device.partition(":")[0]]

        def zeros(size: int, dtype: type) -> wp.array:
            return wp.zeros(size, dtype=dtype, device=device)

        self._in = {"view": zeros(kernels.N_VIEW, wp.float32)}
        self._in |= {"window": zeros(kernels.N_WINDOW, wp.int32), "listed": zeros(n * 2, wp.int32)}
        self._in["offsets"] = zeros(MAX_SAMPLES * 2, wp.float32)
        self._out = {"color": zeros(n * 3, wp.float32), "opacity": zeros(n, wp.float32)}
        self._out["depth"] = zeros(n, wp.float32)
        arrays = {**self._in, **self._out, "n_samples": batch.n_samples}
        self._transfers = make_transfers(arrays, device, staging)
        with loading.together(launch.num_threads()):
            own = self._stages(surroundings)
        self._pass = record([*own[:-1], *stages, own[-1]], device)

    def _stages(self, surroundings: Surroundings | None) -> Stages:
        """Record the rays, what is behind them, and the picture."""
        b, device = self.batch, self.batch.device
        args = [*self._in.values(), b.count, b.origin, b.direction, b.weight, b.background]
        rays = launch.record(kernels.ray_kernel, b.capacity, args, device, shards=_SHARDS)
        args = [self._in["view"], self._in["window"], b.count, b.direction, b.weight, b.n_samples]
        args += [b.color, b.opacity, b.depth, *self._out.values()]
        picture = launch.record(kernels.picture_kernel, b.capacity, args, device, shards=_SHARDS)
        behind = [] if surroundings is None else [[surroundings.lookup(b.direction, b.background)]]
        return [[rays], *behind, [picture]]

    def window(self, view: FieldView, left: int, top: int, columns: int, rows: int) -> Viewed:
        """Return a part of a picture, [rows, columns], one ray through the middle of a pixel.

        Raises:
            ShapeError: more pixels than a pass has rays.
        """
        n = columns * rows
        if not 0 < n <= self.batch.capacity:
            raise ShapeError(
                f"a window must have 1 to {self.batch.capacity} pixels, got {columns}x{rows}"
            )
        self._begin(view)
        first, found = 0, {}
        while first < n:
            found = self._run([first, left, top, columns, rows, self._strip, 0], n - first, n)
            first += with_room(found["n_samples"][: n - first])
        color = found["color"].reshape(rows, columns, 3)
        return Viewed(color, *(found[k].reshape(rows, columns) for k in ("opacity", "depth")))

    def samples(self, view: FieldView, pixels: np.ndarray, offsets: np.ndarray) -> Viewed:
        """Return samples of pixels, [n_pixels, n_samples]; the arrays are the caller's.

        Args:
            view: where from.
            pixels: int [n_pixels, 2], columns and rows.
            offsets: [n_samples, 2], places in a pixel, from its top left corner.

        Raises:
            ShapeError: more than MAX_SAMPLES samples.
        """
        n_pixels, spp = len(pixels), len(offsets)
        if not 0 < spp <= MAX_SAMPLES:
            raise ShapeError(f"a pixel must have 1 to {MAX_SAMPLES} samples, got {spp}")
        sizes = {"color": 3, "opacity": 1, "depth": 1}
        made = {k: np.zeros(n_pixels * spp * size, np.float32) for k, size in sizes.items()}
        self._begin(view)
        self._transfers.put("offsets", np.ravel(offsets).astype(np.float32))
        at_once = max(self.batch.capacity // spp, 1)
        for begin in range(0, n_pixels, at_once):
            part = pixels[begin : begin + at_once]
            self._transfers.put("listed", np.ravel(part).astype(np.int32))
            first, end = 0, len(part) * spp
            while first < end:
                n = min(end - first, self.batch.capacity)
                found = self._run([first, 0, 0, 0, 0, 0, spp], n, n)
                done, to = with_room(found["n_samples"]), begin * spp + first
                for name, size in sizes.items():
                    made[name][to * size : (to + done) * size] = found[name][: done * size]
                first += done
        shaped = {k: v.reshape(n_pixels, spp, sizes[k]) for k, v in made.items()}
        return Viewed(shaped["color"], shaped["opacity"][..., 0], shaped["depth"][..., 0])

    def _begin(self, view: FieldView) -> None:
        self._transfers.put("view", view.values())
        self.batch.view.fill_(-1 if view.latent is None else view.latent)

    def _run(self, window: list[int], n_rays: int, n_pixels: int) -> dict[str, np.ndarray]:
        self._transfers.put("window", np.array(window, np.int32))
        self.batch.count.fill_(n_rays)
        self._pass()
        sizes = {"color": n_pixels * 3, "opacity": n_pixels, "depth": n_pixels}
        return self._transfers.get({**sizes, "n_samples": n_rays})
