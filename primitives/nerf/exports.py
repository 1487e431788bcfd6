"""A run's exports: ``ngp export``."""

from pathlib import Path
from typing import Any

from ngp_warp.errors import ConfigError
from ngp_warp.primitive import Report, report_nothing
from ngp_warp.primitives.nerf.export_mesh import DEFAULT_RESOLUTION, export_mesh
from ngp_warp.primitives.nerf.export_points import export_points
from ngp_warp.primitives.nerf.export_volume import export_occupancy, export_volume
from ngp_warp.primitives.nerf.options import MESH_FORMATS, VOLUME_FORMATS
from ngp_warp.primitives.nerf.subject import Subject

_NAMES = {
    **{name: f"mesh.{name}" for name in MESH_FORMATS},
    **{name: f"density.{name}" for name in VOLUME_FORMATS},
    "points": "points.ply",
    "occupancy": "occupancy.npz",
}


def export_run(
    run: Any,
    output: Path | None,
    *,
    format_name: str,
    progress: Report = report_nothing,
    **options: Any,
) -> dict[str, Any]:
    """Write a run in a format of ``EXPORT_OPTIONS``, in the scene's units and axes.

    Args:
        run: of photos.
        output: the file; None: in the run's exports.
        format_name: the format.
        progress: told what is done.
        options: of the format: ``resolution``, ``threshold``, ``box`` (x0, y0, z0, x1, y1, z1 in
            scene units), ``faces``, ``largest_only``, ``texture``, ``points``, ``opacity``.

    Returns:
        "output", the path, and what the format's function says of it.

    Raises:
        ConfigError: another extension.
        NgpError: as the format's function.
    """
    default = _NAMES[format_name]
    target = Path(run.path, "exports", default) if output is None else output
    if target.suffix.lower() != Path(default).suffix:
        raise ConfigError(
            f"--format {format_name} writes to a file named *{Path(default).suffix}, not {target}"
        )
    subject = Subject.of(run)
    field, frame = subject.field, subject.frame
    given: dict[str, Any] = {"progress": progress, **options}
    if "box" in given:
        given["bounds"] = given.pop("box")
    if format_name == "points":
        if "points" in given:
            given["n_points"] = given.pop("points")
        numbers = subject.trained or range(len(subject.views))
        shots = [subject.shot(i) for i in numbers]
        return {"output": target, **export_points(target, field, frame, shots, **given)}
    if format_name == "occupancy":
        return {"output": target, **export_occupancy(target, field, frame, **given)}
    given.setdefault("resolution", DEFAULT_RESOLUTION)
    if format_name in VOLUME_FORMATS:
        return {"output": target, **export_volume(target, field, frame, **given)}
    if "faces" in given:
        given["n_faces"] = given.pop("faces")
    return {"output": target, **export_mesh(target, field, frame, **given)}
