"""How good a learned medium looks, against path-traced pictures of the original."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.compact import stored_bytes
from ngp_warp.files import atomic_path
from ngp_warp.primitive import Progress, Report
from ngp_warp.primitives.pictures import make_figure, save_png, write_learning_curve
from ngp_warp.primitives.volume.config import VolumeConfig
from ngp_warp.primitives.volume.looks import display, side_by_side
from ngp_warp.primitives.volume.medium import Medium
from ngp_warp.primitives.volume.neural_tracer import NeuralTracer
from ngp_warp.primitives.volume.path_tracer import PathTracer
from ngp_warp.primitives.volume.radiance_field import RadianceField
from ngp_warp.primitives.volume.radiance_task import LOOK_SAMPLES
from ngp_warp.rays.cameras import Camera, Up, orbit

AZIMUTHS = (30.0, 150.0, 270.0)
_ELEVATION, _DISTANCE, _SIDE = 20.0, 1.8, 200
REFERENCE_SPP, SPP = 128, 64
"""Samples a pixel of each half of the reference, and of the learned picture."""
_SILHOUETTE = 0.01
"""Opacity of the reference from which on a pixel counts."""


def views(medium: Medium, up: Up) -> list[Camera]:
    """Return the cameras of the comparison, in the world."""
    return [
        orbit(azimuth, _ELEVATION, _DISTANCE, up=up, width=_SIDE, height=_SIDE).moved(*medium.cube)
        for azimuth in AZIMUTHS
    ]


class _View:
    """Reference and result of one camera.

    Args:
        field: what was learned.
        medium: the original.
        config: resolved.
        camera: in the world.
        seed: of the random numbers; the reference takes two others.
    """

    def __init__(
        self, field: RadianceField, medium: Medium, config: VolumeConfig, camera: Camera, seed: int
    ):
        halves = []
        for half in (1, 2):
            tracer = PathTracer(medium, config.light, camera, seed=seed + half)
            tracer.add(REFERENCE_SPP)
            halves.append(tracer.picture())
        tracer = NeuralTracer(field, config.light, camera, seed=seed)
        tracer.add(SPP)
        made = tracer.picture()
        opacity = (halves[0].opacity + halves[1].opacity) / 2
        self.inside = opacity > _SILHOUETTE
        pictures = [display(half).astype(np.float64) for half in halves]
        self.reference = (pictures[0] + pictures[1]) / 2
        self.result = display(made).astype(np.float64)
        # of the mean of two independent halves, which differ by twice its deviation
        self.noise = np.square(pictures[0] - pictures[1]) / 4
        self.error = np.square(self.result - self.reference)
        self.opacity_error = float(np.abs(made.opacity - opacity).mean())


def _psnr(squares: list[np.ndarray]) -> float | None:
    """Return the PSNR of squared errors; None where nothing is inside the silhouette."""
    errors = np.concatenate([part.reshape(-1) for part in squares])
    if not errors.size:
        return None
    mean = float(errors.mean())
    return round(-10 * math.log10(max(mean / 255**2, 1e-12)), 3)


def measure(
    field: RadianceField, medium: Medium, config: VolumeConfig, report: Report
) -> tuple[dict[str, Any], list[_View]]:
    """Draw three views of the original and of what was learned under the same light.

    Returns:
        The metrics: psnr of 8-bit sRGB inside the silhouette, that of each view, and psnr_noise,
        that of the reference's own noise: what no result can exceed; and the views.
    """
    seen = []
    cameras = views(medium, config.up or "y")
    for number, camera in enumerate(cameras):
        report(Progress(stage="evaluate", step=number, total=len(cameras)))
        # a seed far from the training's, and from those of other views
        seen.append(_View(field, medium, config, camera, 1_000_003 + 10 * number))
    report(Progress(stage="evaluate", step=len(cameras), total=len(cameras)))
    return {
        "psnr": _psnr([view.error[view.inside] for view in seen]),
        "psnr_of": "three views inside the silhouette, 8 bits of sRGB, against path tracing",
        "psnr_views": [_psnr([view.error[view.inside]]) for view in seen],
        "psnr_noise": _psnr([view.noise[view.inside] for view in seen]),
        "opacity_error": round(float(np.mean([view.opacity_error for view in seen])), 5),
        "reference_spp": 2 * REFERENCE_SPP,
        "spp": SPP,
        "density_scale": config.density_scale,
        "bytes": stored_bytes(field),
    }, seen


def evaluate(
    field: RadianceField,
    medium: Medium,
    config: VolumeConfig,
    run: Path,
    curve: np.ndarray,
    report: Report,
) -> dict[str, Any]:
    """Measure what was learned and write the pictures to run/renders; return the metrics."""
    metrics, seen = measure(field, medium, config, report)
    report(Progress(stage="write", message="drawing pictures"))
    folder = run / "renders"
    pairs = [[np.rint(p).astype(np.uint8) for p in (v.reference, v.result)] for v in seen]
    save_png(folder / "target.png", pairs[0][0])
    save_png(folder / "result.png", pairs[0][1])
    rows = [list(row) for row in zip(*pairs, strict=True)]
    save_png(folder / "comparison.png", side_by_side(rows))
    _write_error(folder / "error.png", seen, metrics)
    write_learning_curve(
        folder / "learning_curve.png",
        curve,
        "PSNR of radiances in dB",
        f"points of the volume, against {LOOK_SAMPLES} paths each",
        None,
    )
    return metrics


def _write_error(path: Path, seen: list[_View], metrics: dict[str, Any]) -> None:
    errors = [np.sqrt(view.error.mean(axis=2)) for view in seen]
    top = max(float(np.percentile(np.stack(errors), 99.8)), 1.0)
    figure = make_figure(13.0, 4.6)
    shown = None
    for number, (error, psnr) in enumerate(zip(errors, metrics["psnr_views"], strict=True)):
        axes = figure.add_subplot(1, len(seen), number + 1)
        shown = axes.imshow(error, cmap="inferno", vmin=0, vmax=top, interpolation="nearest")
        axes.set_axis_off()
        told = "nothing to see" if psnr is None else f"{psnr:.2f} dB"
        axes.set_title(f"azimuth {AZIMUTHS[number]:g} degrees: {told}")
    figure.suptitle("root mean square error, full scale = 255")
    figure.colorbar(shown, ax=figure.axes, shrink=0.8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
