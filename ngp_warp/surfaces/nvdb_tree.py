"""A sparse grid to NanoVDB: its nodes breadth first, each with bounds and extreme values.

Means and deviations are not computed, and the grid's flags say so.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from ngp_warp.files import atomic_path, check_free_space
from ngp_warp.surfaces import nvdb_layout as nvdb
from ngp_warp.surfaces.sparse_grid import (
    LARGE,
    SMALL,
    Nodes,
    SparseGrid,
    arrange,
    leaf_boxes,
)

_LEAVES_AT_ONCE = 1 << 10


@dataclass(frozen=True)
class _Summary:
    """What is active in nodes or tiles; where nothing is, the other arrays mean nothing."""

    some: np.ndarray
    """bool [n]: whether any voxel is."""
    box: np.ndarray
    """int64 [n, 2, 3], the first and the last voxel."""
    extremes: np.ndarray
    """float32 [n, 2, channels], the smallest and the largest value; of vectors by their length."""


def write_grid(path: str | Path, grid: SparseGrid) -> dict[str, int]:
    """Write one grid, not compressed: it can be used as it lies in the file.

    Args:
        path: the file.
        grid: of 1 or 3 channels, with at least one active voxel. A class that NanoVDB does not
            define for its values (a fog of vectors) becomes "unknown"; a name is cut to 255 bytes.

    Returns:
        ``bytes`` of the file and ``n_voxels`` that are active.

    Raises:
        ResourceError: the folder is missing or cannot be written, or the disk is full.
    """
    path, layout, topology = Path(path), nvdb.layout_of(grid.n_channels), arrange(grid)
    counts = [len(topology.order), len(topology.lower.first), len(topology.upper.first)]
    at_upper = nvdb.TREE.itemsize + layout.root.itemsize + counts[2] * layout.root_entry.itemsize
    at_lower = at_upper + counts[2] * layout.upper.itemsize
    at_leaf = at_lower + counts[1] * layout.lower.itemsize
    size = nvdb.GRID.itemsize + at_leaf + counts[0] * layout.leaf.itemsize

    leaves = _leaf_summary(grid, topology.order)
    ahead = at_leaf - at_lower + layout.leaf.itemsize * np.arange(counts[0])
    lower, lowers = _inner_nodes(layout.lower, topology.lower, SMALL, grid, leaves, ahead)
    ahead = at_lower - at_upper + layout.lower.itemsize * np.arange(counts[1])
    upper, uppers = _inner_nodes(layout.upper, topology.upper, LARGE, grid, lowers, ahead)

    tree = np.zeros((), nvdb.TREE)
    offsets = (at_leaf, at_lower, at_upper, nvdb.TREE.itemsize)
    # 0: there is no such node
    tree["offsets"] = [at if n else 0 for at, n in zip(offsets, (*counts, 1), strict=True)]
    tree["counts"], tree["n_active"] = counts, grid.n_active
    tree["n_tiles"][:2] = [np.count_nonzero(tiles.active) for tiles in (grid.small, grid.large)]
    root, entries = _root(layout, grid, topology.upper, uppers)
    body = tree.tobytes() + root.tobytes() + entries.tobytes()
    head, name = _grid_record(grid, size, root["box"]), _name(grid)
    head["checksum"] = zlib.crc32(head.tobytes()[16:] + body), nvdb.NO_CHECKSUM
    with atomic_path(path) as temporary:
        check_free_space(path.parent, size, f"writing {path}", "choose another folder")
        with temporary.open("wb") as file:
            file.write(np.array((nvdb.MAGIC, nvdb.VERSION, 1, 0), nvdb.FILE).tobytes())
            file.write(_meta(head, tree, root["box"], name).tobytes() + name + b"\0")
            file.write(head.tobytes() + body)
            records = _leaf_records(layout.leaf, grid, topology.order, leaves)
            for nodes in chain((upper, lower), records):
                file.write(nodes.view(np.uint8).data)
        return {"bytes": temporary.stat().st_size, "n_voxels": grid.n_active}


def _parts(order: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield pieces of the leaves: where they come in the file, and their numbers in the grid."""
    for begin in range(0, len(order), _LEAVES_AT_ONCE):
        part = slice(begin, begin + _LEAVES_AT_ONCE)
        yield part, order[part]


