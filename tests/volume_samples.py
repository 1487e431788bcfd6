"""OpenVDB files made byte by byte, from the format's description; and broken kinds of them.

Only what the tests need: small, of any type, compression and form of inactive values. OpenVDB
10.0.1 (vdb_print, nanovdb_convert) was seen to read them.
"""

import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

UUID = b"01234567-89ab-4cde-8f01-23456789abcd"
ZIP, ACTIVE_MASK, BLOSC = 1, 2, 4
TYPES = {
    "float": np.dtype("<f4"),
    "double": np.dtype("<f8"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "vec3s": np.dtype("<f4"),
    "vec3d": np.dtype("<f8"),
    "vec3i": np.dtype("<i4"),
    "bool": np.dtype("?"),
    "mask": np.dtype("?"),
}


def identity():
    one = struct.pack("<3d", 1, 1, 1)
    return "UniformScaleMap", one * 4 + struct.pack("<3d", 0.5, 0.5, 0.5)


@dataclass
class Grid:
    """A grid with one upper node of one lower node, at the origin."""

    type: str = "float"
    name: str = "density"
    background: tuple = (0,)
    leaves: dict = field(default_factory=dict)
    """Number of the entry in the lower node -> (values [512, channels], active [512])."""
    tiles: dict = field(default_factory=dict)
    """The same -> (value [channels], active)."""
    root_tiles: tuple = ()
    """((x, y, z), value [channels], active) each."""
    compression: int = ACTIVE_MASK
    map: tuple = field(default_factory=identity)
    metadata: tuple = (("class", "fog volume"),)
    half: bool = False
    form: int | None = None
    """Of inactive values in leaves (io/Compression.h); None: all values are written."""


def text(string):
    raw = string.encode()
    return struct.pack("<I", len(raw)) + raw


def metadata(pairs):
    parts = [
        text(name) + (text("string") + text(value) if isinstance(value, str) else flag(value))
        for name, value in pairs
    ]
    return struct.pack("<I", len(pairs)) + b"".join(parts)


def flag(value):
    return text("bool") + struct.pack("<I?", 1, value)


def bits(mask):
    return np.packbits(mask, bitorder="little").tobytes()


def packed(values, grid):
    """Return values as they are stored."""
    dtype = TYPES[grid.type]
    if grid.half and dtype.kind == "f":
        dtype = np.dtype("<f2")
        if values.size == 0:
            return b""
    raw = np.ascontiguousarray(values, dtype).tobytes()
    if grid.compression & ZIP:
        small = zlib.compress(raw)
        if len(small) < len(raw):
            return struct.pack("<q", len(small)) + small
        return struct.pack("<q", -len(raw)) + raw
    if grid.compression & BLOSC:
        from imagecodecs import blosc_encode

        small = blosc_encode(raw, level=9, compressor="lz4", typesize=dtype.itemsize, shuffle=1)
        return struct.pack("<q", len(small)) + bytes(small)
    return raw


def node_values(values, active, grid, form):
    """Return a node's values [n, channels] behind the byte that tells their form."""
    if form is None or not grid.compression & ACTIVE_MASK:
        return b"\6" + packed(values, grid)
    dtype, inactive = TYPES[grid.type], values[~active]
    out, told = bytes([form]), np.unique(inactive, axis=0).astype(dtype)
    if form == 4:
        told = told[np.any(told != np.array(grid.background, dtype), axis=1)]
    if form in (2, 4, 5):
        out += told[0].tobytes()
    if form == 5:
        out += told[1].tobytes()
    if form in (3, 4, 5):
        second = {3: grid.background, 4: grid.background, 5: told[-1]}[form]
        out += bits(np.all(values == np.array(second, dtype), axis=1) & ~active)
    return out + packed(values[active], grid)


def tree(grid):
    channels, dtype = len(grid.background), TYPES[grid.type]
    out = struct.pack("<i", 1) + np.array(grid.background, dtype).tobytes()
    has_node = bool(grid.leaves or grid.tiles)
    out += struct.pack("<II", len(grid.root_tiles), has_node)
    for origin, value, active in grid.root_tiles:
        out += struct.pack("<3i", *origin) + np.array(value, dtype).tobytes()
        out += struct.pack("<?", active)
    if not has_node:
        return out
    child, active = np.zeros(32**3, bool), np.zeros(32**3, bool)
    child[0] = True
    empty = np.zeros((32**3, channels), dtype) + np.array(grid.background, dtype)
    out += struct.pack("<3i", 0, 0, 0) + bits(child) + bits(active)
    out += node_values(empty, active, grid, 0)
    child, active = np.zeros(16**3, bool), np.zeros(16**3, bool)
    values = np.zeros((16**3, channels), dtype) + np.array(grid.background, dtype)
    child[list(grid.leaves)] = True
    for entry, (value, on) in grid.tiles.items():
        values[entry], active[entry] = value, on
    plain = bool(np.all(values[~active] == np.array(grid.background, dtype)))
    out += bits(child) + bits(active) + node_values(values, active, grid, 0 if plain else None)
    out += b"".join(bits(grid.leaves[entry][1]) for entry in sorted(grid.leaves))
    for entry in sorted(grid.leaves):
        values, active = grid.leaves[entry]
        out += bits(active)
        if dtype.kind != "b":
            out += node_values(values, active, grid, grid.form)
            continue
        out += bytes(12) + (b"" if grid.type == "mask" else bits(values != 0))
    return out


def vdb(*grids, version=224, offsets=True, tree_type=None, parents=()):
    """Return the bytes of a file; ``parents``: by grid, the name of the one whose tree it has."""
    out = struct.pack("<qIII?", 0x56444220, version, 10, 0, offsets) + UUID
    out += metadata(()) + struct.pack("<i", len(grids))
    for i, grid in enumerate(grids):
        parent = parents[i] if parents else ""
        kind = tree_type or f"Tree_{grid.type}_5_4_3" + "_HalfFloat" * grid.half
        out += text(grid.name) + text(kind) + text(parent)
        body = struct.pack("<I", grid.compression) + metadata(
            (*grid.metadata, ("is_saved_as_half_float", grid.half))
        )
        body += text(grid.map[0]) + grid.map[1]
        begin = len(out) + 24
        block = begin + len(body)
        body += b"" if parent else tree(grid)
        out += struct.pack("<qqq", begin, block, begin + len(body)) + body
    return out


def leaf(rng, channels=1, kind="float", share=0.5, inactive=(0,)):
    """Return random values and a mask; inactive ones are drawn from a few."""
    active = rng.random(512) < share
    values = rng.integers(1, 100, (512, channels)).astype(np.float64)
    if kind in ("float", "double", "vec3s", "vec3d"):
        values = np.float32(values / 7).astype(np.float64)
    if kind in ("bool", "mask"):
        values = active[:, None].astype(np.float64)
    else:
        values[~active] = rng.choice(inactive, np.count_nonzero(~active))[:, None]
    return values, active


def dense(grid, size=128):
    """Return the values [size^3, channels] and the mask that a grid should have."""
    channels = len(grid.background)
    values = np.zeros((size,) * 3 + (channels,), np.float32) + np.float32(grid.background)
    active = np.zeros((size,) * 3, bool)
    for entry, (value, on) in {**grid.tiles, **grid.leaves}.items():
        x, y, z = (8 * int(n) for n in np.unravel_index(entry, (16,) * 3))
        box = (slice(x, x + 8), slice(y, y + 8), slice(z, z + 8))
        values[box] = np.reshape(value, (8, 8, 8, channels) if np.ndim(value) > 1 else channels)
        active[box] = np.reshape(on, (8, 8, 8)) if np.ndim(on) else on
    return values, active
