"""STL, binary and text.

trimesh reads STL too, but takes what is left of a text that was cut short for the whole, and says
of a binary file that was cut short that it is empty.
"""

from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.sdf.readers.source import Soup, parse_numbers

_HEADER_BYTES = 84
_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def read_stl(path: Path) -> Soup:
    """Read an STL's facets; normals and attributes are left out.

    Raises:
        DataError: the file is shorter than its header says, or is no STL.
    """
    data = path.read_bytes()
    n_facets = int.from_bytes(data[80:84], "little")
    needed = _HEADER_BYTES + n_facets * _FACET.itemsize
    # A text also has bytes there, and as a number they are far too large.
    if len(data) >= _HEADER_BYTES and len(data) >= needed:
        corners = np.frombuffer(data, _FACET, n_facets, _HEADER_BYTES)["corners"]
        vertices = corners.reshape(-1, 3).astype(np.float64)
    elif data.lstrip()[:5].lower() == b"solid":
        vertices = _parse_text(data)
    elif len(data) < _HEADER_BYTES:
        raise DataError("it is neither a binary STL, being too short, nor a text with 'solid'")
    else:
        raise DataError(
            f"it is cut short or no STL: its header promises {n_facets} facets in {needed} bytes, "
            f"and it has {len(data)}"
        )
    return Soup(vertices, np.arange(len(vertices)).reshape(-1, 3))


def _parse_text(data: bytes) -> np.ndarray:
    """Return the vertices of all solids [3 * facets, 3]."""
    lines = [line.strip() for line in data.lower().replace(b"\r", b"\n").split(b"\n")]
    rows = [line[6:] for line in lines if line.startswith(b"vertex")]
    n_facets = sum(line.startswith(b"facet") for line in lines)
    last = next((line for line in reversed(lines) if line), b"")
    if not last.startswith(b"endsolid") or len(rows) != 3 * n_facets:
        raise DataError(
            f"it is cut short or broken: it has {n_facets} facets and {len(rows)} vertices, and "
            f"{'ends' if last.startswith(b'endsolid') else 'does not end'} with 'endsolid'"
        )
    values = parse_numbers(b" ".join(rows), np.float64, "vertices")
    if len(values) != 3 * len(rows):
        raise DataError("a vertex has not 3 coordinates")
    return values.reshape(-1, 3)
