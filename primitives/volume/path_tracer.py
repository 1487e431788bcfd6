"""Pictures of a medium under a sky and a sun, by path tracing: the reference for what is learned.

Unbiased but for the bound on scatterings (``transport.MAX_BOUNCES``). The sun is reached by next
event estimation alone, the sky by escaping paths alone; the sun's disc itself is never seen.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ConfigError
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.tiles import check_memory
from ngp_warp.primitives.volume.kernels.paths import (
    COLLIDED,
    CUT,
    EXCEEDED,
    N_COUNTS,
    View,
    pixel_kernel,
)
from ngp_warp.primitives.volume.light import Light
from ngp_warp.primitives.volume.medium import Medium
from ngp_warp.primitives.volume.transport import (
    MAX_BOUNCES,
    check_bounces,
    check_majorants,
    check_seed,
    mean_and_error,
)
from ngp_warp.rays.cameras import Camera

DEFAULT_SPP = 64
MAX_SPP = 2**24

_PASS = 8
"""Samples a pixel between two reports of progress."""


@dataclass(frozen=True)
class Picture:
    """What the samples of a picture say so far."""

    color: np.ndarray
    """float32 [h, w, 3]: radiance, linear RGB; without a sky behind it the medium's light alone
    (premultiplied by its opacity)."""
    error: np.ndarray
    """float32 [h, w, 3]: standard error of ``color``; infinite from one sample."""
    opacity: np.ndarray
    """float32 [h, w], 0 to 1: share of the samples that collided, 1 - transmittance."""
    spp: int
    """Samples of a pixel."""
    cut: float
    """Share of all paths that the bound on scatterings cut."""

    @property
    def noise(self) -> float:
        """Root mean square of ``error``: what a comparison with this picture cannot fall below."""
        return float(np.sqrt(np.mean(self.error.astype(np.float64) ** 2)))


class PathTracer:
    """Makes one picture, better with every sample: more go on where the last ended.

    Samples in one go or in several give the same picture bit for bit.

    Args:
        medium: what is looked at.
        light: the sky and the sun, whose ``up`` is a world axis.
        camera: in world coordinates (``camera.moved(*medium.cube)`` for one of the unit cube).
        seed: of the random numbers: other seeds give independent pictures.
        max_bounces: scatterings after which a path is cut.
        sky: whether what escapes without a collision shows the sky, or black.

    Raises:
        ConfigError: a number out of its range.
        ResourceError: a picture that does not fit in memory.
    """

    def __init__(
        self,
        medium: Medium,
        light: Light,
        camera: Camera,
        *,
        seed: int = 0,
        max_bounces: int = MAX_BOUNCES,
        sky: bool = True,
    ):
        check_seed(seed)
        check_bounces(max_bounces)
        check_memory(camera)
        self.medium, self.light, self.camera, self.spp = medium, light, camera, 0
        n, device = camera.width * camera.height, medium.device
        vec3d: Any = wp.vec3d
        self._sums, self._squares = (wp.zeros(n, dtype=vec3d, device=device) for _ in range(2))
        self._counts = wp.zeros((n, N_COUNTS), dtype=wp.int32, device=device)
        self._scene = [
            medium.data,
            medium.cloud,
            light.data(),
            make_view(medium.to_grid, camera),
            seed,
        ]
        self._options = [max_bounces, int(sky)]

    def add(self, spp: int = DEFAULT_SPP, *, progress: Report = report_nothing) -> None:
        """Add samples to every pixel.

        Args:
            spp: how many.
            progress: told of the samples done.

        Raises:
            ConfigError: less than 1, or more than ``MAX_SPP`` in all.
            DataError: the medium's majorants do not bound its field.
        """
        if not 1 <= spp <= MAX_SPP - self.spp:
            raise ConfigError(f"spp must be from 1 to {MAX_SPP} in all, got {spp + self.spp}")
        kernel, end = pixel_kernel(self.medium.kind), self.spp + spp
        start = self.spp
        while self.spp < end:
            n = min(_PASS, end - self.spp)
            args = [*self._scene, self.spp, n, *self._options]
            args += [self._sums, self._squares, self._counts]
            launch.launch(kernel, len(self._sums), args, self.medium.device)
            self.spp += n
            progress(Progress(stage="write", step=self.spp - start, total=spp))
        check_majorants(int(self._counts.numpy()[:, EXCEEDED].sum()))

    def picture(self) -> Picture:
        """Return the picture.

        Raises:
            ConfigError: there are no samples yet.
        """
        if not self.spp:
            raise ConfigError("a picture needs samples: call add first")
        shape = (self.camera.height, self.camera.width)
        mean, error = mean_and_error(self._sums.numpy(), self._squares.numpy(), self.spp)
        counts = self._counts.numpy()
        return Picture(
            color=mean.reshape(*shape, 3).astype(np.float32),
            error=error.reshape(*shape, 3).astype(np.float32),
            opacity=(counts[:, COLLIDED] / self.spp).reshape(shape).astype(np.float32),
            spp=self.spp,
            cut=float(counts[:, CUT].sum() / (self.spp * len(counts))),
        )


def render(
    medium: Medium,
    light: Light,
    camera: Camera,
    spp: int = DEFAULT_SPP,
    *,
    seed: int = 0,
    max_bounces: int = MAX_BOUNCES,
    sky: bool = True,
    progress: Report = report_nothing,
) -> Picture:
    """Return a picture of a medium; see ``PathTracer`` for the arguments and errors."""
    tracer = PathTracer(medium, light, camera, seed=seed, max_bounces=max_bounces, sky=sky)
    tracer.add(spp, progress=progress)
    return tracer.picture()


def make_view(to_grid: np.ndarray, camera: Camera) -> Any:
    """Return a camera in the world as kernels take it, for rays in grid coordinates [4, 4]."""
    pose, pixel = camera.camera_to_world(), camera.pixel_size
    view: Any = View()
    view.origin = (to_grid @ pose[:, 3])[:3].tolist()
    view.forward = (-pose[:3, 2]).tolist()
    view.right, view.up = (pixel * pose[:3, 0]).tolist(), (pixel * pose[:3, 1]).tolist()
    view.width, view.height = camera.width, camera.height
    return view
