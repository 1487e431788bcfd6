"""PLY: text and binary of both byte orders (Turk, "The PLY Polygon File Format", 1994).

trimesh reads PLY too, but no binary polygons of unlike numbers of corners, and takes what is left
of a text that was cut short for the whole.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.sdf.readers.ply_body import (
    BinaryBody,
    Property,
    TextBody,
    read_rows,
)
from ngp_warp.primitives.sdf.readers.polygons import triangulate
from ngp_warp.primitives.sdf.readers.source import Soup

_TYPES = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "float": "f4",
    "double": "f8",
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "float32": "f4",
    "float64": "f8",
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_CORNERS = ("vertex_indices", "vertex_index")
_COLOURS = {"red", "r", "diffuse_red"}
_TEXTURE = {"s", "u", "texture_u", "texcoord"}


@dataclass
class _Element:
    """One table of the file."""

    name: str
    n_rows: int
    properties: list[Property] = field(default_factory=list)


def read_ply(path: Path) -> Soup:
    """Read a PLY's vertices and faces; other elements and properties are left out.

    Raises:
        DataError: a broken header, fewer rows than it promises, no coordinates, or an index that
            names no vertex.
    """
    data = path.read_bytes()
    order, elements, start = _parse_header(data)
    body = BinaryBody(data, start) if order else TextBody(data[start:])
    vertices, rings = np.zeros((0, 3)), (np.zeros(0, np.int64), np.zeros(0, np.int64))
    last = max((i for i, e in enumerate(elements) if e.name in ("vertex", "face")), default=-1)
    for element in elements[: last + 1]:
        corners = ""
        if element.name == "face" and element.n_rows:
            corners = _corners(element)
        scalars, lists = read_rows(body, element.name, element.n_rows, element.properties, corners)
        if element.name == "vertex":
            vertices = _coordinates(scalars)
        elif element.name == "face":
            rings = lists
    triangles, n_polygons = triangulate(*rings, vertices)
    return Soup(vertices, triangles, n_polygons, ignored=_ignored(elements))


def _parse_header(data: bytes) -> tuple[str, list[_Element], int]:
    """Return the byte order ("" for text), the elements, and where the rows begin."""
    end = data.find(b"end_header")
    if data[:3].lower() != b"ply" or end < 0:
        raise DataError("it is no PLY: it has no header from 'ply' to 'end_header'")
    order, elements, line = None, [], ""
    try:
        for line in data[:end].decode("latin-1").splitlines()[1:]:
            words = line.split()
            if not words or words[0] in ("comment", "obj_info"):
                continue
            if words[0] == "format":
                order = _ORDERS[words[1]]
            elif words[0] == "element":
                elements.append(_Element(words[1], int(words[2])))
            elif words[0] == "property":
                elements[-1].properties.append(_parse_property(words[1:], order or ""))
            else:
                raise ValueError(words[0])
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(f"its header has a line that is not known: {line[:80]!r}") from error
    if order is None or any(element.n_rows < 0 for element in elements):
        raise DataError("its header names no format, or a negative number of rows")
    line_end = data.find(b"\n", end)
    if line_end < 0:  # the line ends of old Macintosh files, or nothing after the header
        line_end = data.find(b"\r", end) if b"\r" in data[end:] else len(data)
    return order, elements, line_end + 1


def _parse_property(words: list[str], order: str) -> Property:
    """Parse ``TYPE NAME`` or ``list COUNT_TYPE TYPE NAME``."""
    if words[0] == "list":
        _, count, kind, name = words
        return Property(name, np.dtype(order + _TYPES[kind]), np.dtype(order + _TYPES[count]))
    kind, name = words
    return Property(name, np.dtype(order + _TYPES[kind]))


def _corners(element: _Element) -> str:
    """Return the name of the faces' list of vertices."""
    for p in element.properties:
        if p.name in _CORNERS and p.count is not None:
            return p.name
    raise DataError("its faces have no list vertex_indices")


def _coordinates(scalars: dict[str, np.ndarray]) -> np.ndarray:
    """Return x, y and z as [n, 3]."""
    if not {"x", "y", "z"} <= scalars.keys():
        raise DataError("its vertices have no x, y and z")
    return np.stack([scalars[axis].astype(np.float64) for axis in "xyz"], axis=1)


def _ignored(elements: list[_Element]) -> tuple[str, ...]:
    """Return in words what the vertices and faces hold besides the shape."""
    words = []
    for element in elements:
        names = {p.name for p in element.properties}
        if element.name in ("vertex", "face"):
            words += [f"{element.name} colours"] if names & _COLOURS else []
            words += ["texture coordinates"] if names & _TEXTURE else []
    return tuple(dict.fromkeys(words))
