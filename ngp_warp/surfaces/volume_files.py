"""Values of a lattice to files of NumPy: dense grids."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ngp_warp.files import atomic_path, check_free_space
from ngp_warp.surfaces.lattice import Lattice


@dataclass(frozen=True)
class Placement:
    """Where a lattice lies in the input's units."""

    origin: tuple[float, float, float]
    """Position of node (0, 0, 0)."""
    voxel_size: float
    """Distance of two nodes."""
    per_unit: float
    """The input's units in one unit of the lattice's values."""


def write_npz(
    path: str | Path,
    lattice: Lattice,
    placement: Placement,
    done: Callable[[float], None] = lambda share: None,
    name: str = "distance",
) -> int:
    """Write the values at all nodes of a lattice, uncompressed, plane by plane.

    The file holds ``distance`` (or another ``name``) float32 [n, n, n] (x, y, z) with
    n = resolution + 1, ``origin`` float64 [3] and ``voxel_size`` float64: ``distance[i, j, k]`` is
    that of the point ``origin + voxel_size * (i, j, k)``, all in the input's units; distances are
    negative inside.

    Args:
        path: ends in .npz.
        lattice: the lattice; n^3 floats must have room on the disk, n^2 in memory.
        placement: where it lies.
        done: told the share that is written.
        name: of the values.

    Returns:
        The size of the file in bytes.

    Raises:
        ResourceError: the folder is missing or cannot be written, or the disk is full.
    """
    path, n = Path(path), lattice.resolution + 1
    with atomic_path(path) as temporary:
        check_free_space(path.parent, 4 * n**3, f"writing {path}", "choose a lower resolution")
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for part in ("origin", "voxel_size"):
                with archive.open(f"{part}.npy", "w") as file:
                    np.lib.format.write_array(file, np.array(getattr(placement, part), np.float64))
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                _write_planes(file, lattice, placement, done)
        return temporary.stat().st_size


def write_npy(
    path: str | Path,
    lattice: Lattice,
    placement: Placement,
    done: Callable[[float], None] = lambda share: None,
) -> int:
    """Write the values at all nodes of a lattice, float32 [n, n, n] (x, y, z), plane by plane.

    Arguments, return value and errors as ``write_npz``.
    """
    path, n = Path(path), lattice.resolution + 1
    with atomic_path(path) as temporary:
        check_free_space(path.parent, 4 * n**3, f"writing {path}", "choose a lower resolution")
        with temporary.open("wb") as file:
            _write_planes(file, lattice, placement, done)
        return temporary.stat().st_size


def _write_planes(
    file: IO[bytes], lattice: Lattice, placement: Placement, done: Callable[[float], None]
) -> None:
    n = lattice.resolution + 1
    header = {"descr": "<f4", "fortran_order": False, "shape": (n, n, n)}
    np.lib.format.write_array_header_2_0(file, header)
    plane = np.argwhere(np.ones((1, n, n), bool))
    for x in range(n):
        values = lattice.values(plane + np.array([x, 0, 0])) * placement.per_unit
        file.write(values.astype("<f4").tobytes())
        done((x + 1) / n)
