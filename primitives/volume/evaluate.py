"""How good fitted values are, over every voxel, and the pictures that show it."""

from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.compact import stored_bytes
from ngp_warp.field import Field
from ngp_warp.files import atomic_path
from ngp_warp.primitive import Progress, Report
from ngp_warp.primitives.pictures import make_figure, save_png, write_learning_curve
from ngp_warp.primitives.volume.config import VolumeConfig
from ngp_warp.primitives.volume.describe import Described
from ngp_warp.primitives.volume.grid import Volume, magnitudes, world_cube
from ngp_warp.primitives.volume.looks import DEFAULT_CAMERA, default_look, shown, side_by_side
from ngp_warp.primitives.volume.metrics import measure
from ngp_warp.primitives.volume.slices import compare_slices
from ngp_warp.primitives.volume.subject import decode
from ngp_warp.primitives.volume.transfer import dense_bytes
from ngp_warp.rays.cameras import parse_camera

_SIDE = 400
_SPP = 16


def evaluate_field(field: Field, volume: Volume, report: Report) -> tuple[dict[str, Any], Any]:
    """Return the metrics, and the decoded values."""
    decoded = decode(field, Described.of_volume(volume), report, "evaluate")
    n_bytes, dense = stored_bytes(field), dense_bytes(volume)
    metrics = {
        **measure(decoded, volume),
        "shape": list(volume.values.shape[:3]),
        "channels": volume.n_channels,
        "grid": volume.name,
        "bytes": n_bytes,
        "dense_bytes": dense,
        "compression_ratio": round(dense / n_bytes, 3),
    }
    return metrics, decoded


def evaluate(
    field: Field,
    volume: Volume,
    config: VolumeConfig,
    run: Path,
    curve: np.ndarray,
    report: Report,
) -> dict[str, Any]:
    """Measure fitted values and write the pictures to run/renders; return the metrics."""
    metrics, decoded = evaluate_field(field, volume, report)
    report(Progress(stage="write", message="drawing pictures"))
    folder, about = run / "renders", Described.of_volume(volume)
    at = (volume.to_world, volume.first)
    up = config.up or "y"
    slices = compare_slices(volume.values, decoded, *at, level_set=about.is_level_set, up=up)
    save_png(folder / "slices.png", slices)
    look = default_look(volume.n_channels, volume.grid_class, volume.format)
    camera = parse_camera(DEFAULT_CAMERA, up=up, width=_SIDE, height=_SIDE)
    camera = camera.moved(*world_cube(volume.values.shape, *at))
    views = [
        shown(
            look,
            values,
            about,
            camera,
            light=config.light,
            albedo=config.albedo,
            density_scale=config.density_scale,
            spp=_SPP if look == "shaded" else 4,
            device=field.device,
        )
        for values in (volume.values, decoded)
    ]
    save_png(folder / "target.png", views[0])
    save_png(folder / "result.png", views[1])
    save_png(folder / "comparison.png", side_by_side([views]))
    _write_error(folder / "error.png", magnitudes(decoded - volume.values), metrics)
    write_learning_curve(
        folder / "learning_curve.png",
        curve,
        "PSNR in dB",
        "each batch, before its update",
        (metrics["psnr"], "all voxels, at the end"),
    )
    return metrics


def _write_error(path: Path, error: np.ndarray, metrics: dict[str, Any]) -> None:
    """Draw the largest error along each axis."""
    error = np.abs(error)
    top = max(float(np.percentile(error.max(axis=0), 99.5)), 1e-12)
    figure = make_figure(13.0, 5.0)
    image = None
    for axis, (name, right, up) in enumerate((("x", "y", "z"), ("y", "x", "z"), ("z", "x", "y"))):
        axes = figure.add_subplot(1, 3, axis + 1)
        image = axes.imshow(
            error.max(axis=axis).T,
            cmap="inferno",
            vmin=0,
            vmax=top,
            origin="lower",
            interpolation="nearest",
        )
        axes.set(title=f"along {name}", xlabel=right, ylabel=up)
    figure.suptitle(f"largest absolute error ({metrics['psnr']:.2f} dB over all voxels)")
    figure.colorbar(image, ax=figure.axes, shrink=0.8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
