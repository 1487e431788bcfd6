"""A sparse grid of voxels, and its nodes as NanoVDB and OpenVDB have them.

A tree has leaves of 8^3 voxels, lower nodes of 16^3 leaves, upper nodes of 32^3 lower nodes, and a
root. An entry of a node is a child or a *tile*: a cube of one value.
"""

from dataclasses import dataclass

import numpy as np

SIDE = 8
N_VOXELS = SIDE**3
"""Of a leaf; z is the fastest."""
MASK_BYTES = N_VOXELS // 8
LOWER, UPPER = 4, 5
"""log2 of the side of a node's table."""
SMALL, LARGE = SIDE, SIDE << LOWER
"""Sides of the tiles of lower and upper nodes, in voxels."""
_ROOT_SHIFT = 12
_ROOT_BITS = 20
_LOWER_SHIFT, _LEAF_SHIFT = 7, 3


@dataclass(frozen=True)
class Tiles:
    """Distinct cubes of one value each; their number may be 0."""

    first: np.ndarray
    """int64 [n, 3], their lowest voxels' index."""
    values: np.ndarray
    """float32 [n, channels]."""
    active: np.ndarray
    """bool [n]."""

    @staticmethod
    def none(n_channels: int) -> "Tiles":
        """Return no tiles."""
        return Tiles(np.empty((0, 3), np.int64), np.empty((0, n_channels), np.float32),
                     np.empty(0, bool))  # fmt: skip


@dataclass(frozen=True)
class SparseGrid:
    """All that a grid of scalars or vectors holds. Leaves and tiles do not overlap."""

    name: str
    grid_class: str
    """ "fog", "level set", "staggered" or "unknown"."""
    to_world: np.ndarray
    """float64 [4, 4], index to world, for column vectors; invertible."""
    background: np.ndarray
    """float32 [channels], of all voxels that are in no leaf and no tile; these are inactive."""
    first: np.ndarray
    """int [n, 3], the leaves' lowest voxels' index: multiples of 8."""
    values: np.ndarray
    """float32 [n, 512, channels], finite."""
    active: np.ndarray
    """uint8 [n, 64]: the leaves' active voxels, the lowest bit first."""
    small: Tiles
    """Of 8 voxels a side."""
    large: Tiles
    """Of 128 voxels a side."""

    @property
    def n_channels(self) -> int:
        """1: a scalar."""
        return len(self.background)

    @property
    def n_active(self) -> int:
        """How many voxels are active, those of tiles too."""
        n_bits = int(np.unpackbits(self.active).sum(dtype=np.int64))
        n_small, n_large = (int(np.count_nonzero(t.active)) for t in (self.small, self.large))
        return n_bits + n_small * SMALL**3 + n_large * LARGE**3


@dataclass(frozen=True)
class Nodes:
    """The nodes of one level, in the order of their parents' tables."""

    first: np.ndarray
    """int64 [n, 3], their lowest voxels' index."""
    child_node: np.ndarray
    """int64 [m], ascending: whose children the nodes of the level below are."""
    child_slot: np.ndarray
    """int64 [m]: their entries' numbers in its table, z fastest."""
    tile_node: np.ndarray
    tile_slot: np.ndarray
    tiles: Tiles

    def children(self, node: int) -> slice:
        """Return which nodes of the level below are its children."""
        return _range(self.child_node, node)

    def tiles_of(self, node: int) -> slice:
        """Return which tiles are its."""
        return _range(self.tile_node, node)


@dataclass(frozen=True)
class Topology:
    """Which nodes a tree has."""

    upper: Nodes
    lower: Nodes
    order: np.ndarray
    """int64 [n]: the grid's leaves in the order of their parents' tables."""


