"""OFF: the text formats OFF, COFF, NOFF and STOFF of Geomview.

trimesh reads OFF too, but no polygons of unlike numbers of corners, and takes what is left of a
file that was cut short for the whole.
"""

import re
from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.sdf.readers.polygons import triangulate
from ngp_warp.primitives.sdf.readers.source import Soup, parse_numbers

_HEADER = re.compile(rb"\s*(ST)?(C)?(N)?OFF\b\s*(BINARY)?", re.IGNORECASE)
_COUNTS = re.compile(rb"\s*(\d+)\s+(\d+)([^\S\n]+\d+)?[^\S\n]*(\n|$)")


def read_off(path: Path) -> Soup:
    """Read an OFF's vertices and faces.

    Raises:
        DataError: no OFF header, a binary or 4-dimensional file, fewer lines than the header
            promises, or an index that names no vertex.
    """
    data = re.sub(rb"#[^\n]*", b"", path.read_bytes()).replace(b"\r", b"\n")
    data = re.sub(rb"^(\s*\w*OFF)(?=\d)", rb"\1 ", data, flags=re.IGNORECASE)
    header = _HEADER.match(data)
    if header is None:
        raise DataError("it does not begin with OFF")
    if header[4]:
        raise DataError("it is a binary OFF, which is not read; convert it to text or PLY")
    counts = _COUNTS.match(data, header.end())
    if counts is None:
        raise DataError("after OFF there are no numbers of vertices and faces")
    n_vertices, n_faces = int(counts[1]), int(counts[2])
    lines = [line for line in data[counts.end() :].split(b"\n") if line.strip()]
    if len(lines) < n_vertices + n_faces:
        raise DataError(
            f"it is cut short: it has {len(lines)} of {n_vertices + n_faces} vertices and faces"
        )
    vertices = _vertices(lines[:n_vertices])
    faces, n_polygons, coloured = _faces(lines[n_vertices : n_vertices + n_faces], vertices)
    ignored = [word for word, there in zip(_WORDS, header.groups()[:2], strict=True) if there]
    return Soup(
        vertices, faces, n_polygons, ignored=(*ignored, *(["face colours"] if coloured else []))
    )


_WORDS = ("texture coordinates", "vertex colours")


def _vertices(lines: list[bytes]) -> np.ndarray:
    """Return the first three numbers of each line, [n, 3]."""
    widths = {len(line.split()) for line in lines}
    if not lines:
        return np.zeros((0, 3))
    if min(widths) < 3:
        raise DataError("a vertex has fewer than 3 coordinates")
    if len(widths) > 1:
        lines, widths = [b" ".join(line.split()[:3]) for line in lines], {3}
    values = parse_numbers(b" ".join(lines), np.float64, "vertices")
    return np.ascontiguousarray(values.reshape(len(lines), -1)[:, :3])


def _faces(lines: list[bytes], vertices: np.ndarray) -> tuple[np.ndarray, int, bool]:
    """Return triangles, the number of polygons, and whether colours follow the corners."""
    widths = np.array([len(line.split()) for line in lines], np.int64)
    values = parse_numbers(b" ".join(lines), np.float64, "faces")
    begins = np.cumsum(widths) - widths
    counts = values[begins].astype(np.int64)
    if (counts < 1).any() or (widths <= counts).any():
        raise DataError("a face has not as many corners as it says; is the file whole?")
    before = np.cumsum(counts) - counts
    index = np.arange(int(counts.sum())) + np.repeat(begins + 1 - before, counts)
    faces, n_polygons = triangulate(values[index].astype(np.int64), counts, vertices)
    return faces, n_polygons, bool((widths > counts + 1).any())
