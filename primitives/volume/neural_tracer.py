"""Pictures of a learned medium: rays tracked from one possible collision to the next."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ConfigError
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.tiles import check_memory, tiles
from ngp_warp.primitives.volume.kernels import events as kernels
from ngp_warp.primitives.volume.light import Light
from ngp_warp.primitives.volume.path_tracer import MAX_SPP, Picture, make_view
from ngp_warp.primitives.volume.radiance_field import N_OUTPUTS, RadianceField
from ngp_warp.primitives.volume.transport import check_seed, mean_and_error
from ngp_warp.rays.active import ActiveRays
from ngp_warp.rays.cameras import Camera

_EVENTS = 4
"""Possible collisions of a ray between two evaluations of the field."""
# Slots of a pass: their features lie in the caches of a few CPU cores; a GPU wants many.
_CPU_SLOTS, _CUDA_SLOTS = 2**12, 2**17
_CPU_RAYS, _CUDA_RAYS = 2**16, 2**20
_STEPS_PER_PASS = 2


@dataclass
class _Pass:
    """The steps of the rays in a number of slots."""

    stages: list[list[launch.Launch]]

    def run(self) -> None:
        for _ in range(_STEPS_PER_PASS):
            launch.run_stages(self.stages)


class NeuralTracer:
    """Makes one picture of a radiance field, better with every sample, as ``PathTracer`` does.

    Args:
        field: what is looked at.
        light: the sky behind it; the field holds the light that it was trained under.
        camera: in world coordinates.
        seed: of the random numbers.
        sky: whether what escapes shows the sky, or black.

    Raises:
        ConfigError: a seed out of its range.
        ResourceError: a picture that does not fit in memory.
    """

    def __init__(
        self,
        field: RadianceField,
        light: Light,
        camera: Camera,
        *,
        seed: int = 0,
        sky: bool = True,
    ):
        check_seed(seed)
        check_memory(camera)
        self.field, self.camera, self.spp = field, camera, 0
        self.device = field.device
        self._light, self._sky, self._seed = light.data(), int(sky), seed
        self._view = make_view(field.to_grid, camera)
        on_cpu = self.device == "cpu"
        self._flights = _make_flights(_CPU_RAYS if on_cpu else _CUDA_RAYS, self.device)
        slots = _CPU_SLOTS if on_cpu else _CUDA_SLOTS
        self._rays = ActiveRays(self._flights.status, slots, self.device)
        self._passes: dict[int, _Pass] = {}
        shape = (camera.height, camera.width, 3)
        self._sums, self._squares = np.zeros(shape), np.zeros(shape)
        self._opacity = np.zeros(shape[:2])

    def add(self, spp: int, *, progress: Report = report_nothing) -> None:
        """Add samples to every pixel, one ray each from a random point of the pixel.

        Args:
            spp: how many.
            progress: told of the samples done.

        Raises:
            ConfigError: less than 1, or more than ``MAX_SPP`` in all.
        """
        if not 1 <= spp <= MAX_SPP - self.spp:
            raise ConfigError(f"spp must be from 1 to {MAX_SPP} in all, got {spp + self.spp}")
        parts = tiles(self.camera, 1, self._rays.capacity)
        for done in range(1, spp + 1):
            for tile in parts:
                self._trace(*tile.select(None), self.spp)
            self.spp += 1
            progress(Progress(stage="write", step=done, total=spp))

    def picture(self) -> Picture:
        """Return the picture.

        Raises:
            ConfigError: there are no samples yet.
        """
        if not self.spp:
            raise ConfigError("a picture needs samples: call add first")
        mean, error = mean_and_error(self._sums, self._squares, self.spp)
        return Picture(
            color=mean.astype(np.float32),
            error=error.astype(np.float32),
            opacity=(self._opacity / self.spp).astype(np.float32),
            spp=self.spp,
            cut=0.0,
        )

    def _trace(self, rows: np.ndarray, columns: np.ndarray, sample: int) -> None:
        """Add one sample of some pixels."""
        pixels = (rows * self.camera.width + columns).astype(np.int32)
        flights, n, device = self._flights, len(pixels), self.device
        chosen = wp.array(pixels, dtype=int, device=device)
        args = [self.field.cloud, self._view, chosen, self._seed, sample, flights]
        launch.launch(kernels.start_kernel, n, args, device)
        self._rays.run(n, lambda slots: self._pass(slots).run())
        launch.launch(kernels.finish_kernel, n, [self._light, self._sky, flights], device)
        light = flights.light[:n].numpy().astype(np.float64)
        self._sums[rows, columns] += light
        self._squares[rows, columns] += light**2
        self._opacity[rows, columns] += 1.0 - flights.left[:n].numpy()

    def _pass(self, slots: int) -> _Pass:
        if slots not in self._passes:
            self._passes[slots] = self._record(slots)
        return self._passes[slots]

    def _record(self, slots: int) -> _Pass:
        field, device = self.field, self.device
        n_points = slots * _EVENTS
        x, y = field.zeros(n_points, 3), field.zeros(n_points, N_OUTPUTS)
        majorants = wp.zeros(n_points, dtype=wp.float32, device=device)
        taken = [self._rays.span, self._rays.active]
        args = [*taken, field.cloud, float(field.frame.side), self._flights, x, majorants]
        events = launch.record(kernels.event_kernel(_EVENTS), slots, args, device)
        args = [*taken, majorants, y, field.density_gain, self._flights]
        composite = launch.record(kernels.composite_kernel(_EVENTS), slots, args, device)
        return _Pass([[events], *field.evaluation_stages(x, y), [composite]])


def _make_flights(n: int, device: str) -> Any:
    flights: Any = kernels.Flights()
    for name in ("view", "origin", "direction", "light"):
        setattr(flights, name, wp.zeros(n, dtype=wp.vec3, device=device))
    flights.block = wp.zeros(n, dtype=wp.vec3i, device=device)
    for name in ("t", "depth", "left"):
        setattr(flights, name, wp.zeros(n, dtype=float, device=device))
    flights.key = wp.zeros(n, dtype=wp.uint32, device=device)
    for name in ("draws", "status"):
        setattr(flights, name, wp.zeros(n, dtype=int, device=device))
    return flights
