"""From a dense box to leaves of 8^3 voxels and tiles: the way back of ``readers/sparse.py``."""

from dataclasses import dataclass

import numpy as np

from ngp_warp import memory
from ngp_warp.errors import ResourceError
from ngp_warp.files import format_bytes
from ngp_warp.primitives.volume.grid import Volume
from ngp_warp.surfaces.sparse_grid import LARGE, N_VOXELS, SIDE, SparseGrid, Tiles

_CUBE = (LARGE // SIDE) ** 3
"""Small tiles in a large one."""


@dataclass(frozen=True)
class _Blocks:
    """Some cubes of 8^3 voxels."""

    first: np.ndarray
    """int64 [n, 3], multiples of 8."""
    values: np.ndarray
    """float32 [n, 512, channels]."""
    active: np.ndarray
    """uint8 [n, 64], the lowest bit first."""

    def of(self, those: np.ndarray) -> "_Blocks":
        return _Blocks(self.first[those], self.values[those], self.active[those])


def sparse_grid(volume: Volume, *, active_tiles: bool) -> SparseGrid:
    """Leave out what is inactive and of the background; make blocks of one value tiles.

    Args:
        volume: of finite values.
        active_tiles: whether blocks all of whose voxels are active may be tiles, too.

    Raises:
        ResourceError: there is not enough memory.
    """
    background = np.array(volume.background, np.float32)
    leaves, tiles = [], []
    begin, end = volume.first[0] // SIDE, -(-(volume.first[0] + len(volume.values)) // SIDE)
    for x in range(begin, end):
        blocks = _slab(volume, background, x)
        on, off = (np.all(blocks.active == byte, axis=1) for byte in (255, 0))
        value = blocks.values[:, 0]
        constant = np.all(blocks.values == value[:, None], axis=(1, 2))
        nothing = off & constant & np.all(value == background, axis=1)
        tile = constant & ~nothing & (off | (on & active_tiles))
        leaves.append(blocks.of(~nothing & ~tile))
        tiles.append(Tiles(blocks.first[tile], value[tile], on[tile]))
    needed, available = sum(part.values.nbytes for part in leaves), memory.available_bytes()
    if needed > available:
        raise ResourceError(
            f"{volume.name!r} as a sparse grid needs {format_bytes(needed)} more of memory and "
            f"{format_bytes(available)} are available; .npz needs none"
        )
    small, large = _merged(
        Tiles(
            np.concatenate([part.first for part in tiles]),
            np.concatenate([part.values for part in tiles]),
            np.concatenate([part.active for part in tiles]),
        )
    )
    return SparseGrid(
        name=volume.name,
        grid_class=volume.grid_class,
        to_world=volume.to_world,
        background=background,
        first=np.concatenate([part.first for part in leaves]),
        values=np.concatenate([part.values for part in leaves]),
        active=np.concatenate([part.active for part in leaves]),
        small=small,
        large=large,
    )


def _slab(volume: Volume, background: np.ndarray, x: int) -> _Blocks:
    """Return the blocks whose first voxels have the index 8 x; beyond the box is the background."""
    low = np.array(volume.first) // SIDE * SIDE
    shape = volume.values.shape[:3]
    n_blocks = -(-(np.array(volume.first) + shape) // SIDE) - low // SIDE
    low[0], n_blocks[0] = SIDE * x, 1
    planes = slice(max(0, int(low[0]) - volume.first[0]), int(low[0]) + SIDE - volume.first[0])
    part = volume.values[planes].reshape(-1, *shape[1:], len(background))
    before = np.array(volume.first) - low
    before[0] += planes.start
    place = tuple(slice(b, b + n) for b, n in zip(before.tolist(), part.shape[:3], strict=True))
    values = np.empty((*(SIDE * n_blocks), len(background)), np.float32)
    values[...] = background
    values[place] = part
    active = np.zeros(values.shape[:3], bool)
    active[place] = True if volume.active is None else volume.active[planes]
    at = np.stack(np.meshgrid(*map(np.arange, n_blocks), indexing="ij"), axis=-1).reshape(-1, 3)
    return _Blocks(
        first=(low + SIDE * at).astype(np.int64),
        values=_cut(values).reshape(len(at), N_VOXELS, -1),
        active=np.packbits(_cut(active).reshape(len(at), N_VOXELS), axis=1, bitorder="little"),
    )


def _cut(slab: np.ndarray) -> np.ndarray:
    """Return the blocks of one slab [8, 8 m, 8 n, ...] as [m, n, 8, 8, 8, ...]."""
    _, y, z = slab.shape[:3]
    cut = slab.reshape(SIDE, y // SIDE, SIDE, z // SIDE, SIDE, *slab.shape[3:])
    return np.moveaxis(cut, (1, 3), (0, 1))


def _merged(tiles: Tiles) -> tuple[Tiles, Tiles]:
    """Return tiles of 8 voxels a side, and those of 128 whose small ones are all alike."""
    _, cube, count = np.unique(
        tiles.first // LARGE, axis=0, return_inverse=True, return_counts=True
    )
    order = np.argsort(cube.reshape(-1), kind="stable")
    begin = np.cumsum(count) - count
    small, first = np.ones(len(tiles.first), bool), []
    for n in np.flatnonzero(count == _CUBE):
        those = order[begin[n] : begin[n] + _CUBE]
        value, on = tiles.values[those], tiles.active[those]
        if np.all(value == value[0]) and np.all(on == on[0]):
            small[those] = False
            first.append(those[0])
    large = np.array(first, np.int64)
    return (
        Tiles(tiles.first[small], tiles.values[small], tiles.active[small]),
        Tiles(tiles.first[large] // LARGE * LARGE, tiles.values[large], tiles.active[large]),
    )
