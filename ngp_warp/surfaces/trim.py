"""A mesh cut down to what is wanted of it."""

from dataclasses import dataclass

import numpy as np

from ngp_warp.surfaces.decimate import decimate
from ngp_warp.surfaces.pieces import Pieces, find_pieces, largest_piece


@dataclass(frozen=True)
class Trimmed:
    """What is left of a mesh."""

    vertices: np.ndarray
    faces: np.ndarray
    pieces: Pieces
    """Those that there were."""
    n_dropped: int
    """How many of them were left out."""


def trim(
    vertices: np.ndarray, faces: np.ndarray, *, largest_only: bool, n_faces: int | None
) -> Trimmed:
    """Return a mesh without its smaller pieces, or with fewer faces, where that is wanted.

    Args:
        vertices: [n, 3].
        faces: [m, 3].
        largest_only: keep only the piece of most faces; its cavities go too.
        n_faces: decimate to about so many; None: keep all.

    Raises:
        ConfigError: a number of faces out of its range.
    """
    pieces = find_pieces(vertices, faces)
    if largest_only:
        vertices, faces = largest_piece(vertices, faces, pieces)
    if n_faces is not None:
        vertices, faces = decimate(vertices, faces, n_faces)
    return Trimmed(vertices, faces, pieces, len(pieces) - 1 if largest_only else 0)
