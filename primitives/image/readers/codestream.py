"""What a JPEG or JPEG 2000 stream says of its size, read before a decoder allocates for it."""

import mmap
import struct

_NO_FRAMES = (0xC4, 0xC8, 0xCC)  # among the frame markers, three that are none


def jpeg_frame(data: bytes | mmap.mmap) -> tuple[int, int, int] | None:
    """Return the marker, width and height of a JPEG's first frame (ITU-T T.81, B.2.2).

    None where no frame follows the segments before it.
    """
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES:
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return marker, width, height
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def jpeg2000_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height of the reference grid of a JPEG 2000 stream, boxed or bare.

    ITU-T T.800, A.5.1. None where there is no SIZ marker.
    """
    position = data.find(b"\xff\x4f\xff\x51")
    if position < 0 or position + 16 > len(data):
        return None
    width, height = struct.unpack(">II", data[position + 8 : position + 16])
    return width, height
