"""The records of a NanoVDB file: header, grid, tree and nodes, of scalars and of 3-vectors.

Source: NanoVDB.h and IO.h of OpenVDB 10 (NanoVDB 32.4; the layout is that of all of 32.x).
"""

from dataclasses import dataclass

import numpy as np

from ngp_warp.surfaces.sparse_grid import LOWER, MASK_BYTES, N_VOXELS, UPPER

MAGIC = b"NanoVDB0"
VERSION = 32 << 21 | 4 << 10 | 2
"""32.4.2: later ones tell files and grids apart by their magic, which older readers refuse."""
HAS_BOX, HAS_EXTREMES, BREADTH_FIRST = 2, 4, 32
"""Flags of a grid."""
NODE_SKIP, NODE_HAS_BOX = 1, 2
"""Flags of a node."""
TYPES = {1: 1, 3: 6}
"""By the number of channels: Float, Vec3f."""
CLASSES = {"level set": (1, 1), "fog": (2, 1), "staggered": (3, 3)}
"""Number of a class, and of the channels it is defined for."""
NAME_BYTES = 256
NO_CHECKSUM = 0xFFFFFFFF

FILE = np.dtype([("magic", "S8"), ("version", "<u4"), ("n_grids", "<u2"), ("codec", "<u2")])
META = np.dtype(
    [
        ("grid_bytes", "<u8"),
        ("file_bytes", "<u8"),
        ("name_key", "<u8"),
        ("n_active", "<u8"),
        ("type", "<u4"),
        ("grid_class", "<u4"),
        ("world", "<f8", (2, 3)),
        ("box", "<i4", (2, 3)),
        ("voxel_size", "<f8", 3),
        ("name_bytes", "<u4"),
        ("counts", "<u4", 4),
        ("n_tiles", "<u4", 3),
        ("codec", "<u2"),
        ("padding", "<u2"),
        ("version", "<u4"),
    ]
)
"""What stands before the grid, so that files can be listed."""
GRID = np.dtype(
    [
        ("magic", "S8"),
        ("checksum", "<u4", 2),
        ("version", "<u4"),
        ("flags", "<u4"),
        ("index", "<u4"),
        ("n_grids", "<u4"),
        ("grid_bytes", "<u8"),
        ("name", f"S{NAME_BYTES}"),
        *(
            (f"{part}_{kind}", f"<{kind}", shape)
            for kind in ("f4", "f8")
            for part, shape in (
                ("matrix", (3, 3)),
                ("inverse", (3, 3)),
                ("origin", 3),
                ("taper", 1),
            )
        ),
        ("world", "<f8", (2, 3)),
        ("voxel_size", "<f8", 3),
        ("grid_class", "<u4"),
        ("type", "<u4"),
        ("unused", "V32"),
    ]
)
TREE = np.dtype(
    [("offsets", "<u8", 4), ("counts", "<u4", 3), ("n_tiles", "<u4", 3), ("n_active", "<u8")]
)
"""Offsets are counted from here, leaves first."""


@dataclass(frozen=True)
class Layout:
    """The records of a tree of one type of value."""

    root: np.dtype
    root_entry: np.dtype
    upper: np.dtype
    lower: np.dtype
    leaf: np.dtype


def layout_of(n_channels: int) -> Layout:
    """Return the records of scalars (1) or vectors (3); values are [n_channels]."""
    value = ("<f4", (n_channels,))
    statistics = [
        ("smallest", *value),
        ("largest", *value),
        ("mean", "<f4"),
        ("deviation", "<f4"),
    ]
    # A value or a child's offset from its parent.
    entry = np.dtype(
        {
            "names": ["value", "child"],
            "formats": [value, "<i8"],
            "offsets": [0, 0],
            "itemsize": 8 if n_channels == 1 else 16,
        }
    )

    def node(log2_side: int) -> np.dtype:
        n = 1 << 3 * log2_side
        masks = [("active", "u1", n // 8), ("children", "u1", n // 8)]
        head = _padded([("box", "<i4", (2, 3)), ("flags", "<u8"), *masks, *statistics])
        return np.dtype([*head.descr, ("entries", entry, n)])

    leaf = [("first", "<i4", 3), ("extent", "u1", 3), ("flags", "u1"), ("active", "u1", MASK_BYTES)]
    return Layout(
        root=_padded(
            [("box", "<i4", (2, 3)), ("n_entries", "<u4"), ("background", *value), *statistics]
        ),
        root_entry=_padded([("key", "<i8"), ("child", "<i8"), ("state", "<u4"), ("value", *value)]),
        upper=node(UPPER),
        lower=node(LOWER),
        leaf=np.dtype(
            [*_padded([*leaf, *statistics]).descr, ("values", "<f4", (N_VOXELS, n_channels))]
        ),
    )


def _padded(fields: list) -> np.dtype:
    """Return a record whose size is a multiple of 32 bytes."""
    rest = -np.dtype(fields).itemsize % 32
    return np.dtype([*fields, ("padding", f"V{rest}")] if rest else fields)