def leaf_boxes(first: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Return the first and the last active voxel of leaves: int64 [n, 2, 3].

    Args:
        first: int [n, 3], their lowest voxels.
        active: uint8 [n, 64]; a leaf of none has a box of no meaning.
    """
    rows = active.reshape(-1, SIDE, SIDE)  # a byte is a row along z
    z = np.unpackbits(np.bitwise_or.reduce(active, axis=1)[:, None], axis=1, bitorder="little")
    planes: tuple[np.ndarray, ...] = (np.any(rows, axis=2), np.any(rows, axis=1), z.view(bool))
    begin = np.stack([plane.argmax(axis=1) for plane in planes], axis=1)
    end = SIDE - 1 - np.stack([plane[:, ::-1].argmax(axis=1) for plane in planes], axis=1)
    return np.stack([first + begin, first + end], axis=1).astype(np.int64)


def active_box(grid: SparseGrid) -> np.ndarray:
    """Return the first and the last active voxel of a grid, which has one: int64 [2, 3]."""
    boxes = [leaf_boxes(grid.first, grid.active)[np.any(grid.active, axis=1)]]
    for tiles, width in ((grid.small, SMALL), (grid.large, LARGE)):
        boxes.append(tiles.first[tiles.active][:, None] + np.array([[0], [width - 1]]))
    found = np.concatenate(boxes)
    return np.stack([found[:, 0].min(axis=0), found[:, 1].max(axis=0)])


def arrange(grid: SparseGrid) -> Topology:
    """Find the nodes above leaves and tiles.

    Upper nodes are in the order of x, then y, then z, negative ones first: OpenVDB sorts them so
    when it has read them, and then expects their leaves' values in this order.
    """
    firsts = [np.asarray(first, np.int64) for first in (
        grid.first, grid.small.first, grid.large.first)]  # fmt: skip
    roots = [_root_keys(first) for first in firsts]
    keys, index = np.unique(np.concatenate(roots), return_index=True)
    upper_first = np.concatenate(firsts)[index] >> _ROOT_SHIFT << _ROOT_SHIFT
    # the upper node's number, its entry's, and the entry in the lower node: in one number
    nodes = [np.searchsorted(keys, root) << 3 * UPPER for root in roots]
    lowers = [
        node | _slots(first, _LOWER_SHIFT, UPPER) for node, first in zip(nodes, firsts, strict=True)
    ]
    leaves, small = (
        (lower << 3 * LOWER) | _slots(first, _LEAF_SHIFT, LOWER)
        for lower, first in zip(lowers[:2], firsts[:2], strict=True)
    )
    order = np.argsort(leaves)
    codes, index = np.unique(np.concatenate(lowers[:2]), return_index=True)
    lower_first = np.concatenate(firsts[:2])[index] >> _LOWER_SHIFT << _LOWER_SHIFT
    return Topology(
        _nodes(upper_first, codes, UPPER, lowers[2], grid.large),
        _nodes(
            lower_first,
            _renumbered(leaves[order], codes),
            LOWER,
            _renumbered(small, codes),
            grid.small,
        ),
        order,
    )


def _root_keys(first: np.ndarray) -> np.ndarray:
    """Return a number for the upper node of voxels [n, 3], ascending in the tree's order."""
    x, y, z = ((first >> _ROOT_SHIFT) + (1 << _ROOT_BITS - 1)).T
    return (x << 2 * _ROOT_BITS) | (y << _ROOT_BITS) | z


def _renumbered(entries: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Replace the lower node's code in entries by its place among the codes."""
    slot_mask = (1 << 3 * LOWER) - 1
    return (np.searchsorted(codes, entries >> 3 * LOWER) << 3 * LOWER) | (entries & slot_mask)


def _nodes(
    first: np.ndarray, children: np.ndarray, log2_side: int, tile_codes: np.ndarray, tiles: Tiles
) -> Nodes:
    """Return nodes whose entries are given as node * side^3 + slot."""
    bits, order = 3 * log2_side, np.argsort(tile_codes)
    mask = (1 << bits) - 1
    return Nodes(
        first=first,
        child_node=children >> bits,
        child_slot=children & mask,
        tile_node=tile_codes[order] >> bits,
        tile_slot=tile_codes[order] & mask,
        tiles=Tiles(tiles.first[order], tiles.values[order], tiles.active[order]),
    )


def _slots(first: np.ndarray, shift: int, log2_side: int) -> np.ndarray:
    """Return the entries' numbers of voxels [n, 3] in their nodes' tables."""
    x, y, z = ((first >> shift) & ((1 << log2_side) - 1)).T
    return (x << 2 * log2_side) | (y << log2_side) | z


def _range(nodes: np.ndarray, node: int) -> slice:
    begin, end = np.searchsorted(nodes, (node, node + 1)).tolist()
    return slice(begin, end)
