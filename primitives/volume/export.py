"""A run's exports: the volume in its own grid, and level sets of it as meshes."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.config import check_range
from ngp_warp.errors import ConfigError, DataError
from ngp_warp.primitive import Report, report_nothing
from ngp_warp.primitives.volume.grid import no_surface
from ngp_warp.primitives.volume.options import DENSE_FORMATS, MESH_FORMATS
from ngp_warp.primitives.volume.query import values_at
from ngp_warp.primitives.volume.subject import Subject
from ngp_warp.primitives.volume.transfer import is_integer
from ngp_warp.primitives.volume.writers import save_volume
from ngp_warp.primitives.volume.writers.dtypes import INTEGERS
from ngp_warp.surfaces.extract import extract
from ngp_warp.surfaces.mesh_files import write_mesh
from ngp_warp.surfaces.normals import face_normals
from ngp_warp.surfaces.pieces import is_closed
from ngp_warp.surfaces.trim import trim

_NAMES = {"nii": "volume.nii.gz"}
_NIFTI = (".nii", ".nii.gz")


def export_run(
    run: Any,
    output: Path | None,
    *,
    format_name: str,
    progress: Report = report_nothing,
    **options: Any,
) -> dict[str, Any]:
    """Write a run in a format of ``EXPORT_OPTIONS``, in the volume's own world.

    Args:
        run: of a volume.
        output: the file; None: in the run's exports.
        format_name: the format.
        progress: told what is done.
        options: of the format, as of the functions below.

    Returns:
        "output", the path, and what the functions say of it.

    Raises:
        ConfigError: another extension.
        NgpError: as the functions.
    """
    mesh = format_name in MESH_FORMATS
    default = _NAMES.get(format_name, f"{'surface' if mesh else 'volume'}.{format_name}")
    target = Path(run.path, "exports", default) if output is None else output
    endings = _NIFTI if format_name == "nii" else (f".{format_name}",)
    if not target.name.lower().endswith(endings):
        raise ConfigError(
            f"--format {format_name} writes to a file named *{' or *'.join(endings)}, not {target}"
        )
    write = export_mesh if mesh else export_volume
    return {"output": target, **write(target, Subject.of(run), progress=progress, **options)}


def export_volume(
    path: Path,
    subject: Subject,
    *,
    threshold: float | None = None,
    progress: Report = report_nothing,
) -> dict[str, Any]:
    """Write the values at the original's voxels, with its transform, background and name.

    Of radiance mode the density. Integers keep their type in .npy, .npz and .nii (those of 64 bits
    and booleans: the least of uint8, int16 and int32 that holds them, if any); all else is float32.

    Args:
        path: ends as ``writers.save_volume`` knows.
        subject: of the run.
        threshold: what differs from the background by no more is left out of .nvdb and .vdb, and
            becomes background in the others; None: see ``Subject.volume`` for the first two, and
            everything is kept in the others.
        progress: told of the work.

    Returns:
        What ``save_volume`` says, voxel_size, and the threshold where there is one.

    Raises:
        ConfigError: more channels than the format has, or a threshold below 0.
        DataError: nothing is left.
        ResourceError: the file cannot be written, or a package is missing.
    """
    check_range("threshold", threshold, 0.0)
    about = subject.about
    dense = path.suffix.lower()[1:] in DENSE_FORMATS or path.name.lower().endswith(_NIFTI)
    if dense and threshold is None:
        volume = about.volume(subject.values(progress), None)
    else:
        threshold = subject.default_threshold if threshold is None else threshold
        volume = subject.volume(progress, threshold)
        if not np.any(volume.active):
            raise DataError(
                "no voxel differs from the background by more than the threshold; give a lower "
                "--threshold"
            )
    made = save_volume(path, volume, dtype=_integer_type(subject) if dense else None)
    told = {} if threshold is None else {"threshold": threshold}
    return {**made, "voxel_size": list(volume.voxel_size), **told}


def _integer_type(subject: Subject) -> str | None:
    """Return the integers' type, of those that are not written the least that holds the values."""
    about = subject.about
    if not is_integer(about.dtype) or subject.has_radiance:
        return None
    if about.dtype in INTEGERS:
        return about.dtype
    low, high = about.transfer.low, about.transfer.high
    limits = ((name, np.iinfo(name)) for name in ("uint8", "int16", "int32"))
    return next((name for name, i in limits if i.min <= low and high <= i.max), None)


