"""A run's exports, and its mesh beside the original."""

from pathlib import Path
from typing import Any

from ngp_warp.errors import ConfigError
from ngp_warp.primitive import Report, report_nothing
from ngp_warp.primitives.sdf.data import load_again
from ngp_warp.primitives.sdf.evaluate import distances, extracted
from ngp_warp.primitives.sdf.export import export_mesh, export_npz, export_nvdb
from ngp_warp.primitives.sdf.metrics import Mesh
from ngp_warp.primitives.sdf.query import frame_of

DEFAULT_RESOLUTION = 256


def export_run(
    run: Any,
    output: Path | None,
    *,
    suffix: str,
    resolution: int = DEFAULT_RESOLUTION,
    faces: int | None = None,
    largest_only: bool = False,
    progress: Report = report_nothing,
) -> dict[str, Any]:
    """Write a run's surface or its distances, in the mesh's own units, axes and position.

    Args:
        run: of a mesh.
        output: the file; None: exports/mesh.SUFFIX of the run.
        suffix: "obj", "ply", "stl", "glb", "npz" or "nvdb"; ``output`` must have it.
        resolution: cells along the unit cube's edge, of which the mesh's largest extent fills nine
            tenths.
        faces: decimate a mesh to about so many.
        largest_only: leave out the mesh's pieces but the largest.
        progress: told what is done.

    Returns:
        "output" and what ``export_mesh``, ``export_npz`` or ``export_nvdb`` say of it.

    Raises:
        ConfigError: another extension.
        NgpError: as the functions named.
    """
    target = Path(run.path, "exports", f"mesh.{suffix}") if output is None else output
    if target.suffix.lower() != f".{suffix}":
        raise ConfigError(f"--format {suffix} writes to a file named *.{suffix}, not {target}")
    field, frame = run.fitted, frame_of(run)
    evaluate = distances(field)
    common: dict[str, Any] = {"resolution": resolution, "progress": progress}
    if suffix == "npz":
        return {"output": target, **export_npz(target, evaluate, frame, **common)}
    if suffix == "nvdb":
        return {"output": target, **export_nvdb(target, evaluate, frame, **common)}
    made = export_mesh(
        target,
        evaluate,
        frame,
        gradient=lambda points: field.value_and_gradient(points)[1],
        largest_only=largest_only,
        n_faces=faces,
        **common,
    )
    return {"output": target, **made}


def meshes(
    run: Any, *, resolution: int = DEFAULT_RESOLUTION, progress: Report = report_nothing
) -> tuple[Mesh, Mesh]:
    """Return the original and the result, in the mesh's units.

    Raises:
        DataError: the original is gone, or another.
    """
    data = load_again(run, progress)
    vertices, faces = extracted(run.fitted, resolution, progress)
    original = data.surface.vertices, data.surface.faces
    return original, (data.frame.from_unit(vertices), faces)
