"""OpenVDB files (.vdb): one grid, file version 224, zip and active masks.

Source: io/Archive.cc, io/GridDescriptor.cc, Grid.cc, math/Maps.h of OpenVDB 10, as the reader.
"""

import hashlib
import struct
import uuid
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ngp_warp.files import atomic_path
from ngp_warp.primitives.volume.writers.openvdb_tree import buffers, topology_bytes
from ngp_warp.surfaces.sparse_grid import (
    LOWER,
    N_VOXELS,
    UPPER,
    SparseGrid,
    Topology,
    active_box,
    arrange,
)

_MAGIC, _VERSION, _LIBRARY = 0x56444220, 224, (10, 0)
_ZIP_AND_MASKS = 1 | 2
_TYPES = {1: "Tree_float_5_4_3", 3: "Tree_vec3s_5_4_3"}
"""By the number of channels."""
_CLASSES = {"fog": "fog volume"}
"""Where it is not our own name."""
_ROOT_BYTES = 1296
"""In OpenVDB's memory, with the tree around it, less its values."""


def write_openvdb(path: Path, grid: SparseGrid) -> dict[str, int]:
    """Write one grid.

    Args:
        path: the file.
        grid: of 1 or 3 channels, with at least one active voxel.

    Returns:
        ``bytes`` of the file and ``n_voxels`` that are active.

    Raises:
        ResourceError: the folder is missing or cannot be written, or the disk is full.
    """
    topology = arrange(grid)
    start = struct.pack("<qIII?", _MAGIC, _VERSION, *_LIBRARY, True)
    head = _metadata({}) + struct.pack("<i", 1)
    head += _text(grid.name) + _text(_TYPES[grid.n_channels]) + _text("")
    described = struct.pack("<I", _ZIP_AND_MASKS) + _described(grid, topology)
    described += _transform(grid.to_world)
    tree = topology_bytes(grid, topology)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        # 36 characters of a UUID, and three offsets, are known at the end.
        at_offsets = len(start) + 36 + len(head)
        begin = at_offsets + 24
        file.seek(begin)
        digest = hashlib.sha256(head)
        for part in _counted(digest, (described, *tree)):
            file.write(part)
        block = file.tell()
        for part in _counted(digest, buffers(grid, topology)):
            file.write(part)
        end = file.tell()
        file.seek(0)
        file.write(start + str(uuid.UUID(bytes=digest.digest()[:16], version=5)).encode() + head)
        file.write(struct.pack("<qqq", begin, block, end))
    return {"bytes": end, "n_voxels": grid.n_active}


def _counted(digest, parts: Iterable[bytes]) -> Iterable[bytes]:
    for part in parts:
        digest.update(part)
        yield part


def _text(string: str) -> bytes:
    raw = string.encode()
    return struct.pack("<I", len(raw)) + raw


def _metadata(values: dict[str, str | bool | int | np.ndarray]) -> bytes:
    """Return a table of named values: strings, booleans, int64, vec3i."""
    out = struct.pack("<I", len(values))
    for name, value in sorted(values.items()):
        out += _text(name)
        if isinstance(value, str):
            out += _text("string") + _text(value)
        elif isinstance(value, bool):
            out += _text("bool") + struct.pack("<I?", 1, value)
        elif isinstance(value, int):
            out += _text("int64") + struct.pack("<Iq", 8, value)
        else:
            out += _text("vec3i") + struct.pack("<I3i", 12, *value.tolist())
    return out


def _described(grid: SparseGrid, topology: Topology) -> bytes:
    low, high = active_box(grid)
    return _metadata(
        {
            "class": _CLASSES.get(grid.grid_class, grid.grid_class),
            "file_bbox_max": high,
            "file_bbox_min": low,
            "file_compression": "zip + active values",
            "file_mem_bytes": _memory(grid.n_channels, topology),
            "file_voxel_count": grid.n_active,
            "is_saved_as_half_float": False,
            "name": grid.name,
        }
    )


def _memory(n_channels: int, topology: Topology) -> int:
    """Return what the tree takes in OpenVDB's memory (version 10)."""
    entry = 8 if n_channels == 1 else 16
    leaf = 4 * n_channels * N_VOXELS + 96
    lower, upper = ((entry << 3 * side) + 2 * (1 << 3 * side) // 8 + 12 for side in (LOWER, UPPER))
    counts = len(topology.upper.first), len(topology.lower.first), len(topology.order)
    return counts[0] * upper + counts[1] * lower + counts[2] * leaf + _ROOT_BYTES + 8 * n_channels


def _transform(to_world: np.ndarray) -> bytes:
    """Return the simplest map that is exactly the transform."""
    scale, origin = np.diag(to_world)[:3], to_world[:3, 3]
    if np.any(to_world[:3, :3] != np.diag(scale)):
        # OpenVDB multiplies rows from the left.
        return _text("AffineMap") + to_world.T.astype("<f8").tobytes()
    kind = "UniformScaleTranslateMap" if np.all(scale == scale[0]) else "ScaleTranslateMap"
    inverse = 1 / scale
    parts = origin, scale, np.abs(scale), inverse, inverse * inverse, inverse / 2
    return _text(kind) + np.concatenate(parts).astype("<f8").tobytes()
