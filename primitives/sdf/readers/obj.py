"""Wavefront OBJ: the lines ``v`` and ``f``.

trimesh reads OBJ too, but counts relative indices from the file's end, knows no tabs, and takes
what is left of a file that was cut short for the whole.
"""

import re
from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.sdf.readers.polygons import triangulate
from ngp_warp.primitives.sdf.readers.source import Soup, parse_numbers


def read_obj(path: Path) -> Soup:
    """Read an OBJ's vertices and faces; lines, points and free-form surfaces are left out.

    Raises:
        DataError: a line that cannot be read, or an index that names no vertex.
    """
    rows, rings, before, textured = _scan(_lines(path))
    widths = {len(row.split()) for row in rows}
    vertices = _vertices(rows, widths)
    # of "vertex/texture/normal" only the vertex
    text = re.sub(rb"/\S*", b"", b"\n".join(rings)) if rings else b""
    counts = np.array([len(ring.split()) for ring in text.split(b"\n")] if rings else [], np.int64)
    corners = parse_numbers(text, np.int64, "faces")
    if len(corners) != counts.sum():
        raise DataError("a word among its faces is not a number")
    if (corners == 0).any():
        raise DataError("a face names vertex 0, and an OBJ counts from 1")
    seen = np.repeat(np.array(before, np.int64), counts)
    faces, n_polygons = triangulate(
        np.where(corners > 0, corners - 1, corners + seen), counts, vertices
    )
    ignored = ["vertex colours"] if widths & {6, 7} else []
    ignored += ["texture coordinates"] if textured else []
    return Soup(vertices, faces, n_polygons, ignored=tuple(ignored))


def _lines(path: Path) -> list[bytes]:
    """Return the lines without comments, continuations joined."""
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\\\n", b" ")
    data = data.replace(b"\t", b" ")
    if b"#" in data:
        data = re.sub(rb"#[^\n]*", b"", data)
    return data.split(b"\n")


def _scan(lines: list[bytes]) -> tuple[list[bytes], list[bytes], list[int], bool]:
    """Return the vertices' lines, the faces', the vertices before each face, any ``vt``."""
    rows: list[bytes] = []
    rings: list[bytes] = []
    before: list[int] = []
    textured = False
    for indented in lines:
        line = indented.lstrip()
        if line.startswith(b"v "):
            rows.append(line[2:])
        elif line.startswith(b"f "):
            rings.append(line[2:])
            before.append(len(rows))
        elif line.startswith(b"vt "):
            textured = True
    return rows, rings, before, textured


def _vertices(rows: list[bytes], widths: set[int]) -> np.ndarray:
    """Return the vertices [n, 3]; more columns are colours or a weight."""
    if not rows:
        return np.zeros((0, 3))
    if min(widths) < 3:
        raise DataError("a vertex has fewer than 3 coordinates")
    if len(widths) > 1:
        rows = [b" ".join(row.split()[:3]) for row in rows]
        widths = {3}
    values = parse_numbers(b" ".join(rows), np.float64, "vertices")
    (width,) = widths
    return np.ascontiguousarray(values.reshape(-1, width)[:, :3])
