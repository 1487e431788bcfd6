"""The density and the occupancy grid of a radiance field as volumes, in the scene's units."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.files import atomic_path, check_output
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.nerf.solid import Bounds, Cells, Density, region_of
from ngp_warp.radiance.settings import CELLS
from ngp_warp.surfaces.lattice import BLOCK, Lattice, batches, check_memory
from ngp_warp.surfaces.nvdb import write_fog
from ngp_warp.surfaces.volume_files import write_npy, write_npz

VOLUME_SUFFIXES = (".npz", ".npy", ".nvdb")
_BLOCKS_AT_ONCE = 1 << 9
_LOCAL = np.stack(np.unravel_index(np.arange(BLOCK**3), (BLOCK,) * 3), axis=1)


def export_volume(
    path: str | Path,
    field: Any,
    frame: Frame,
    *,
    resolution: int,
    bounds: Bounds | None = None,
    progress: Report = report_nothing,
) -> dict[str, Any]:
    """Write the density on a lattice: what a unit of the scene's length absorbs.

    As it is rendered: 0 where the occupancy grid is free. NVDB holds a fog volume of the nodes
    where it is not; NPZ ``density`` float32 [n, n, n] (x, y, z), ``origin`` and ``voxel_size``; NPY
    the density alone, beside a .json with origin and voxel_size. Node (i, j, k) lies at
    origin + voxel_size * (i, j, k).

    Args:
        path: ends in .nvdb, .npz or .npy.
        field: a ``RadianceField``.
        frame: from the scene to the box.
        resolution: cells along the longest side of the limits; a dense grid is a cube of one node
            more along each side, 0 beyond the limits.
        bounds: limits in scene units; None: the inner cube.
        progress: told of the work.

    Returns:
        origin, voxel_size and bytes; of NVDB n_voxels (above 0), else shape.

    Raises:
        ConfigError: another extension, limits or resolution out of range.
        DataError: the density is 0 everywhere, or not finite.
        ResourceError: too little memory, or the file cannot be written.
    """
    path = check_output(path, VOLUME_SUFFIXES)
    region = region_of(field, frame, resolution, bounds)
    cells = Cells(field)
    lattice = Density(field, frame, region, cells).lattice()
    placement = region.placement(frame)

    def done(share: float) -> None:
        progress(Progress(stage="write", step=math.floor(100 * share), total=100))

    told: dict[str, Any] = {
        "origin": list(placement.origin),
        "voxel_size": placement.voxel_size,
    }
    if path.suffix.lower() == ".nvdb":
        tiles, values = _fog(lattice, cells.blocks(region), done)
        return {**told, **write_fog(path, tiles, values, placement, "density")}
    if path.suffix.lower() == ".npz":
        n_bytes = write_npz(path, lattice, placement, done, "density")
    else:
        # the transform first: where the grid is, its place is known
        with atomic_path(path.with_name(f"{path.name}.json")) as temporary:
            temporary.write_text(json.dumps({**told, "axes": "xyz"}, indent=2) + "\n")
        n_bytes = write_npy(path, lattice, placement, done)
    return {**told, "shape": [resolution + 1] * 3, "bytes": n_bytes}


def _fog(lattice: Lattice, blocks: np.ndarray, done: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the blocks int32 [n, 3] that hold a density, and their values float32 [n, 512]."""
    tiles = np.argwhere(blocks).astype(np.int32)
    check_memory(len(tiles), lattice.resolution)
    kept, found = [], []
    for part in batches(tiles, _BLOCKS_AT_ONCE):
        nodes = (part[:, None] * BLOCK + _LOCAL).reshape(-1, 3)
        values = lattice.values(nodes).reshape(len(part), -1)
        dense = np.any(values > 0, axis=1)
        kept.append(part[dense])
        found.append(values[dense])
        done(len(kept) * _BLOCKS_AT_ONCE / max(len(tiles), _BLOCKS_AT_ONCE * len(kept)))
    if not any(map(len, kept)):
        raise DataError("the density is 0 everywhere within the limits; give another --box")
    return np.concatenate(kept), np.concatenate(found)


def export_occupancy(
    path: str | Path, field: Any, frame: Frame, *, progress: Report = report_nothing
) -> dict[str, Any]:
    """Write the occupancy grid: .npz of ``occupied``, ``origin`` and ``cell_size``.

    ``occupied`` is bool [n_cascades, 128, 128, 128], indexed [cascade, x, y, z]; cell (i, j, k) of
    cascade c fills the cube from origin[c] + cell_size[c] * (i, j, k), in scene units, to the next.

    Args:
        path: ends in .npz.
        field: a ``RadianceField``.
        frame: from the scene to the box.
        progress: told that it is at work.

    Returns:
        n_cascades, n_occupied (a list, by cascade), and bytes.

    Raises:
        ConfigError: another extension.
        ResourceError: the file cannot be written.
    """
    path = check_output(path, (".npz",))
    progress(Progress(stage="write", step=0, total=1))
    cells = Cells(field)
    sides = np.array([cells.side(c) for c in range(len(cells))])
    corners = np.repeat(0.5 - sides[:, None] / 2, 3, axis=1)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            occupied=cells.occupied.transpose(0, 3, 2, 1),
            origin=frame.to_scene(corners),
            cell_size=sides / CELLS / frame.scale,
        )
    progress(Progress(stage="write", step=1, total=1))
    return {
        "n_cascades": len(cells),
        "n_occupied": [int(count) for count in cells.occupied.sum(axis=(1, 2, 3))],
        "bytes": path.stat().st_size,
    }