def export_mesh(
    path: Path,
    subject: Subject,
    *,
    resolution: int | None = None,
    level: float | None = None,
    faces: int | None = None,
    largest_only: bool = False,
    progress: Report = report_nothing,
) -> dict[str, Any]:
    """Write the surface on which the volume has a value; the box's sides close what it cuts.

    Args:
        path: ends in .obj, .ply, .stl or .glb.
        subject: of the run.
        resolution: cells along the cube around the box; None: one a voxel, from middle to middle.
        level: the value; None: 0 of a level set, else the middle of the range. Inside is above it,
            of a level set below.
        faces: decimate to about so many; None: keep all.
        largest_only: keep only the piece of most faces.
        progress: told of the work.

    Returns:
        n_vertices, n_faces, n_pieces, n_dropped_pieces, watertight, bounds, level, resolution,
        n_evaluated and bytes.

    Raises:
        ConfigError: vectors have no level; or an option out of its range.
        DataError: there is no such value.
        ResourceError: too little memory, or the file cannot be written.
    """
    about, frame = subject.about, subject.about.frame
    if about.n_channels > 1:
        raise ConfigError("vectors have no isosurface; export nvdb, vdb, npy, npz or nii")
    check_range("level", level, -math.inf)
    transfer = about.transfer
    if level is None:
        level = 0.0 if about.is_level_set else transfer.low + transfer.range / 2
    missing = no_surface(level, transfer.low, transfer.high)
    if not transfer.low <= level <= transfer.high:
        raise missing  # the whole box might be inside
    # nodes at the voxels' middles, from one before the first to one after the last
    side = max(frame.shape)
    resolution = side + 1 if resolution is None else resolution
    lower, upper = (frame.unit_from_voxel(np.full((1, 3), v))[0] for v in (-1.0, float(side)))
    try:
        mesh = extract(
            _inside_negative(subject, level),
            resolution,
            lower=tuple(lower.tolist()),
            upper=tuple(upper.tolist()),
            lipschitz=math.inf,
            progress=progress,
        )
    except DataError as error:
        raise missing from error
    kept = trim(mesh.vertices, mesh.faces, largest_only=largest_only, n_faces=faces)
    triangles = kept.faces
    places = frame.world_from_voxel(frame.voxel_from_unit(kept.vertices))
    if np.linalg.det(frame.to_world[:3, :3]) < 0:
        triangles = np.ascontiguousarray(triangles[:, ::-1])  # a mirror turns faces inside out
    n_bytes = write_mesh(path, places, triangles, face_normals(places, triangles))
    return {
        "n_vertices": len(places),
        "n_faces": len(triangles),
        "n_pieces": len(kept.pieces),
        "n_dropped_pieces": kept.n_dropped,
        "watertight": is_closed(triangles),
        "bounds": [places.min(axis=0).tolist(), places.max(axis=0).tolist()],
        "level": level,
        "resolution": resolution,
        "n_evaluated": mesh.n_evaluated,
        "bytes": n_bytes,
    }


def _inside_negative(subject: Subject, level: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the field as a function of points [n, 3] of the unit cube, negative inside."""
    about, frame = subject.about, subject.about.frame
    sign = 1.0 if about.is_level_set else -1.0
    outside = np.float32(about.transfer.range)
    channel = 3 if subject.has_radiance else 0  # the density, behind the radiance

    def evaluate(points: np.ndarray) -> np.ndarray:
        voxels = frame.voxel_from_unit(points)
        # rounded in float32: the outermost middles belong to the box
        inside = np.all((voxels > -1e-3) & (voxels < np.array(frame.shape) - 1 + 1e-3), axis=1)
        result = np.full(len(points), outside)
        values = values_at(subject, voxels[inside])[:, channel]
        result[inside] = sign * (values - np.float32(level))
        return result

    return evaluate
