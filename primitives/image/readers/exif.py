"""The orientation of an EXIF block."""

import struct

_ORIENTATION = 0x0112
_SHORT = 3


def exif_orientation(block: bytes) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where the block has none or is broken.

    Args:
        block: a TIFF header and its first directory, with or without JPEG's "Exif" before it.
    """
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(order + "I", block, 4)
        (n_entries,) = struct.unpack_from(order + "H", block, offset)
        for i in range(n_entries):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", block, offset + 2 + 12 * i)
            if tag == _ORIENTATION and kind == _SHORT:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1  # a broken EXIF block takes nothing from the pixels
    return 1
