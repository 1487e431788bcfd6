"""From a sparse tree, as OpenVDB and NanoVDB have it, to a dense box.

A tree has leaves of 8^3 voxels, and *tiles*: cubes of 8, 128 or 4096 voxels a side with one value.
A tile may be active, and counts as so many voxels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.volume.grid import Index
from ngp_warp.primitives.volume.readers.source import CHUNK_BYTES, Box, check_memory

SIDE = 8
N_VOXELS = SIDE**3
"""Of a leaf; z is the fastest."""
MASK_BYTES = N_VOXELS // 8
LOWER, UPPER = 4, 5
"""log2 of the side of a node's table, in trees of the usual form."""
WIDTHS = {LOWER: SIDE, UPPER: SIDE << LOWER}
"""Of an entry, in voxels."""
ROOT_WIDTH = SIDE << (LOWER + UPPER)
_LOCAL = np.stack(np.unravel_index(np.arange(N_VOXELS), (SIDE,) * 3), axis=1)


@dataclass(frozen=True)
class Tiles:
    """Cubes of one value each."""

    first: np.ndarray
    """int64 [n, 3], their lowest voxel's index."""
    width: int
    values: np.ndarray
    """float32 [n, channels]."""
    active: np.ndarray
    """bool [n]."""


@dataclass(frozen=True)
class Tree:
    """All that a grid holds."""

    background: np.ndarray
    """float32 [channels]."""
    tiles: list[Tiles]
    """Distinct; inactive ones of the background are left out."""
    first: np.ndarray
    """int64 [n, 3]: the leaves' lowest voxels' index."""
    active: np.ndarray
    """uint8 [n, 64]: their masks, the lowest bit first."""
    values: Callable[[slice], np.ndarray]
    """Of some leaves: float32 [m, 512, channels]."""


def notable(
    first: np.ndarray,
    width: int,
    values: np.ndarray,
    active: np.ndarray,
    tree_background: np.ndarray,
) -> Tiles:
    """Return those tiles that differ from what is outside the tree."""
    with np.errstate(invalid="ignore"):
        keep = active | np.any(values != tree_background, axis=1)
    return Tiles(first[keep], width, values[keep], active[keep])


def corners(origin: np.ndarray, entries: np.ndarray, log2_side: int, width: int) -> np.ndarray:
    """Return where entries of a node's table lie: int64 [n, 3].

    Args:
        origin: [3], the node's lowest voxel.
        entries: their numbers, z fastest.
        log2_side: of the table.
        width: of an entry in voxels.
    """
    mask = (1 << log2_side) - 1
    place = (entries >> (2 * log2_side), (entries >> log2_side) & mask, entries & mask)
    return origin + width * np.stack(place, axis=1).astype(np.int64)


def densify(tree: Tree, to_world: np.ndarray) -> Box:
    """Fill the bounding box of the active voxels.

    Raises:
        DataError: no voxel is active.
        ResourceError: the box does not fit into memory.
    """
    low, high = _bounds(tree)
    shape = tuple((high - low).tolist())
    n_channels = len(tree.background)
    check_memory(shape, 4 * n_channels + 1, 4 * CHUNK_BYTES)
    values = np.empty((*shape, n_channels), np.float32)
    values[...] = tree.background
    active = np.zeros(shape, bool)
    fill = partial(_fill_blocks, low=low, out=values, active=active)
    for tiles in tree.tiles:
        if tiles.width == SIDE:
            fill(tiles.first, tiles.values[:, None].__getitem__, tiles.active[:, None].__getitem__)
        else:
            _fill_cubes(tiles, low, values, active)
    fill(tree.first, tree.values, partial(_masks, tree))
    return Box(
        values=values if n_channels > 1 else values[..., 0],
        first=_index(low),
        active=None if active.all() else active,
        background=tuple(tree.background.tolist()),
        to_world=to_world,
    )


def _index(point: np.ndarray) -> Index:
    x, y, z = point.tolist()
    return x, y, z


