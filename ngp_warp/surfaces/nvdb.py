"""Volumes in NanoVDB: a narrow-band level set, as OpenVDB defines one, and a fog of densities.

Warp lays out the tree; what it cannot say (which voxels are active, which tiles lie inside, the
kind of grid, the transform in double precision) is written into the tree's memory here. Source of
the layout: NanoVDB.h of OpenVDB 32.x (nodes of 32^3, 16^3 and 8^3, breadth first).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import check_range
from ngp_warp.errors import DataError
from ngp_warp.files import atomic_path
from ngp_warp.surfaces.lattice import BLOCK, Lattice, check_memory
from ngp_warp.surfaces.volume_files import Placement

BAND = 3.0
"""Half width of the band in voxels, as OpenVDB's tools have it."""

_BLOCKS_AT_ONCE = 1 << 9
_LEVEL_SET, _FOG = 1, 2
_LOCAL = np.stack(np.unravel_index(np.arange(BLOCK**3), (BLOCK,) * 3), axis=1).astype(np.int32)

_GRID = np.dtype(
    {
        "names": ["name", "map", "box", "voxel_size", "grid_class", "offsets", "counts", "active"],
        "formats": ["S256", "V264", "(2,3)<f8", "(3,)<f8", "<u4", "(4,)<i8", "(3,)<u4", "<u8"],
        "offsets": [40, 296, 560, 608, 632, 672, 704, 728],
        "itemsize": 736,
    }
)
_TREE = 672
"""Offsets of nodes are counted from here."""
_MAP = np.dtype(
    [
        (name, kind, size)
        for kind in ("<f4", "<f8")
        for name, size in (
            (f"matrix{kind}", 9),
            (f"inverse{kind}", 9),
            (f"origin{kind}", 3),
            (f"taper{kind}", 1),
        )
    ]
)
_LEAF = np.dtype(
    [
        ("first", "<i4", 3),
        ("extent", "u1", 3),
        ("flags", "u1"),
        ("active", "u1", 64),
        ("statistics", "<f4", 4),
        ("values", "<f4", BLOCK**3),
    ]
)


def _inner_node(size: int) -> np.dtype:
    """Return the layout of a node of size^3 entries, each a child's offset or a tile's value."""
    mask = size**3 // 8
    entry = np.dtype([("value", "<f4"), ("rest", "<u4")])
    return np.dtype(
        [
            ("first", "<i4", 3),
            ("last", "<i4", 3),
            ("flags", "<u8"),
            ("active", "u1", mask),
            ("children", "u1", mask),
            ("statistics", "<f4", 4),
            ("padding", "V16"),
            ("entries", entry, size**3),
        ]
    )


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
    tree = _Tree(tiles, values, placement, background=float(width))
    n_voxels = tree.fill(lambda block: np.abs(block) < width)
    _sign_tiles(tree.memory, tree.grid, lattice)
    _describe(tree.memory, tree.grid, placement, n_voxels, b"distance", _LEVEL_SET)
    return {"bytes": tree.save(path), "n_voxels": n_voxels}


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
    tree = _Tree(tiles, values, placement, background=0.0)
    n_voxels = tree.fill(lambda block: block > 0)
    _describe(tree.memory, tree.grid, placement, n_voxels, name.encode(), _FOG)
    return {"bytes": tree.save(path), "n_voxels": n_voxels}


class _Tree:
    """A volume whose memory is filled here.

    Args:
        tiles: int32 [n, 3], blocks.
        values: float32 [n, 512].
        placement: where voxels lie.
        background: of all other voxels.
    """

    def __init__(
        self, tiles: np.ndarray, values: np.ndarray, placement: Placement, background: float
    ):
        launch.init()
        self._tiles, self._values = tiles, values
        self._volume = wp.Volume.allocate_by_tiles(
            wp.array(BLOCK * tiles, dtype=wp.vec3i, device="cpu"),
            placement.voxel_size,
            bg_value=background,
            translation=placement.origin,
            device="cpu",
        )
        self.memory = self._volume.array().numpy().view(np.uint8)
        self.grid = self.memory[: _GRID.itemsize].view(_GRID)

    def fill(self, is_active: Callable[[np.ndarray], np.ndarray]) -> int:
        """Write the values and the masks of active voxels; return how many are active."""
        return _fill_leaves(self.memory, self.grid, self._tiles, self._values, is_active)

    def save(self, path: str | Path) -> int:
        """Write the file; return its size in bytes."""
        with atomic_path(path) as temporary:
            self._volume.save_to_nvdb(temporary)
            return temporary.stat().st_size


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


def _nodes(memory: np.ndarray, grid: np.ndarray, level: int, layout: np.dtype) -> np.ndarray:
    """Return the nodes of one level of the tree (0: leaves) as they lie in memory."""
    begin = _TREE + int(grid["offsets"][0, level])
    return memory[begin : begin + int(grid["counts"][0, level]) * layout.itemsize].view(layout)


def _fill_leaves(
    memory: np.ndarray,
    grid: np.ndarray,
    tiles: np.ndarray,
    values: np.ndarray,
    is_active: Callable[[np.ndarray], np.ndarray],
) -> int:
    """Write the values and the masks of active voxels; return how many are active."""
    leaves = _nodes(memory, grid, 0, _LEAF)
    number = {tuple(tile): i for i, tile in enumerate(tiles.tolist())}
    order = [number[tuple(tile)] for tile in (leaves["first"] // BLOCK).tolist()]
    n_active = 0
    for begin in range(0, len(leaves), _BLOCKS_AT_ONCE):
        part = slice(begin, begin + _BLOCKS_AT_ONCE)
        block = values[order[part]]
        active = is_active(block)
        leaves["values"][part] = block
        leaves["active"][part] = np.packbits(active, axis=1, bitorder="little")
        n_active += int(np.count_nonzero(active))
    return n_active


def _sign_tiles(memory: np.ndarray, grid: np.ndarray, lattice: Lattice) -> None:
    """Make the background negative in tiles whose middle is inside."""
    for level, size, width in ((1, 16, BLOCK), (2, 32, 16 * BLOCK)):
        layout = _inner_node(size)
        for node in _nodes(memory, grid, level, layout):
            corner = node["first"] // (size * width) * (size * width)
            index = np.unravel_index(np.arange(size**3), (size,) * 3)
            middles = corner + width * np.stack(index, axis=1) + width // 2
            tile = np.unpackbits(node["children"], bitorder="little") == 0
            tile &= np.all(middles <= lattice.resolution, axis=1)
            inside = np.flatnonzero(tile)[lattice.values(middles[tile]) < 0]
            node["entries"]["value"][inside] *= -1


def _describe(
    memory: np.ndarray,
    grid: np.ndarray,
    placement: Placement,
    n_voxels: int,
    name: bytes,
    grid_class: int,
) -> None:
    """Write name, kind, count and the transform, of which Warp keeps float32."""
    size, origin = placement.voxel_size, np.array(placement.origin)
    world = grid["map"].view(_MAP)
    for kind in ("<f4", "<f8"):
        world[f"matrix{kind}"] = np.eye(3).ravel() * size
        world[f"inverse{kind}"] = np.eye(3).ravel() / size
        world[f"origin{kind}"] = origin
    root = _TREE + int(grid["offsets"][0, 3])
    first_and_last = memory[root : root + 24].view("<i4").reshape(2, 3)
    grid["box"] = origin + size * np.add(first_and_last, [[0], [1]])
    grid["voxel_size"] = size
    grid["name"] = name
    grid["grid_class"] = grid_class
    grid["active"] = n_voxels
