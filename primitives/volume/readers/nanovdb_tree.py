"""A NanoVDB grid's memory: nodes of 32^3 and 16^3 entries and leaves of 8^3 voxels.

A node's children are found by the offsets in its table alone, so that the order of nodes in memory
does not matter. Source: PNanoVDB.h, whose table of offsets a test compares with these layouts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.volume.readers.sparse import (
    LOWER,
    MASK_BYTES,
    N_VOXELS,
    ROOT_WIDTH,
    UPPER,
    WIDTHS,
    Tiles,
    Tree,
    corners,
    notable,
)

NAMES = (
    "unknown", "float32", "float64", "int16", "int32", "int64", "vec3f", "vec3d", "mask", "half",
    "uint32", "bool", "rgba8", "fp4", "fp8", "fp16", "fpn", "vec4f", "vec4d", "index", "on-index",
    "index-mask", "on-index-mask", "points", "vec3u8", "vec3u16", "uint8",
)  # fmt: skip
"""By NanoVDB's number of the type."""
_TREE = 672
_MASK_AT = 16


def _aligned(offset: int, to: int) -> int:
    return -(-offset // to) * to


@dataclass(frozen=True)
class Layout:
    """Where things lie in the nodes of one type of value."""

    name: str
    value: np.dtype
    """One component, as tiles have it."""
    n_channels: int = 1
    align: int = 4
    """Of a value, in bytes."""
    statistics: tuple[int, int] = (4, 4)
    """Sizes in bytes: minimum and maximum (each); mean and deviation (each)."""
    leaf_at: int = 96
    """Where a leaf's values begin."""
    code_bits: int = 0
    """Of a quantized value; -1: told by each leaf; 0: not quantized."""

    @property
    def value_bytes(self) -> int:
        """Size of a value."""
        return self.value.itemsize * self.n_channels

    @property
    def background_at(self) -> int:
        """Where the root has its background."""
        return _aligned(28, self.align)

    @property
    def root_bytes(self) -> int:
        """Size of the root without its table."""
        return _aligned(self._after_statistics(self.background_at + self.value_bytes), 32)

    @property
    def root_value_at(self) -> int:
        """Where an entry of the root's table has its value."""
        return _aligned(20, self.align)

    @property
    def root_entry_bytes(self) -> int:
        """Size of an entry of the root's table."""
        return _aligned(self.root_value_at + self.value_bytes, 32)

    @property
    def entry_bytes(self) -> int:
        """Size of an entry of a node's table: a value or an offset."""
        return _aligned(max(8, self.value_bytes), 8)

    def table_at(self, log2_side: int) -> int:
        """Return where a node's table begins."""
        return _aligned(self._after_statistics(32 + 2 * (1 << 3 * log2_side) // 8), 32)

    def node_bytes(self, log2_side: int) -> int:
        """Return the size of a node."""
        return self.table_at(log2_side) + (self.entry_bytes << 3 * log2_side)

    @property
    def leaf_bytes(self) -> int:
        """Size of a leaf; of leaves that tell their own, the smallest's."""
        bits = 8 * self.value_bytes
        if self.code_bits:
            bits = max(self.code_bits, 1)
        elif self.value.kind == "b":
            return {"bool": 160, "mask": 96}[self.name]
        return _aligned(self.leaf_at + N_VOXELS * bits // 8, 32)

    def _after_statistics(self, offset: int) -> int:
        extreme, moment = self.statistics
        offset = _aligned(offset, self.align) + 2 * extreme
        return _aligned(offset, min(moment, 8)) + 2 * moment


def _layouts() -> dict[int, Layout]:
    f4, f8 = np.dtype("<f4"), np.dtype("<f8")
    eight = {"align": 8, "leaf_at": 128}
    flags = {"align": 1, "statistics": (1, 1), "leaf_at": 80}
    layouts = (
        Layout("float32", f4),
        Layout("float64", f8, statistics=(8, 8), **eight),
        Layout("int16", np.dtype("<i2"), align=2, statistics=(2, 4)),
        Layout("int32", np.dtype("<i4")),
        Layout("int64", np.dtype("<i8"), statistics=(8, 8), **eight),
        Layout("vec3f", f4, 3, statistics=(12, 4), leaf_at=128),
        Layout("vec3d", f8, 3, align=8, statistics=(24, 8), leaf_at=160),
        Layout("mask", np.dtype("?"), **flags),
        Layout("uint32", np.dtype("<u4")),
        Layout("bool", np.dtype("?"), **flags),
        Layout("fp4", f4, code_bits=4),
        Layout("fp8", f4, code_bits=8),
        Layout("fp16", f4, code_bits=16),
        Layout("fpn", f4, code_bits=-1),
        Layout("vec4f", f4, 4, statistics=(16, 4), leaf_at=128),
        Layout("vec4d", f8, 4, align=8, statistics=(32, 8), leaf_at=160),
    )
    return {NAMES.index(layout.name): layout for layout in layouts}


LAYOUTS = _layouts()
"""By NanoVDB's number of the type: those that are read."""


def read_tree(memory: np.ndarray, layout: Layout) -> Tree:
    """Read the nodes of a grid.

    Args:
        memory: uint8 [n], the whole grid.
        layout: of its type.

    Raises:
        DataError: a node lies outside the grid, or there are more of them than it has room for.
    """
    offset = int(memory[_TREE + 24 : _TREE + 32].view("<i8")[0])
    root = _TREE + offset
    _check(memory, np.array([root]), layout.root_bytes)
    n_entries = int(memory[root + 24 : root + 28].view("<u4")[0])
    table = root + layout.root_bytes
    size = layout.root_entry_bytes
    _check(memory, np.array([table]), n_entries * size)
    entries = memory[table : table + n_entries * size].reshape(n_entries, size)
    background = _values(memory[None, root + layout.background_at :], layout)[0]
    child = _field(entries, 8, "<i8")
    origins = _origins(_field(entries, 0, "<u8"))
    tile = child == 0
    values = _values(entries[:, layout.root_value_at :], layout)
    on = _field(entries, 16, "<u4") != 0
    tiles = [notable(origins[tile], ROOT_WIDTH, values[tile], on[tile], background)]
    nodes, firsts = root + child[~tile], origins[~tile]
    for log2_side in (UPPER, LOWER):
        nodes, firsts = _descend(memory, layout, log2_side, nodes, firsts, background, tiles)
    _check_leaves(memory, nodes, layout)
    return Tree(
        background=background,
        tiles=tiles,
        first=firsts,
        active=memory[nodes[:, None] + np.arange(_MASK_AT, _MASK_AT + MASK_BYTES)],
        values=partial(_leaf_values, memory, layout, nodes),
    )


def _check(memory: np.ndarray, nodes: np.ndarray, size: int) -> None:
    """Raise DataError unless nodes of a size lie within the grid, and have room side by side."""
    inside = (nodes >= _TREE) & (nodes <= len(memory) - size)
    if not inside.all() or len(nodes) * size > len(memory):
        raise DataError("it is broken: a node lies outside of its grid")


def _check_leaves(memory: np.ndarray, nodes: np.ndarray, layout: Layout) -> None:
    _check(memory, nodes, layout.leaf_bytes)
    if layout.code_bits < 0 and len(nodes):
        bits = memory[nodes + 15] >> 5
        if bits.max() > 4:
            raise DataError("it is broken: a leaf's values have an unknown number of bits")
        ends = nodes + layout.leaf_at + (N_VOXELS // 8 << bits.astype(np.int64))
        if ends.max() > len(memory):
            raise DataError("it is broken: a node lies outside of its grid")


def _field(rows: np.ndarray, at: int, kind: str) -> np.ndarray:
    """Return a number of every row [n]."""
    size = np.dtype(kind).itemsize
    return np.ascontiguousarray(rows[:, at : at + size]).view(kind)[:, 0]


def _values(rows: np.ndarray, layout: Layout) -> np.ndarray:
    """Return the values with which rows of bytes begin: float32 [n, channels]."""
    raw = np.ascontiguousarray(rows[:, : layout.value_bytes])
    if layout.value.kind == "b":
        return (raw != 0).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return raw.view(layout.value).astype(np.float32)


def _origins(keys: np.ndarray) -> np.ndarray:
    """Return the indices that keys of the root's table stand for: 21 bits a coordinate / 4096."""
    shifts = np.array([42, 21, 0], np.uint64)
    parts = (keys[:, None] >> shifts) & np.uint64((1 << 21) - 1)
    return (parts.astype(np.uint32) * np.uint32(ROOT_WIDTH)).view(np.int32).astype(np.int64)


def _descend(
    memory: np.ndarray,
    layout: Layout,
    log2_side: int,
    nodes: np.ndarray,
    firsts: np.ndarray,
    background: np.ndarray,
    tiles: list[Tiles],
) -> tuple[np.ndarray, np.ndarray]:
    """Add the tiles of nodes; return where their children lie in memory and in space."""
    _check(memory, nodes, layout.node_bytes(log2_side))
    mask_bytes, width = (1 << 3 * log2_side) // 8, WIDTHS[log2_side]
    table, size = layout.table_at(log2_side), layout.entry_bytes
    children, corners_of = [np.empty(0, np.int64)], [np.empty((0, 3), np.int64)]
    for node, first in zip(nodes.tolist(), firsts, strict=True):
        masks = memory[node + 32 : node + 32 + 2 * mask_bytes].reshape(2, mask_bytes)
        active, child = np.unpackbits(masks, axis=1, bitorder="little").view(bool)
        entries = memory[node + table : node + table + (size << 3 * log2_side)].reshape(-1, size)
        inner = np.flatnonzero(child)
        children.append(node + _field(entries[inner], 0, "<i8"))
        corners_of.append(corners(first, inner, log2_side, width))
        outer = np.flatnonzero(~child)
        found, values = corners(first, outer, log2_side, width), _values(entries[outer], layout)
        if layout.name == "mask":
            values = active[outer, None].astype(np.float32)
        tiles.append(notable(found, width, values, active[outer], background))
    return np.concatenate(children), np.concatenate(corners_of)


def _leaf_values(memory: np.ndarray, layout: Layout, nodes: np.ndarray, part: slice) -> np.ndarray:
    """Return the values of some leaves: float32 [m, 512, channels]."""
    where = nodes[part]

    def rows(at: int, size: int) -> np.ndarray:
        return memory[where[:, None] + np.arange(at, at + size)]

    if layout.code_bits:
        return _dequantized(memory, layout, where, rows)[..., None]
    if layout.value.kind == "b":
        at = _MASK_AT if layout.name == "mask" else layout.leaf_at
        bits = np.unpackbits(rows(at, MASK_BYTES), axis=1, bitorder="little")
        return bits[..., None].astype(np.float32)
    raw = rows(layout.leaf_at, N_VOXELS * layout.value_bytes).view(layout.value)
    with np.errstate(over="ignore", invalid="ignore"):
        return raw.reshape(len(where), N_VOXELS, layout.n_channels).astype(np.float32)


def _dequantized(
    memory: np.ndarray,
    layout: Layout,
    where: np.ndarray,
    rows: Callable[[int, int], np.ndarray],
) -> np.ndarray:
    """Return ``code * quantum + minimum`` of leaves: float32 [m, 512]."""
    minimum, quantum = rows(80, 8).view("<f4").T[..., None]
    if layout.code_bits > 0:
        codes = _codes(rows(layout.leaf_at, N_VOXELS * layout.code_bits // 8), layout.code_bits)
    else:
        codes = np.empty((len(where), N_VOXELS), np.float32)
        bits = 1 << (memory[where + 15] >> 5)
        for b in np.unique(bits).tolist():
            those = bits == b
            place = layout.leaf_at + np.arange(N_VOXELS * b // 8)
            codes[those] = _codes(memory[where[those, None] + place], b)
    with np.errstate(over="ignore", invalid="ignore"):
        return codes * quantum + minimum


def _codes(raw: np.ndarray, bits: int) -> np.ndarray:
    """Return packed codes as float32 [m, 512]; the lowest bits are the first."""
    if bits == 16:
        return raw.view("<u2").astype(np.float32)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (raw[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return codes.reshape(len(raw), N_VOXELS).astype(np.float32)
