"""Sparse points of a reconstruction from a PLY."""

from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.nerf.scene.checks import SceneError
from ngp_warp.primitives.nerf.scene.files import read_bytes
from ngp_warp.primitives.sdf.readers.ply import read_ply


def read_points_ply(path: Path) -> np.ndarray | None:
    """Return a PLY's vertices, float64 [n, 3], without those that are not finite; None: none.

    Raises:
        DataError: it is missing or broken.
    """
    read_bytes(path)  # says in one line what the reader's own error would not
    try:
        return finite(read_ply(path).vertices)
    except DataError as error:
        raise SceneError(str(path), str(error), "write it again, or remove its key") from error


def finite(points: np.ndarray) -> np.ndarray | None:
    """Return the finite ones of points [n, 3]; None where there are none."""
    points = points[np.isfinite(points).all(axis=1)]
    return points if len(points) else None
