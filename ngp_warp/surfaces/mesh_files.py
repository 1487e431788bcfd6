"""Meshes to files, by extension, each there whole or not at all."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np

from ngp_warp.errors import ShapeError
from ngp_warp.files import atomic_path, check_output

_LINES_AT_ONCE = 1 << 16


MESH_SUFFIXES = (".obj", ".ply", ".stl", ".glb")


def write_mesh(
    path: str | Path, vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray | None = None
) -> int:
    """Write a mesh as Wavefront text, binary PLY, binary STL or binary glTF.

    Axes and units are written as they are. Text keeps a hundred-millionth of the extent; the others
    hold float32. STL has neither shared vertices nor their normals, only the faces'.

    Args:
        path: ends in .obj, .ply, .stl or .glb.
        vertices: [n, 3].
        faces: [m, 3], anticlockwise seen from outside.
        normals: [n, 3] of the vertices, of unit length.

    Returns:
        The size of the file in bytes.

    Raises:
        ConfigError: an extension that is not known.
        ResourceError: the folder is missing or cannot be written, or the disk is full.
        ShapeError: not one normal a vertex.
    """
    path = check_output(path, MESH_SUFFIXES)
    if normals is not None and normals.shape != vertices.shape:
        raise ShapeError(f"normals must be {list(vertices.shape)}, got {list(normals.shape)}")
    with atomic_path(path) as temporary:
        _WRITERS[path.suffix.lower()](temporary, vertices, faces, normals)
        return temporary.stat().st_size


def _write_obj(
    path: Path, vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray | None
) -> None:
    """Write text piece by piece: a few times faster than trimesh, and in little memory.

    A fixed number of decimals would be too few for a small mesh, too many for a large one.
    """
    size = max(float(np.ptp(vertices, axis=0).max()), np.finfo(np.float64).tiny)
    n_digits = min(17, 9 + max(0, math.floor(math.log10(np.abs(vertices).max() / size + 1))))
    with path.open("w", encoding="ascii") as file:
        _write_lines(file, "v" + f" %.{n_digits}g" * 3 + "\n", vertices)
        corners = faces.astype(np.int64) + 1
        if normals is None:
            _write_lines(file, "f %d %d %d\n", corners)
            return
        _write_lines(file, "vn %.6g %.6g %.6g\n", normals)
        _write_lines(file, "f %d//%d %d//%d %d//%d\n", np.repeat(corners, 2, axis=1))


def _write_lines(file: TextIO, line: str, rows: np.ndarray) -> None:
    for begin in range(0, len(rows), _LINES_AT_ONCE):
        part = rows[begin : begin + _LINES_AT_ONCE]
        file.write(line * len(part) % tuple(part.ravel().tolist()))


def _by_trimesh(file_type: str, normals_option: str | None = None) -> "_Writer":
    def write(
        path: Path, vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray | None
    ) -> None:
        from trimesh import Trimesh

        # process=False: no vertex may be merged or dropped
        mesh = Trimesh(vertices, faces, vertex_normals=normals, process=False)
        options = {normals_option: normals is not None} if normals_option else {}
        with path.open("wb") as file:
            mesh.export(file, file_type=file_type, **options)

    return write


_Writer = Callable[[Path, np.ndarray, np.ndarray, np.ndarray | None], None]
_WRITERS: dict[str, _Writer] = {
    ".obj": _write_obj,
    ".ply": _by_trimesh("ply", "vertex_normal"),
    ".stl": _by_trimesh("stl"),
    ".glb": _by_trimesh("glb", "include_normals"),
}
