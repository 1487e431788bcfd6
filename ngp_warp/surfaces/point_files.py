"""Point clouds to binary PLY."""

from pathlib import Path

import numpy as np

from ngp_warp.errors import ShapeError
from ngp_warp.files import atomic_path, check_output

_ROW = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    + [(name, "u1") for name in ("red", "green", "blue")]
)
_TYPES = {"<f4": "float", "|u1": "uchar"}


def write_points(
    path: str | Path, points: np.ndarray, normals: np.ndarray, colors: np.ndarray
) -> int:
    """Write points with normals and colours.

    Args:
        path: ends in .ply.
        points: [n, 3]; written as float32.
        normals: [n, 3].
        colors: uint8 [n, 3], sRGB.

    Returns:
        The size of the file in bytes.

    Raises:
        ConfigError: another extension.
        ShapeError: arrays of different lengths.
        ResourceError: the folder is missing or cannot be written, or the disk is full.
    """
    path = check_output(path, (".ply",))
    if not points.shape == normals.shape == colors.shape:
        raise ShapeError(
            f"points {list(points.shape)}, normals {list(normals.shape)} and colours "
            f"{list(colors.shape)} must be alike"
        )
    rows = np.empty(len(points), _ROW)
    values = np.concatenate([points, normals], axis=1)
    for i, name in enumerate(("x", "y", "z", "nx", "ny", "nz")):
        rows[name] = values[:, i]
    for i, name in enumerate(("red", "green", "blue")):
        rows[name] = colors[:, i]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    for name in _ROW.names or ():
        header.append(f"property {_TYPES[_ROW[name].str]} {name}")
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            file.write(("\n".join([*header, "end_header"]) + "\n").encode())
            rows.tofile(file)
        return temporary.stat().st_size
