"""How good a fitted mesh is, and the pictures that show it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import DataError, ResourceError
from ngp_warp.field import Field
from ngp_warp.primitive import Progress, Report
from ngp_warp.primitives.pictures import save_png, write_learning_curve
from ngp_warp.primitives.sdf.config import SdfConfig
from ngp_warp.primitives.sdf.data import SdfData
from ngp_warp.primitives.sdf.metrics import Mesh, measure
from ngp_warp.surfaces.extract import extract

RESOLUTION = 256
"""Cells along the cube's edge of the mesh that is compared with the original."""
_PICTURE_SIDE = 512


def distances(field: Field) -> Callable[[np.ndarray], np.ndarray]:
    """Return the field as a function of points [n, 3] in the unit cube to distances [n]."""
    return lambda points: field.query(points)[:, 0]


def extracted(field: Field, resolution: int, report: Report) -> Mesh:
    """Return the field's surface in the unit cube; without faces where it has none."""
    try:
        mesh = extract(distances(field), resolution, progress=report)
    except DataError as error:
        report(Progress(stage="evaluate", message=str(error)))
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
    return mesh.vertices, mesh.faces


def evaluate_field(
    field: Field, data: SdfData, config: SdfConfig, report: Report
) -> tuple[dict[str, Any], Mesh]:
    """Return the metrics, and the extracted mesh in the unit cube."""
    result = extracted(field, RESOLUTION, report)
    metrics = measure(
        distances(field),
        result,
        data.unit_mesh,
        data.frame,
        seed=config.training.seed,
        progress=report,
    )
    mesh = {"report": data.surface.report.to_dict(), "sign": data.sign}
    return {**metrics, "extracted_resolution": RESOLUTION, "mesh": mesh}, result


def evaluate(
    field: Field, data: SdfData, config: SdfConfig, run: Path, curve: np.ndarray, report: Report
) -> dict[str, Any]:
    """Measure a fitted mesh and write the pictures to run/renders; return the metrics."""
    metrics, result = evaluate_field(field, data, config, report)
    write_pictures(run / "renders", field, data, result, metrics, curve, report)
    return metrics


def write_pictures(
    folder: Path,
    field: Field,
    data: SdfData,
    result: Mesh,
    metrics: dict[str, Any],
    curve: np.ndarray,
    report: Report,
) -> None:
    """Write result.png, slices.png, comparison.png, error.png and learning_curve.png.

    comparison.png and error.png show the meshes side by side and come from Open3D; where it cannot
    draw, that is said, and they are left out.

    Raises:
        ResourceError: the folder cannot be written, or the disk is full.
    """
    from ngp_warp.primitives.sdf.render import render_image
    from ngp_warp.primitives.sdf.slices import render_slices
    from ngp_warp.rays.cameras import orbit

    report(Progress(stage="write", message="drawing pictures"))
    camera = orbit(30.0, 20.0, 2.0, width=_PICTURE_SIDE, height=_PICTURE_SIDE)
    save_png(folder / "result.png", render_image(field, camera, progress=report))
    save_png(folder / "slices.png", render_slices(field, scale=data.frame.scale))
    _write_comparison(folder, data, result, report)
    end = None if metrics["iou"] is None else (metrics["iou"], "independent points, at the end")
    write_learning_curve(
        folder / "learning_curve.png", curve, "IoU", "8,192 points of the cube", end
    )


def _write_comparison(folder: Path, data: SdfData, result: Mesh, report: Report) -> None:
    from ngp_warp.primitives.sdf.view import save_pictures

    if not len(result[1]):
        return
    original = data.surface.vertices, data.surface.faces
    fitted = data.frame.from_unit(result[0]), result[1]
    try:
        save_pictures(original, fitted, folder / "comparison.png", folder / "error.png")
    except ResourceError as error:
        report(Progress(stage="write", message=f"no comparison.png and error.png: {error}"))
