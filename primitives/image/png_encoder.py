"""A PNG encoder that is fed rows, so that a picture larger than memory can be written.

PNG specification (third edition), sections 5 (chunks) and 9 (filters).
"""

import struct
import zlib
from typing import BinaryIO

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_LEVEL = 4  # of zlib: half the time of its default, files some percent larger
_CHUNK_BYTES = 1 << 20


class PngEncoder:
    """Writes one picture of 8 or 16 bits.

    Args:
        file: written from its position.
        width: pixels of a row.
        height: rows that will be written.
        channels: 1 to 4.
        dtype: uint8 or uint16.
    """

    def __init__(
        self, file: BinaryIO, width: int, height: int, channels: int, dtype: np.dtype
    ) -> None:
        self._file = file
        self._pixel_bytes = channels * dtype.itemsize
        self._above = np.zeros((1, width * self._pixel_bytes), np.uint8)
        self._deflate = zlib.compressobj(_LEVEL)
        self._pending = bytearray()
        file.write(_SIGNATURE)
        depth = 8 * dtype.itemsize
        header = struct.pack(">IIBBBBB", width, height, depth, _COLOR_TYPES[channels], 0, 0, 0)
        self._write_chunk(b"IHDR", header)

    def write(self, rows: np.ndarray) -> None:
        """Append rows, shape [n, width, channels]."""
        big_endian = np.ascontiguousarray(rows, rows.dtype.newbyteorder(">"))
        raw = big_endian.view(np.uint8).reshape(len(rows), -1)
        self._pending += self._deflate.compress(self._filtered(raw).tobytes())
        self._above = raw[-1:].copy()
        if len(self._pending) >= _CHUNK_BYTES:
            self._write_chunk(b"IDAT", bytes(self._pending))
            self._pending.clear()

    def finish(self) -> None:
        """Write what is left and the end."""
        self._write_chunk(b"IDAT", bytes(self._pending) + self._deflate.flush())
        self._write_chunk(b"IEND", b"")

    def _filtered(self, raw: np.ndarray) -> np.ndarray:
        """Return each row with the filter, of Sub, Up and Average, of least absolute sum."""
        left = np.zeros_like(raw)
        left[:, self._pixel_bytes :] = raw[:, : -self._pixel_bytes]
        above = np.concatenate([self._above, raw[:-1]])
        # (left + above) // 2 without leaving 8 bits
        average = (left & above) + ((left ^ above) >> 1)
        candidates = [raw - left, raw - above, raw - average]
        sums = [np.abs(c.view(np.int8).astype(np.int16)).sum(1, np.int64) for c in candidates]
        best = np.argmin(sums, axis=0)
        filtered = np.empty((len(raw), raw.shape[1] + 1), np.uint8)
        filtered[:, 0] = best + 1  # filter types 1, 2, 3
        for kind, candidate in enumerate(candidates):
            filtered[best == kind, 1:] = candidate[best == kind]
        return filtered

    def _write_chunk(self, name: bytes, data: bytes) -> None:
        self._file.write(struct.pack(">I", len(data)) + name + data)
        self._file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(name))))