def _parts(n_leaves: int, n_channels: int) -> Iterator[slice]:
    step = max(1, CHUNK_BYTES // (N_VOXELS * 8 * (2 + n_channels)))
    return (slice(i, min(i + step, n_leaves)) for i in range(0, n_leaves, step))


def _masks(tree: Tree, part: slice) -> np.ndarray:
    """Return which voxels of some leaves are active: bool [m, 512]."""
    return np.unpackbits(tree.active[part], axis=1, bitorder="little").view(bool)


def _bounds(tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last index (excluded) of the active voxels' box."""
    low, high = np.full(3, np.iinfo(np.int64).max), np.full(3, np.iinfo(np.int64).min)
    for tiles in tree.tiles:
        if tiles.active.any():
            first = tiles.first[tiles.active]
            low = np.minimum(low, first.min(axis=0))
            high = np.maximum(high, first.max(axis=0) + tiles.width)
    some = tree.active.any(axis=1)
    if some.any():
        first, planes = tree.first[some], tree.active[some].reshape(-1, SIDE, SIDE)
        bits = np.bitwise_or.reduce(tree.active[some], axis=1)[:, None]  # a byte is a row of z
        rows: tuple[np.ndarray, ...] = (
            np.any(planes, axis=2),
            np.any(planes, axis=1),
            np.unpackbits(bits, 1, bitorder="little"),
        )
        begin = np.stack([row.argmax(axis=1) for row in rows], axis=1)
        end = SIDE - np.stack([row[:, ::-1].argmax(axis=1) for row in rows], axis=1)
        low = np.minimum(low, (first + begin).min(axis=0))
        high = np.maximum(high, (first + end).max(axis=0))
    if np.any(low >= high):
        raise DataError("the grid is empty: none of its voxels is active")
    return low, high


def _fill_cubes(tiles: Tiles, low: np.ndarray, out: np.ndarray, active: np.ndarray) -> None:
    """Write the parts of large tiles that lie in the box."""
    for first, value, on in zip(tiles.first, tiles.values, tiles.active, strict=True):
        begin = np.maximum(first - low, 0)
        end = np.minimum(first + tiles.width - low, active.shape)
        if np.all(begin < end):
            box = tuple(slice(a, b) for a, b in zip(begin, end, strict=True))
            out[box] = value
            active[box] = on


def _fill_blocks(
    first: np.ndarray,
    values: Callable[[slice], np.ndarray],
    masks: Callable[[slice], np.ndarray],
    *,
    low: np.ndarray,
    out: np.ndarray,
    active: np.ndarray,
) -> None:
    """Write the voxels of blocks of 8^3 that lie in the box.

    Args:
        first: int64 [n, 3], the blocks' lowest voxels.
        values: of some blocks: [m, 512 or 1, channels].
        masks: of some blocks: which are active, [m, 512 or 1].
        low: the box's lowest voxel.
        out: the box [x, y, z, channels].
        active: the box [x, y, z].
    """
    shape = np.array(active.shape)
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    flat, flat_active = out.reshape(-1, out.shape[3]), active.reshape(-1)
    for part in _parts(len(first), out.shape[3]):
        corner = first[part] - low
        place = (corner @ strides)[:, None] + _LOCAL @ strides
        block, mask = values(part), masks(part)
        whole = np.all((corner >= 0) & (corner + SIDE <= shape), axis=1)
        flat[place[whole]] = block[whole]
        flat_active[place[whole]] = mask[whole]
        reach: np.ndarray = np.all((corner > -SIDE) & (corner < shape), axis=1)
        for n in np.flatnonzero(reach & ~whole):
            index = corner[n] + _LOCAL
            inside: np.ndarray = np.all((index >= 0) & (index < shape), axis=1)
            flat[place[n, inside]] = np.broadcast_to(block[n], (N_VOXELS, out.shape[3]))[inside]
            flat_active[place[n, inside]] = np.broadcast_to(mask[n], N_VOXELS)[inside]
