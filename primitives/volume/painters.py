"""Pictures of light and pictures of values, written to files."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.config import check_range
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.pictures import save_png, write_exr
from ngp_warp.primitives.volume.grid import magnitudes, no_surface
from ngp_warp.primitives.volume.looks import DEFAULT_TRANSFER, display
from ngp_warp.primitives.volume.path_tracer import Picture
from ngp_warp.primitives.volume.projection import Kind, project
from ngp_warp.primitives.volume.subject import Subject
from ngp_warp.primitives.volume.transfer_function import TransferFunction
from ngp_warp.rays.cameras import Camera

TRACED_SPP, FILM_SPP, PROJECTED_SPP = 64, 16, 4
_SECONDS_BETWEEN = 2.0
"""Between two writes of a progressive picture."""
_FIRST_SPP = 4


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for, beside size and place."""

    spp: int | None
    level: float | None
    transfer: str | None
    window: tuple[float, float] | None
    background: str | None
    exposure: float
    progressive: bool


def frames_of(
    maker: Any, cameras: list[Camera], spp: int, progress: Report
) -> Iterator[np.ndarray]:
    """Yield the pictures of a film, uint8 [h, w, 3]; ``maker``: one of the two below."""
    for index, camera in enumerate(cameras):
        yield maker.pixels(camera, spp)
        progress(Progress(stage="write", step=index + 1, total=len(cameras)))


class Traced:
    """Pictures of light.

    Args:
        tracer: camera -> a ``PathTracer`` or a ``NeuralTracer``.
        options: what was asked for.
    """

    def __init__(self, tracer: Callable[[Camera], Any], options: Options):
        self._tracer, self._options = tracer, options
        self._transparent = options.background == "transparent"

    def pixels(self, camera: Camera, spp: int) -> np.ndarray:
        """Return a picture, uint8 [h, w, 3]."""
        tracer = self._tracer(camera)
        tracer.add(spp)
        return display(tracer.picture(), self._options.exposure)

    def write(self, output: Path, camera: Camera, progress: Report) -> None:
        """Write a picture; a progressive one as often as it has become better."""
        tracer = self._tracer(camera)
        total = TRACED_SPP if self._options.spp is None else self._options.spp
        written = time.monotonic()
        step = min(_FIRST_SPP, total) if self._options.progressive else total

        def done(update: Progress) -> None:
            if not self._options.progressive:
                progress(update)

        while tracer.spp < total:
            tracer.add(min(step, total - tracer.spp), progress=done)
            if self._options.progressive:
                progress(Progress(stage="write", step=tracer.spp, total=total))
                if time.monotonic() - written >= _SECONDS_BETWEEN or tracer.spp == step:
                    self._save(output, tracer.picture())
                    written = time.monotonic()
        self._save(output, tracer.picture())

    def _save(self, output: Path, picture: Picture) -> None:
        exposure = self._options.exposure
        if output.suffix.lower() == ".exr":
            light = picture.color * np.float32(exposure)
            channels = {name: light[..., c] for c, name in enumerate("RGB")}
            write_exr(output, channels | ({"A": picture.opacity} if self._transparent else {}))
        else:
            save_png(output, display(picture, exposure, transparent=self._transparent))


class Projected:
    """Pictures of values."""

    def __init__(self, subject: Subject, kind: Kind, options: Options, progress: Report):
        self._about, self._options = subject.about, options
        self._values = magnitudes(subject.values(progress))
        self._kind: Kind = kind
        self._device = subject.field.device
        if kind == "surface" and options.level is not None:
            self._check_level(options.level)
        self._transfer = None
        if kind == "transfer":
            low, high = self._about.transfer.low, self._about.transfer.high
            if self._about.n_channels > 1:
                low, high = self._range()
                high = high if high > low else low + 1  # all alike
            self._transfer = TransferFunction.parse(options.transfer or DEFAULT_TRANSFER, low, high)
        colors = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "transparent": None}
        self._background = colors[options.background or "white"]

    def _check_level(self, level: float) -> None:
        """Raise DataError where a surface would be missing, or the box itself."""
        check_range("level", level, -math.inf)
        low, high = self._range()
        if not low <= level <= high:
            raise no_surface(level, low, high)

    def _range(self) -> tuple[float, float]:
        return float(self._values.min()), float(self._values.max())

    def _project(self, camera: Camera, spp: int, progress: Report = report_nothing) -> Any:
        frame = self._about.frame
        return project(
            self._values,
            frame.to_world,
            frame.first,
            camera,
            kind=self._kind,
            level=self._options.level,
            below=self._about.is_level_set,
            transfer=self._transfer,
            window=self._options.window,
            spp=spp,
            background=self._background,
            device=self._device,
            progress=progress,
        )

    def pixels(self, camera: Camera, spp: int) -> np.ndarray:
        """Return a picture, uint8 [h, w, 3]."""
        return np.rint(self._project(camera, spp).color * 255).astype(np.uint8)

    def write(self, output: Path, camera: Camera, progress: Report) -> None:
        """Write a picture."""
        spp = PROJECTED_SPP if self._options.spp is None else self._options.spp
        made = self._project(camera, spp, progress)
        pixels = made.color
        if self._background is None:
            pixels = np.concatenate([pixels, made.opacity[..., None]], axis=2)
        save_png(output, np.rint(pixels * 255).astype(np.uint8))
