"""Meshes to files, by extension, each there whole or not at all."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np

from ngp_warp.errors import ShapeError
from ngp_warp.files import atomic_path, check_output
from ngp_warp.surfaces.gltf import write_glb

_LINES_AT_ONCE = 1 << 16


MESH_SUFFIXES = (".obj", ".ply", ".stl", ".glb")


def write_mesh(
    path: str | Path,
    vertices: np.ndarray,
    faces: np.ndarray,
    normals: np.ndarray | None = None,
    colors: np.ndarray | None = None,
) -> int:
    """Write a mesh as Wavefront text, binary PLY, binary STL or binary glTF.

    Axes and units are written as they are. Text keeps a hundred-millionth of the extent; the others
    hold float32. STL has neither shared vertices nor their normals and colours, only the faces'
    normals. Colours in text are a common extension: three numbers after a vertex's place.

    Args:
        path: ends in .obj, .ply, .stl or .glb.
        vertices: [n, 3].
        faces: [m, 3], anticlockwise seen from outside.
        normals: [n, 3] of the vertices, of unit length.
        colors: uint8 [n, 3] of the vertices, sRGB.

    Returns:
        The size of the file in bytes.

    Raises:
        ConfigError: an extension that is not known.
        ResourceError: the folder is missing or cannot be written, or the disk is full.
        ShapeError: not one normal or colour a vertex.
    """
    path = check_output(path, MESH_SUFFIXES)
    for name, values in (("normals", normals), ("colors", colors)):
        if values is not None and values.shape != vertices.shape:
            raise ShapeError(f"{name} must be {list(vertices.shape)}, got {list(values.shape)}")
    with atomic_path(path) as temporary:
        _WRITERS[path.suffix.lower()](temporary, vertices, faces, normals, colors)
        return temporary.stat().st_size


def _write_obj(
    path: Path,
    vertices: np.ndarray,
    faces: np.ndarray,
    normals: np.ndarray | None,
    colors: np.ndarray | None,
) -> None:
    """Write text piece by piece: a few times faster than trimesh, and in little memory."""
    with path.open("w", encoding="ascii") as file:
        number = number_format(vertices)
        if colors is None:
            write_lines(file, "v" + f" {number}" * 3 + "\n", vertices)
        else:
            rows = np.concatenate([vertices, colors / 255], axis=1)
            write_lines(file, "v" + f" {number}" * 3 + " %.4f" * 3 + "\n", rows)
        corners = faces.astype(np.int64) + 1
        if normals is None:
            write_lines(file, "f %d %d %d\n", corners)
            return
        write_lines(file, "vn %.6g %.6g %.6g\n", normals)
        write_lines(file, "f %d//%d %d//%d %d//%d\n", np.repeat(corners, 2, axis=1))


def number_format(vertices: np.ndarray) -> str:
    """Return the format that keeps a hundred-millionth of the extent of vertices in text.

    A fixed number of decimals would be too few for a small mesh, too many for a large one.
    """
    size = max(float(np.ptp(vertices, axis=0).max()), np.finfo(np.float64).tiny)
    n_digits = min(17, 9 + max(0, math.floor(math.log10(np.abs(vertices).max() / size + 1))))
    return f"%.{n_digits}g"


def write_lines(file: TextIO, line: str, rows: np.ndarray) -> None:
    """Write each row of an array as a line of a format."""
    for begin in range(0, len(rows), _LINES_AT_ONCE):
        part = rows[begin : begin + _LINES_AT_ONCE]
        file.write(line * len(part) % tuple(part.ravel().tolist()))


def _by_trimesh(file_type: str, normals_option: str | None = None) -> "_Writer":
    def write(
        path: Path,
        vertices: np.ndarray,
        faces: np.ndarray,
        normals: np.ndarray | None,
        colors: np.ndarray | None,
    ) -> None:
        from trimesh import Trimesh

        # process=False: no vertex may be merged or dropped
        mesh = Trimesh(vertices, faces, vertex_normals=normals, vertex_colors=colors, process=False)
        options = {normals_option: normals is not None} if normals_option else {}
        with path.open("wb") as file:
            mesh.export(file, file_type=file_type, **options)

    return write


_Writer = Callable[[Path, np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None], None]
_plain_glb = _by_trimesh("glb", "include_normals")


def _write_glb(
    path: Path,
    vertices: np.ndarray,
    faces: np.ndarray,
    normals: np.ndarray | None,
    colors: np.ndarray | None,
) -> None:
    if colors is None:
        _plain_glb(path, vertices, faces, normals, None)
    else:
        write_glb(path, vertices, faces, normals=normals, colors=colors)


_WRITERS: dict[str, _Writer] = {
    ".obj": _write_obj,
    ".ply": _by_trimesh("ply", "vertex_normal"),
    ".stl": _by_trimesh("stl"),
    ".glb": _write_glb,
}
