"""Exports of a signed distance field: meshes, a dense grid, a narrow-band level set.

Everything is written in the input's units, axes and position.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ngp_warp.files import check_output
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.surfaces.extract import LIPSCHITZ, extract
from ngp_warp.surfaces.lattice import Evaluate, Lattice
from ngp_warp.surfaces.mesh_files import MESH_SUFFIXES, write_mesh
from ngp_warp.surfaces.normals import Gradient, face_normals, gradient_normals
from ngp_warp.surfaces.nvdb import BAND, write_nvdb
from ngp_warp.surfaces.pieces import Pieces, find_pieces, is_closed, volume
from ngp_warp.surfaces.trim import trim
from ngp_warp.surfaces.volume_files import Placement, write_npz

_PIECES_TOLD = 10
# More than this share of a voxel is told: it would be seen.
_ROUNDING_TOLD = 0.01


class Units(Protocol):
    """What an export needs of a ``Frame``: the way back from the unit cube."""

    def from_unit(self, points: np.ndarray) -> np.ndarray:
        """Return points [n, 3] of the unit cube in the input's units, float64."""
        ...

    def distance_from_unit(self, distance: Any) -> Any:
        """Return a length of the unit cube in the input's units."""
        ...


def export_mesh(
    path: str | Path,
    evaluate: Evaluate,
    frame: Units,
    *,
    resolution: int,
    gradient: Gradient | None = None,
    largest_only: bool = False,
    n_faces: int | None = None,
    progress: Report = report_nothing,
) -> dict[str, Any]:
    """Write the zero level of a field as a mesh with normals.

    Pieces apart from the largest one are reported, and kept unless ``largest_only``.

    Args:
        path: ends in .obj, .ply, .stl or .glb.
        evaluate: float32 points [n, 3] of the unit cube -> signed distances, negative inside.
        frame: from the unit cube to the input's units.
        resolution: cells along the unit cube's edge.
        gradient: float32 points [n, 3] -> gradients [n, 3] or [n, 1, 3]; None: the faces' normals.
        largest_only: keep only the piece of most faces; its cavities go too.
        n_faces: decimate to about so many; None: keep all.
        progress: told of the work, of pieces, and of what the file cannot hold.

    Returns:
        n_vertices, n_faces, watertight, n_bodies, n_cavities, pieces (the ten largest, each with
        n_faces, share of the faces and volume), n_dropped_pieces, bounds (two corners), volume,
        rounding (the most that a vertex moved in the file), resolution, n_evaluated and bytes; all
        in the input's units, of the mesh as written.

    Raises:
        ConfigError: an unknown extension, a resolution or a number of faces out of range.
        DataError: the field has no surface, or is not finite.
        ResourceError: too little memory, or the file cannot be written.
    """
    path = check_output(path, MESH_SUFFIXES)
    mesh = extract(evaluate, resolution, progress=progress)
    kept = trim(mesh.vertices, mesh.faces, largest_only=largest_only, n_faces=n_faces)
    vertices, faces = kept.vertices, kept.faces
    _tell_pieces(kept.pieces, largest_only, progress)
    if gradient is None:
        normals = face_normals(vertices, faces)
    else:
        normals = gradient_normals(vertices, faces, gradient)
    vertices = frame.from_unit(vertices)
    n_bytes = write_mesh(path, vertices, faces, normals)
    report = describe_mesh(vertices, faces)
    report |= {"n_dropped_pieces": kept.n_dropped, "resolution": resolution}
    report |= {"n_evaluated": mesh.n_evaluated, "bytes": n_bytes}
    report["rounding"] = 0.0 if path.suffix.lower() == ".obj" else _rounding(vertices)
    _tell_faults(report, frame.distance_from_unit(1 / resolution), progress)
    return report


def describe_mesh(vertices: np.ndarray, faces: np.ndarray) -> dict[str, Any]:
    """Return what ``export_mesh`` says of a mesh alone, as plain JSON values."""
    pieces = find_pieces(vertices, faces).pieces
    told = [vars(piece) for piece in pieces[:_PIECES_TOLD]]
    n_cavities = sum(piece.volume < 0 for piece in pieces)
    return {
        "n_vertices": len(vertices),
        "n_faces": len(faces),
        "watertight": is_closed(faces),
        "n_bodies": len(pieces) - n_cavities,
        "n_cavities": n_cavities,
        "pieces": told,
        "bounds": [vertices.min(axis=0).tolist(), vertices.max(axis=0).tolist()],
        "volume": volume(vertices, faces),
    }


