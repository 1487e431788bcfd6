"""Volumes in NanoVDB: a narrow-band level set, as OpenVDB defines one, and a fog of densities.

Where the voxels lie in the file is ``nvdb_tree``'s concern.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ngp_warp.config import check_range
from ngp_warp.errors import DataError
from ngp_warp.surfaces.lattice import BLOCK, Lattice, batches, check_memory
from ngp_warp.surfaces.nvdb_tree import write_grid
from ngp_warp.surfaces.sparse_grid import (
    LARGE,
    LOWER,
    SMALL,
    UPPER,
    Nodes,
    SparseGrid,
    Tiles,
    arrange,
)
from ngp_warp.surfaces.volume_files import Placement

BAND = 3.0
"""Half width of the band in voxels, as OpenVDB's tools have it."""

_BLOCKS_AT_ONCE = 1 << 9
_LOCAL = np.stack(np.unravel_index(np.arange(BLOCK**3), (BLOCK,) * 3), axis=1).astype(np.int32)


def write_nvdb(
    path: str | Path,
    lattice: Lattice,
    placement: Placement,
    *,
    lipschitz: float,
    band: float = BAND,
    done: Callable[[float], None] = lambda share: None,
) -> dict[str, int]:
    """Write a level set: the distances of the voxels that are less than ``band`` voxels away.

    Voxel (i, j, k) is the lattice's node and lies at ``origin + voxel_size * (i, j, k)``. All
    others hold the band's width, negative inside (the last plane of nodes is left out where 8
    divides the resolution). Everything is in the input's units; the grid's name is "distance".

    Args:
        path: ends in .nvdb.
        lattice: cubic.
        placement: where it lies.
        lipschitz: see ``Lattice.near_blocks``.
        band: half width in voxels.
        done: told the share that is done.

    Returns:
        ``bytes`` of the file and ``n_voxels`` that are active.

    Raises:
        ConfigError: a band of less than a voxel.
        DataError: the field has no surface, or is not finite.
        ResourceError: the folder is missing or cannot be written, or the disk is full.
    """
    check_range("band", band, 1.0, 1000.0)
    width = np.float32(band * placement.voxel_size)
    tiles, values = _band(lattice, placement.per_unit, width, lipschitz, done)
    active = _packed(np.abs(part) < width for part in batches(values, _BLOCKS_AT_ONCE))
    grid = _grid("distance", "level set", tiles, values, active, placement, width)
    topology = arrange(grid)
    small = _inside(lattice, topology.lower, LOWER, SMALL, -width)
    large = _inside(lattice, topology.upper, UPPER, LARGE, -width)
    return write_grid(path, replace(grid, small=small, large=large))


def write_fog(
    path: str | Path, tiles: np.ndarray, values: np.ndarray, placement: Placement, name: str
) -> dict[str, int]:
    """Write a fog volume: values of at least 0, the voxels above 0 active.

    Voxel (i, j, k) lies at ``origin + voxel_size * (i, j, k)``; all that are not in the tiles
    hold 0.

    Args:
        path: ends in .nvdb.
        tiles: int32 [n, 3], n >= 1, distinct: the blocks of 8^3 voxels, in blocks.
        values: float32 [n, 512] at their voxels, z fastest.
        placement: where voxels lie; its ``per_unit`` is not used.
        name: of the grid.

    Returns:
        ``bytes`` of the file and ``n_voxels`` that are active.

    Raises:
        ResourceError: the folder is missing or cannot be written, or the disk is full.
    """
    active = _packed(part > 0 for part in batches(values, _BLOCKS_AT_ONCE))
    return write_grid(path, _grid(name, "fog", tiles, values, active, placement, np.float32(0)))


def _band(
    lattice: Lattice,
    per_unit: float,
    width: np.float32,
    lipschitz: float,
    done: Callable[[float], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the blocks int32 [n, 3] that hold a part of the band, and their values [n, 512]."""
    tiles = np.argwhere(lattice.near_blocks(lipschitz, float(width) / per_unit)).astype(np.int32)
    check_memory(len(tiles), lattice.resolution)
    kept, found = [], []
    for begin in range(0, len(tiles), _BLOCKS_AT_ONCE):
        part = tiles[begin : begin + _BLOCKS_AT_ONCE]
        nodes = (part[:, None] * BLOCK + _LOCAL).reshape(-1, 3)
        in_box = np.all(nodes <= lattice.resolution, axis=1)
        values = np.full(len(nodes), width)
        values[in_box] = lattice.values(nodes[in_box]) * np.float32(per_unit)
        blocks = np.clip(values, -width, width).reshape(len(part), -1)
        near = np.any(np.abs(blocks) < width, axis=1)
        kept.append(part[near])
        found.append(blocks[near])
        done((begin + len(part)) / len(tiles))
    if not any(map(len, kept)):
        raise DataError(
            f"the field has no surface at resolution {lattice.resolution}; train longer"
        )
    return np.concatenate(kept), np.concatenate(found)


def _packed(masks: Iterable[np.ndarray]) -> np.ndarray:
    """Return masks bool [n, 512] as bits: uint8 [n, 64]."""
    return np.concatenate([np.packbits(mask, axis=1, bitorder="little") for mask in masks])


def _grid(
    name: str,
    grid_class: str,
    tiles: np.ndarray,
    values: np.ndarray,
    active: np.ndarray,
    placement: Placement,
    background: np.float32,
) -> SparseGrid:
    to_world = np.diag([placement.voxel_size] * 3 + [1.0])
    to_world[:3, 3] = placement.origin
    return SparseGrid(
        name=name,
        grid_class=grid_class,
        to_world=to_world,
        background=background.reshape(1),
        first=BLOCK * tiles,
        values=values[..., None],
        active=active,
        small=Tiles.none(1),
        large=Tiles.none(1),
    )


def _inside(lattice: Lattice, nodes: Nodes, log2_side: int, width: int, value: np.float32) -> Tiles:
    """Return the tiles of nodes, cubes of ``width`` voxels, whose middle is inside."""
    found, table = [np.empty((0, 3), np.int64)], np.arange(1 << 3 * log2_side)
    local = width * np.stack(np.unravel_index(table, (1 << log2_side,) * 3), axis=1)
    for i, first in enumerate(nodes.first):
        corners = first + np.delete(local, nodes.child_slot[nodes.children(i)], axis=0)
        middles = corners + width // 2
        in_box = np.all(middles <= lattice.resolution, axis=1)
        found.append(corners[in_box][lattice.values(middles[in_box]) < 0])
    firsts = np.concatenate(found)
    return Tiles(firsts, np.full((len(firsts), 1), value), np.zeros(len(firsts), bool))
