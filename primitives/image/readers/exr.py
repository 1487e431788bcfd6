"""OpenEXR: the header is parsed here, the pixels are decoded by the OpenEXR library in bands.

The library's old interface (InputFile) is used because it refuses what is cut short; the new one
(File) only prints a warning and returns what it has.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.image.info import rows_per_band
from ngp_warp.primitives.image.readers.source import Source, check_ratio, silent_output

_HEADER_BYTES_MAX = 1 << 24
_DEEP, _MULTIPART = 0x800, 0x1000
_UINT = 0
# DWA: 8x8 floats of one value become two numbers of 16 bits that deflate shrinks 1032 times.
_TRANSFORM = 8 * 8 * 4 / 4 * 1032.0
# Compression: scanlines in a chunk (at most, so as to refuse nothing sound), and the most that it
# can shrink them.
_COMPRESSIONS = {
    0: (1, 1.01),  # none
    1: (1, 64.0),  # run lengths
    2: (1, 1032.0),  # deflate
    3: (16, 1032.0),
    4: (32, 1032.0),  # PIZ: runs of 257 words in 9 bits
    5: (16, 1400.0),  # PXR24: deflate of 24 of 32 bits
    6: (32, 64.0),  # B44, B44A: 3 bytes of 32
    7: (32, 64.0),
    8: (32, _TRANSFORM),  # DWAA, DWAB
    9: (256, _TRANSFORM),
    10: (256, _TRANSFORM),  # HTJ2K
    11: (32, _TRANSFORM),
    12: (256, _TRANSFORM),  # LJ2K
    13: (256, _TRANSFORM),  # Zstandard
}
_BAND_LINES = 256  # a multiple of every chunk's lines, so that none is decoded twice


@dataclass
class _Header:
    """The first part's attributes that matter here."""

    channels: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Name to pixel type (0 uint, 1 half, 2 float) and the two samplings."""
    window: tuple[int, int, int, int] = (0, 0, -1, -1)
    """x and y of the first pixel, x and y of the last."""
    compression: int = -1
    tiled: bool = False


def read_exr(path: Path) -> Source:
    """Read the header of an EXR: the data window of its first part's default layer.

    The channels are R, G, B, else Y, else the only one there is; A where there is one. Other
    channels (depth, further layers) are left out.

    Raises:
        DataError: a broken header, deep or subsampled pixels, or no default layer.
    """
    header = _parse(path)
    names = _default_layer(path, header)
    x0, y0, x1, y1 = header.window
    width, height = x1 - x0 + 1, y1 - y0 + 1
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise DataError(f"{path} is broken: its data window has {width}x{height} pixels")
    stored = width * height * sum(2 if kind == 1 else 4 for kind, *_ in header.channels.values())
    lines, ratio = _COMPRESSIONS[header.compression]
    check_ratio(path, stored, path.stat().st_size, ratio)
    if not header.tiled and 8 * math.ceil(height / lines) > path.stat().st_size:
        raise DataError(f"{path} is cut short: its table of chunks reaches past its end")
    band_bytes = min(height, _BAND_LINES) * stored // height
    return Source(
        format="exr",
        width=width,
        height=height,
        channels=len(names),
        dtype="float32",
        hdr=True,
        fill=partial(_fill, path, names, y0),
        # The library holds a row of chunks or tiles beside the band that it returns.
        working_bytes=6 * band_bytes + (1 << 24),
    )


def _default_layer(path: Path, header: _Header) -> list[str]:
    """Return the channels to read, in order."""
    channels = header.channels
    plain = [name for name in channels if "." not in name]
    if {"R", "G", "B"} <= set(plain):
        names = ["R", "G", "B"]
    elif "Y" in plain and not {"RY", "BY"} & set(plain):
        names = ["Y"]
    elif len(plain) == 1 and plain != ["A"]:
        names = plain
    else:
        raise DataError(
            f"{path} has no default layer of R, G, B or Y; its channels are "
            f"{', '.join(sorted(channels)[:12])}"
        )
    if names != ["A"] and "A" in plain:
        names = [*names, "A"]
    for name in names:
        kind, x_sampling, y_sampling = channels[name]
        if kind == _UINT or (x_sampling, y_sampling) != (1, 1):
            raise DataError(
                f"{path}: channel {name} is of integers or subsampled, which is not read"
            )
    return names


def _fill(path: Path, names: list[str], y0: int, out: np.ndarray) -> None:
    """Decode in bands of whole chunks; half becomes float32."""
    import Imath
    import OpenEXR

    as_float = Imath.PixelType(Imath.PixelType.FLOAT)
    height, width, _ = out.shape
    step = max(_BAND_LINES, rows_per_band(width * len(names) * 4) // _BAND_LINES * _BAND_LINES)
    with silent_output():
        file = OpenEXR.InputFile(str(path))
        try:
            if not file.isComplete():
                raise DataError(f"{path} is cut short: some of its chunks are missing")
            for y in range(0, height, step):
                rows = min(step, height - y)
                bands = file.channels(names, as_float, y0 + y, y0 + y + rows - 1)
                for channel, band in enumerate(bands):
                    pixels = np.frombuffer(band, np.float32).reshape(rows, width)
                    out[y : y + rows, :, channel] = pixels
        finally:
            file.close()


def _parse(path: Path) -> _Header:
    """Parse the first header, by "OpenEXR File Layout" of the OpenEXR documentation."""
    with path.open("rb") as file:
        data = file.read(_HEADER_BYTES_MAX)
    header = _Header()
    try:
        (version,) = struct.unpack_from("<I", data, 4)
        for name, value in _attributes(data):
            if name == b"channels":
                header.channels = _channels(value)
            elif name == b"dataWindow":
                header.window = struct.unpack("<4i", value)
            elif name == b"compression":
                header.compression = value[0]
            elif name == b"tiles":
                header.tiled = True
            elif name == b"type" and value.startswith(b"deep"):
                version |= _DEEP
    except (struct.error, ValueError, IndexError) as error:
        raise DataError(f"{path} is cut short or broken: its header is not whole") from error
    if version & _DEEP:
        raise DataError(f"{path} holds deep data, which is not read; flatten it first")
    if header.compression not in _COMPRESSIONS or not header.channels:
        raise DataError(f"{path} is broken, or compressed by a method that is not read")
    return header


def _attributes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and value of the first part's attributes."""
    position = 8
    while data[position] != 0:
        end_name = data.index(b"\0", position)
        end_type = data.index(b"\0", end_name + 1)
        (size,) = struct.unpack_from("<i", data, end_type + 1)
        start = end_type + 5
        if size < 0 or start + size > len(data):
            raise ValueError("an attribute reaches past the end")
        yield data[position:end_name], data[start : start + size]
        position = start + size


def _channels(value: bytes) -> dict[str, tuple[int, int, int]]:
    """Parse a channel list."""
    channels, position = {}, 0
    while value[position] != 0:
        end = value.index(b"\0", position)
        kind, _, x_sampling, y_sampling = struct.unpack_from("<iIii", value, end + 1)
        channels[value[position:end].decode("latin-1")] = (kind, x_sampling, y_sampling)
        position = end + 17
    return channels
