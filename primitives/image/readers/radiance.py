"""Radiance pictures (.hdr, .pic): RGBE, run-length encoded or flat."""

import mmap
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.image.readers.source import Source, check_ratio

_HEADER_BYTES_MAX = 1 << 16
_RESOLUTION = re.compile(rb"^([-+])([XY]) +(\d{1,9}) +([-+])([XY]) +(\d{1,9})\s*$")
# A run of 127 equal bytes takes two; a pixel has four bytes and becomes three floats.
_RATIO = 127 / 2 * 3

# Radiance's axes, as the EXIF orientation that shows the picture upright: first the axis that
# the scanlines are stacked along, then the one that they run along.
_ORIENTATIONS = {
    b"-Y+X": 1,
    b"-Y-X": 2,
    b"+Y-X": 3,
    b"+Y+X": 4,
    b"+X-Y": 5,
    b"-X-Y": 6,
    b"-X+Y": 7,
    b"+X+Y": 8,
}


def read_radiance(path: Path) -> Source:
    """Read the header of a Radiance picture; its EXPOSURE and PRIMARIES are not applied.

    Raises:
        DataError: a broken header, or the XYZE format.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES_MAX)
    variables, blank, rest = head.partition(b"\n\n")
    line, newline, _ = rest.partition(b"\n")
    match = _RESOLUTION.match(line)
    if not blank or not newline or match is None:
        raise DataError(f"{path} is cut short or broken: no picture size follows its header")
    if b"FORMAT=32-bit_rle_xyze" in variables:
        raise DataError(f"{path} holds XYZ colors, which are not read; convert it to RGBE")
    sign_1, axis_1, n_lines, sign_2, axis_2, n_columns = match.groups()
    axes = sign_1 + axis_1 + sign_2 + axis_2
    if axes not in _ORIENTATIONS:
        raise DataError(f"{path} is broken: its size names one axis twice")
    width, height = int(n_columns), int(n_lines)
    offset = len(variables) + 2 + len(line) + 1
    pixel_bytes = width * height * 12
    check_ratio(path, pixel_bytes, path.stat().st_size - offset, _RATIO)
    return Source(
        format="hdr",
        width=width,
        height=height,
        channels=3,
        dtype="float32",
        hdr=True,
        fill=partial(_fill, path, offset),
        working_bytes=pixel_bytes,
        orientation=_ORIENTATIONS[axes],
        stream=partial(_decode, path, offset),
    )


def _fill(path: Path, offset: int, out: np.ndarray) -> None:
    """Decode into ``out``, through a copy where its layout is not the decoder's."""
    if out.flags.c_contiguous:
        _decode(path, offset, out)
        return
    pixels = np.empty(out.shape, out.dtype)
    _decode(path, offset, pixels)
    out[...] = pixels


def _decode(path: Path, offset: int, out: np.ndarray) -> None:
    """Decode into a C-contiguous float32 array."""
    import imagecodecs

    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        memoryview(data) as whole,
        whole[offset:] as pixels,
    ):
        decode: Any = imagecodecs.rgbe_decode  # its annotations leave memoryviews out
        decode(pixels, header=False, rle=True, out=out)