def _leaf_summary(grid: SparseGrid, order: np.ndarray) -> _Summary:
    n = len(order)
    box, extremes = np.zeros((n, 2, 3), np.int64), np.zeros((n, 2, grid.n_channels), np.float32)
    some = np.zeros(n, bool)
    for part, those in _parts(order):
        bits = np.unpackbits(grid.active[those], axis=1, bitorder="little").view(bool)
        box[part] = leaf_boxes(grid.first[those], grid.active[those])
        extremes[part] = _extremes(grid.values[those], bits)
        some[part] = np.any(bits, axis=1)
    return _Summary(some, box, extremes)


def _extremes(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the smallest and the largest of some values [n, m, channels]: [n, 2, channels]."""
    sizes = values[..., 0] if values.shape[2] == 1 else np.sum(values * values, axis=2)
    found = np.stack(
        [
            np.where(mask, sizes, np.inf).argmin(axis=1),
            np.where(mask, sizes, -np.inf).argmax(axis=1),
        ],
        axis=1,
    )
    return np.take_along_axis(values, found[..., None], axis=1)


def _total(parts: _Summary) -> tuple[bool, np.ndarray, np.ndarray]:
    """Return whether any part has an active voxel, and their common box and extreme values."""
    if not parts.some.any():
        return False, np.zeros((2, 3), np.int64), np.zeros(parts.extremes.shape[1:], np.float32)
    box, mask = parts.box[parts.some], np.repeat(parts.some, 2)[None]
    values = parts.extremes.reshape(1, len(mask[0]), -1)
    return (
        True,
        np.stack([box[:, 0].min(axis=0), box[:, 1].max(axis=0)]),
        _extremes(values, mask)[0],
    )


def _inner_nodes(
    layout: np.dtype, nodes: Nodes, width: int, grid: SparseGrid, below: _Summary, ahead: np.ndarray
) -> tuple[np.ndarray, _Summary]:
    """Return the nodes of one level, and what is active in them.

    Args:
        layout: of the node.
        nodes: the level.
        width: of an entry in voxels.
        grid: has the background.
        below: what is active in the level below.
        ahead: int64 [m]: how many bytes its nodes lie behind the first node of this level.
    """
    out, n = np.zeros(len(nodes.first), layout), len(nodes.first)
    some, box = np.zeros(n, bool), np.zeros((n, 2, 3), np.int64)
    extremes = np.zeros((n, 2, grid.n_channels), np.float32)
    tile_box = nodes.tiles.first[:, None] + np.array([[0], [width - 1]])
    for i, first in enumerate(nodes.first):
        node, children, tiles = out[i], nodes.children(i), nodes.tiles_of(i)
        values, on = nodes.tiles.values[tiles], nodes.tiles.active[tiles]
        inner, outer = nodes.child_slot[children], nodes.tile_slot[tiles]
        node["entries"]["value"] = grid.background
        node["entries"]["value"][outer] = values
        node["entries"]["value"][inner] = 0
        node["entries"]["child"][inner] = ahead[children] - i * layout.itemsize
        node["children"], node["active"] = (
            np.packbits(np.isin(np.arange(len(node["entries"])), slots), bitorder="little")
            for slots in (inner, outer[on])
        )
        some[i], box[i], extremes[i] = _total(
            _Summary(
                np.concatenate([below.some[children], on]),
                np.concatenate([below.box[children], tile_box[tiles]]),
                np.concatenate([below.extremes[children], np.repeat(values[:, None], 2, axis=1)]),
            )
        )
        # The box also tells where a node lies: an empty one must begin there.
        node["box"] = box[i] if some[i] else (first, first - 1)
        node["flags"] = nvdb.NODE_HAS_BOX if some[i] else nvdb.NODE_SKIP
        node["smallest"], node["largest"] = extremes[i]
    return out, _Summary(some, box, extremes)


def _root(
    layout: nvdb.Layout, grid: SparseGrid, nodes: Nodes, uppers: _Summary
) -> tuple[np.ndarray, np.ndarray]:
    """Return the root, and its table of upper nodes, which follow it."""
    root, entries = np.zeros((), layout.root), np.zeros(len(nodes.first), layout.root_entry)
    root["n_entries"], root["background"] = len(entries), grid.background
    _, root["box"], (root["smallest"], root["largest"]) = _total(uppers)
    # 21 bits of each coordinate / 4096
    x, y, z = ((nodes.first & 0xFFFFFFFF) >> 12).T
    entries["key"] = (x << 42) | (y << 21) | z
    entries["child"] = (
        root.nbytes + entries.nbytes + layout.upper.itemsize * np.arange(len(entries))
    )
    return root, entries


def _leaf_records(
    layout: np.dtype, grid: SparseGrid, order: np.ndarray, leaves: _Summary
) -> Iterator[np.ndarray]:
    for part, those in _parts(order):
        out, some, box = np.zeros(len(those), layout), leaves.some[part], leaves.box[part]
        out["first"] = np.where(some[:, None], box[:, 0], grid.first[those])
        out["extent"] = np.where(some[:, None], box[:, 1] - box[:, 0], 0)
        out["flags"] = np.where(some, nvdb.NODE_HAS_BOX, 0)
        out["active"], out["values"] = grid.active[those], grid.values[those]
        out["smallest"], out["largest"] = leaves.extremes[part].transpose(1, 0, 2)
        yield out


def _name(grid: SparseGrid) -> bytes:
    raw = grid.name.encode()[: nvdb.NAME_BYTES - 1]
    return raw.decode(errors="ignore").encode()  # no half character


def _grid_record(grid: SparseGrid, size: int, box: np.ndarray) -> np.ndarray:
    out, matrix, origin = np.zeros((), nvdb.GRID), grid.to_world[:3, :3], grid.to_world[:3, 3]
    out["magic"], out["version"], out["n_grids"] = nvdb.MAGIC, nvdb.VERSION, 1
    out["flags"] = nvdb.HAS_BOX | nvdb.HAS_EXTREMES | nvdb.BREADTH_FIRST
    out["grid_bytes"], out["name"] = size, _name(grid)
    for kind in ("f4", "f8"):
        out[f"matrix_{kind}"], out[f"inverse_{kind}"] = matrix, np.linalg.inv(matrix)
        out[f"origin_{kind}"], out[f"taper_{kind}"] = origin, 1
    # One more than the last index, as NanoVDB has it.
    ends = np.array([box[0], box[1] + 1], np.float64)
    corners = np.stack(np.meshgrid(*ends.T), axis=-1).reshape(-1, 3) @ matrix.T + origin
    out["world"] = corners.min(axis=0), corners.max(axis=0)
    out["voxel_size"] = np.linalg.norm(matrix, axis=0)
    number, n_channels = nvdb.CLASSES.get(grid.grid_class, (0, 0))
    out["grid_class"] = number if n_channels == grid.n_channels else 0
    out["type"] = nvdb.TYPES[grid.n_channels]
    return out


def _meta(head: np.ndarray, tree: np.ndarray, box: np.ndarray, name: bytes) -> np.ndarray:
    out = np.zeros((), nvdb.META)
    out["grid_bytes"] = out["file_bytes"] = head["grid_bytes"]
    out["n_active"], out["box"], out["version"] = tree["n_active"], box, nvdb.VERSION
    for field in ("type", "grid_class", "world", "voxel_size"):
        out[field] = head[field]
    out["name_bytes"], out["name_key"] = len(name) + 1, _name_key(name)
    out["counts"], out["n_tiles"] = (*tree["counts"], 1), tree["n_tiles"]
    return out


def _name_key(name: bytes) -> int:
    """Return NanoVDB's hash of a name, by which its reader looks grids up."""
    key = 0
    for byte in name:
        key = (key * 67 + byte + (key >> 56)) & 0xFFFFFFFFFFFFFFFF
    return key