def export_npz(
    path: str | Path,
    evaluate: Evaluate,
    frame: Units,
    *,
    resolution: int,
    progress: Report = report_nothing,
) -> dict[str, Any]:
    """Write the distances on a dense grid over the unit cube: see ``volume_files.write_npz``.

    Args:
        path: ends in .npz.
        evaluate: as for ``export_mesh``.
        frame: from the unit cube to the input's units.
        resolution: cells along an edge; the grid has one more node.
        progress: told of the work.

    Returns:
        shape, origin, voxel_size and bytes.

    Raises:
        ConfigError: another extension, or a resolution out of range.
        DataError: the field is not finite.
        ResourceError: the file cannot be written.
    """
    path = check_output(path, (".npz",))
    lattice, placement = Lattice(evaluate, resolution), _placement(frame, resolution)
    n_bytes = write_npz(path, lattice, placement, _share(progress, "write"))
    return {
        "shape": [resolution + 1] * 3,
        "origin": list(placement.origin),
        "voxel_size": placement.voxel_size,
        "bytes": n_bytes,
    }


def export_nvdb(
    path: str | Path,
    evaluate: Evaluate,
    frame: Units,
    *,
    resolution: int,
    band: float = BAND,
    progress: Report = report_nothing,
) -> dict[str, Any]:
    """Write a narrow-band level set: see ``nvdb.write_nvdb``.

    Args:
        path: ends in .nvdb.
        evaluate: as for ``export_mesh``.
        frame: from the unit cube to the input's units.
        resolution: voxels along the unit cube's edge.
        band: half width of the band in voxels.
        progress: told of the work.

    Returns:
        n_voxels (active), origin, voxel_size, background and bytes.

    Raises:
        ConfigError: another extension, or a resolution or band out of range.
        DataError: the field has no surface, or is not finite.
        ResourceError: too little memory, or the file cannot be written.
    """
    path = check_output(path, (".nvdb",))
    lattice, placement = Lattice(evaluate, resolution), _placement(frame, resolution)
    done = _share(progress, "evaluate")
    written = write_nvdb(path, lattice, placement, lipschitz=LIPSCHITZ, band=band, done=done)
    return {
        "n_voxels": written["n_voxels"],
        "origin": list(placement.origin),
        "voxel_size": placement.voxel_size,
        "background": band * placement.voxel_size,
        "bytes": written["bytes"],
    }


def _placement(frame: Units, resolution: int) -> Placement:
    x, y, z = frame.from_unit(np.zeros((1, 3)))[0].tolist()
    per_unit = float(frame.distance_from_unit(1.0))
    return Placement((x, y, z), per_unit / resolution, per_unit)


def _share(progress: Report, stage: str) -> Callable[[float], None]:
    return lambda share: progress(Progress(stage=stage, step=math.floor(100 * share), total=100))


def _rounding(vertices: np.ndarray) -> float:
    return float(np.abs(vertices.astype(np.float32) - vertices).max())


def _tell_pieces(pieces: Pieces, largest_only: bool, progress: Report) -> None:
    if len(pieces) == 1:
        return
    first, *others = pieces.pieces
    n_faces = ", ".join(str(piece.n_faces) for piece in others[:_PIECES_TOLD])
    n_faces += ", ..." if len(others) > _PIECES_TOLD else ""
    n_cavities = sum(piece.volume < 0 for piece in others)
    message = (
        f"the surface has {len(pieces)} pieces: the largest has {first.n_faces} faces, "
        f"the others have {n_faces} ({n_cavities} cavities); "
        f"{'only the largest was kept' if largest_only else 'all were kept'}"
    )
    progress(Progress(stage="write", message=message))


def _tell_faults(report: dict[str, Any], voxel_size: float, progress: Report) -> None:
    if not report["watertight"]:
        message = "decimation left the mesh not watertight: ask for more faces, or for all"
        progress(Progress(stage="write", message=message))
    if report["rounding"] > _ROUNDING_TOLD * voxel_size:
        message = (
            f"the mesh lies so far from the origin that 32-bit numbers moved vertices by up to "
            f"{report['rounding']:.2g}; .obj keeps more digits"
        )
        progress(Progress(stage="write", message=message))
