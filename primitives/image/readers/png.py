"""PNG of every depth and kind, decoded by libpng straight into the output."""

import mmap
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.image.readers.exif import exif_orientation
from ngp_warp.primitives.image.readers.source import Source, check_ratio, silent_output

_SIGNATURE_BYTES = 8
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # color type: samples stored for a pixel
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # color type: channels of the picture
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_EXIF_BYTES_MAX = 1 << 20
_DEFLATE_RATIO = 1032  # the most that deflate can reach
_ESSENTIAL = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_COPIED_BYTES = 1 << 26


@dataclass
class _Chunks:
    """What a PNG's chunks say."""

    header: bytes = b""
    transparency: bool = False
    exif: bytes = b""
    data_bytes: int = 0
    ended: bool = False


def read_png(path: Path) -> Source:
    """Read a PNG's chunks, pixels excepted: palettes become RGB, tRNS becomes alpha.

    Raises:
        DataError: a chunk is missing, broken, or reaches past the end of the file.
    """
    chunks = _walk(path)
    if len(chunks.header) != 13:
        raise DataError(f"{path} is broken: it does not begin with a PNG header")
    width, height, depth, color_type = struct.unpack(">IIBB", chunks.header[:10])
    if depth not in _DEPTHS.get(color_type, ()):
        raise DataError(f"{path} is broken: no PNG has color type {color_type} at {depth} bits")
    row_bytes = (width * _SAMPLES[color_type] * depth + 7) // 8
    check_ratio(path, row_bytes * height, chunks.data_bytes, _DEFLATE_RATIO)
    if not chunks.ended:
        raise DataError(f"{path} is cut short: it has no end chunk")
    channels = _CHANNELS[color_type] + (chunks.transparency and color_type in (0, 2, 3))
    wide = depth == 16
    return Source(
        format="png",
        width=width,
        height=height,
        channels=channels,
        dtype="uint16" if wide else "uint8",
        fill=partial(_fill, path),
        working_bytes=width * height * channels * (2 if wide else 1),
        orientation=exif_orientation(chunks.exif),
        stream=partial(_decode, path),
    )


def _walk(path: Path) -> _Chunks:
    """Read the chunks' names and sizes, and the contents of the few that matter here."""
    chunks = _Chunks()
    size = path.stat().st_size
    position = _SIGNATURE_BYTES
    with path.open("rb") as file:
        while position + 12 <= size and not chunks.ended:
            file.seek(position)
            length, name = struct.unpack(">I4s", file.read(8))
            if position + 12 + length > size:
                raise DataError(f"{path} is cut short: a chunk reaches past its end")
            if position == _SIGNATURE_BYTES and name == b"IHDR" and length == 13:
                chunks.header = file.read(13)
            elif name == b"IDAT":
                chunks.data_bytes += length
            elif name == b"eXIf" and length <= _EXIF_BYTES_MAX:
                chunks.exif = file.read(length)
            # libpng ignores a tRNS that comes after the pixels
            chunks.transparency |= name == b"tRNS" and chunks.data_bytes == 0
            chunks.ended = name == b"IEND"
            position += 12 + length
    return chunks


def _fill(path: Path, out: np.ndarray) -> None:
    """Decode into ``out``, through a copy where its layout is not libpng's."""
    if out.flags.c_contiguous:
        _decode(path, out)
        return
    pixels = np.empty(out.shape, out.dtype)
    _decode(path, pixels)
    out[...] = pixels


def _decode(path: Path, out: np.ndarray) -> None:
    """Decode into a C-contiguous array, row by row unless the PNG is interlaced.

    libpng warns of odd chunks that are of no concern here. Without them it is quiet, and several
    threads can decode; only for large files the process is made silent instead.
    """
    import imagecodecs

    if path.stat().st_size <= _COPIED_BYTES:
        imagecodecs.png_decode(_essential(path), out=out if out.shape[2] > 1 else out[..., 0])
        return
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        silent_output(),  # libpng prints its warnings
    ):
        imagecodecs.png_decode(data, out=out if out.shape[2] > 1 else out[..., 0])


def _essential(path: Path) -> bytes:
    """Return the PNG with only the chunks that the pixels need."""
    data = path.read_bytes()
    parts, position = [data[:_SIGNATURE_BYTES]], _SIGNATURE_BYTES
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] in _ESSENTIAL:
            parts.append(data[position:end])
        position = end
    return b"".join(parts)
