"""A sparse grid's tree as OpenVDB has it: the topology of its nodes, then the leaves' values.

Source: tree/RootNode.h, InternalNode.h, LeafNode.h and io/Compression.h of OpenVDB 10.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from ngp_warp.surfaces.sparse_grid import (
    LOWER,
    UPPER,
    Nodes,
    SparseGrid,
    Topology,
)

_LEAVES_AT_ONCE = 1 << 10
# Floats hardly shrink further at higher levels, which take three times as long.
_ZIP_LEVEL = 1
# What a node's inactive values are, told by its first byte (io/Compression.h).
_BACKGROUND, _MINUS, _ONE, _MASK, _ALL = 0, 1, 2, 3, 6


def topology_bytes(grid: SparseGrid, topology: Topology) -> Iterator[bytes]:
    """Yield everything of a tree up to its leaves' values."""
    upper, lower = topology.upper, topology.lower
    background = grid.background.astype("<f4").tobytes()
    yield struct.pack("<i", 1) + background + struct.pack("<II", 0, len(upper.first))
    for i, first in enumerate(upper.first.tolist()):
        yield struct.pack("<3i", *first) + _node(grid, upper, i, UPPER)
        children = upper.children(i)
        for j in range(children.start, children.stop):
            yield _node(grid, lower, j, LOWER)
            yield grid.active[topology.order[lower.children(j)]].tobytes()


def _node(grid: SparseGrid, nodes: Nodes, i: int, log2_side: int) -> bytes:
    """Return a node's masks and the values of its tiles."""
    n, tiles = 1 << 3 * log2_side, nodes.tiles_of(i)
    values = np.empty((1, n, grid.n_channels), np.float32)
    values[...] = grid.background
    child, active = np.zeros(n, bool), np.zeros((1, n), bool)
    child[nodes.child_slot[nodes.children(i)]] = True
    values[0, nodes.tile_slot[tiles]] = nodes.tiles.values[tiles]
    active[0, nodes.tile_slot[tiles]] = nodes.tiles.active[tiles]
    return b"".join((_bits(child), _bits(active), *_packed(values, active, grid.background)))


def buffers(grid: SparseGrid, topology: Topology) -> Iterator[bytes]:
    """Yield each leaf's mask and values."""
    for begin in range(0, len(topology.order), _LEAVES_AT_ONCE):
        those = topology.order[begin : begin + _LEAVES_AT_ONCE]
        masks = grid.active[those]
        active = np.unpackbits(masks, axis=1, bitorder="little").view(bool)
        packed = _packed(grid.values[those], active, grid.background)
        for mask, values in zip(masks, packed, strict=True):
            yield mask.tobytes() + values


def _bits(mask: np.ndarray) -> bytes:
    return np.packbits(mask, bitorder="little").tobytes()


def _packed(values: np.ndarray, active: np.ndarray, background: np.ndarray) -> Iterator[bytes]:
    """Yield the values [n, m, channels] of n nodes, each behind the byte that tells their form."""
    is_plus: np.ndarray = np.all(values == background, axis=2)
    is_minus: np.ndarray = np.all(values == -background, axis=2)
    first = np.take_along_axis(values, active.argmin(axis=1)[:, None, None], axis=1)
    forms = np.select(
        [
            np.all(told | active, axis=1)
            for told in (is_plus, is_minus, np.all(values == first, axis=2), is_plus | is_minus)
        ],
        [_BACKGROUND, _MINUS, _ONE, _MASK],
        _ALL,
    )
    stored = active | (forms == _ALL)[:, None]
    flat = np.ascontiguousarray(values[stored], "<f4").view(np.uint8).reshape(-1).data
    ends = np.cumsum(np.count_nonzero(stored, axis=1)) * 4 * values.shape[2]
    begin = 0
    for i, (form, end) in enumerate(zip(forms.tolist(), ends.tolist(), strict=True)):
        told = b""
        if form == _ONE:
            told = first[i].astype("<f4").tobytes()
        elif form == _MASK:
            told = _bits(is_plus[i] & ~active[i])
        yield bytes([form]) + told + _zipped(flat[begin:end])
        begin = end


def _zipped(raw: memoryview) -> bytes:
    """Return bytes behind their size, which is negative where they are as they were."""
    small = zlib.compress(raw, _ZIP_LEVEL) if len(raw) else b""
    if 0 < len(small) < len(raw):
        return struct.pack("<q", len(small)) + small
    return struct.pack("<q", -len(raw)) + bytes(raw)
