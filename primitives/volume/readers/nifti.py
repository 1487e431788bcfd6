"""NIfTI-1 and NIfTI-2 in one file, plain or within gzip; nibabel reads the header."""

import gzip
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.volume.grid import GridInfo
from ngp_warp.primitives.volume.readers.source import (
    MAX_CHANNELS,
    Box,
    Stored,
    check_memory,
    check_ratio,
    unread_dtype,
)

_SIZES = (348, 540)
_DEFLATE = 1032.0
_READ_BYTES = 1 << 24
_VECTOR_AXIS = 4
"""The fifth: channels; the fourth is time."""


def is_nifti(head: bytes) -> bool:
    """Tell a file by its first 352 bytes."""
    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    return (348 in sizes and head[344:348] in (b"n+1\0", b"ni1\0")) or (
        540 in sizes and head[4:8] in (b"n+2\0", b"ni2\0")
    )


def read_nifti(path: Path) -> list[Stored]:
    """Read the header of a .nii or .nii.gz.

    Raises:
        DataError: a broken header, or a file that is shorter than it says.
        ResourceError: nibabel is missing.
    """
    with _opened(path) as (file, ratio):
        header = _header(file)
    shape = tuple(int(n) for n in header.get_data_shape())
    dtype = header.get_data_dtype()
    offset = int(header["vox_offset"])
    needed = offset + math.prod(shape) * dtype.itemsize
    size = path.stat().st_size
    if ratio == 1 and size < needed:
        raise DataError(f"it is cut short: it has {size} of {needed} bytes")
    check_ratio(needed, size, ratio)
    color = dtype.names or ()
    space, n_times, n_channels, wrong = _axes(shape)
    if color and set(color) <= set("RGBA"):
        n_channels = len(color) if n_channels == 1 else MAX_CHANNELS + 1
        dtype = dtype[0]
    if not wrong and not 1 <= n_channels <= MAX_CHANNELS:
        wrong = f"it has {n_channels} channels; 1 to {MAX_CHANNELS} are read"
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    unread = unread_dtype(dtype) or wrong
    return [
        Stored(
            GridInfo(
                f"{stem}[{t}]" if n_times > 1 else stem, dtype.name, n_channels, unread=unread
            ),
            partial(_read, path, header, space, t, n_channels),
        )
        for t in range(n_times)
    ]


def _axes(shape: tuple[int, ...]) -> tuple[tuple[int, ...], int, int, str]:
    """Return the three axes of space, the numbers of times and channels, and what is wrong."""
    full = shape + (1,) * (_VECTOR_AXIS + 1 - len(shape))
    space, n_times, n_channels = full[:3], full[3], full[_VECTOR_AXIS]
    if len(shape) < 3:
        return space, 1, 1, f"it is no volume: its shape is {list(shape)}"
    if 0 in shape:
        return space, 1, 1, f"it has no voxels: its shape is {list(shape)}"
    if math.prod(full[_VECTOR_AXIS + 1 :]) > 1:
        return space, 1, 1, f"it has more than five axes: its shape is {list(shape)}"
    return space, n_times, n_channels, ""


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], float]]:
    """Open the file, inflated; yield it and the most that its compression can reach."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if zipped:
            with gzip.GzipFile(fileobj=file) as inflated:
                yield inflated, _DEFLATE  # type: ignore[misc]
        else:
            yield file, 1.0


def _header(file: IO[bytes]) -> Any:
    """Read and check the header."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    head = file.read(_SIZES[1])
    if not is_nifti(head):
        raise DataError("it is neither NIfTI nor another format that is read in gzip")
    second = head[4:8] in (b"n+2\0", b"ni2\0")
    if head[344:347] == b"ni1" or head[4:7] == b"ni2":
        raise DataError("its values lie in another file (.img); save it as one .nii")
    size = _SIZES[1] if second else _SIZES[0]
    if len(head) < size:
        raise DataError(f"it is cut short: its header has {len(head)} of {size} bytes")
    kind = Nifti2Header if second else Nifti1Header
    header = kind.from_fileobj(io.BytesIO(head[:size]))
    if int(header["vox_offset"]) < size:
        raise DataError("it is broken: its values begin within its header")
    if any(n < 0 for n in header.get_data_shape()):
        raise DataError(f"it is broken: its shape is {list(header.get_data_shape())}")
    return header


def _read(path: Path, header: Any, space: tuple[int, ...], time: int, n_channels: int) -> Box:
    """Read one time's values; scale them as the header says."""
    shape = tuple(int(n) for n in header.get_data_shape())
    stored, offset = header.get_data_dtype(), int(header["vox_offset"])
    n_bytes = math.prod(shape) * stored.itemsize
    check_memory(space, 4 * n_channels + 1, n_bytes)
    with _opened(path) as (file, _):
        data = _body(file, offset, n_bytes)
    array = np.frombuffer(data, stored)
    if stored.names:
        array = array.view(stored[0]).reshape(-1, n_channels).T.reshape(n_channels, *shape[::-1])
    else:
        n_times = math.prod(shape) // (math.prod(space) * n_channels)
        array = array.reshape(n_channels, n_times, *space[::-1])[:, time]
    array = array.reshape(n_channels, *space[::-1])
    values = np.empty((*space, n_channels), np.float32)
    slope, intercept = header.get_slope_inter()
    if slope is None:
        slope, intercept = 1.0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for z in range(space[2]):
            plane = array[:, z].T  # [x, y, channel]
            # float64, as nibabel computes: integers of 32 bits are not exact in float32
            values[:, :, z] = plane if (slope, intercept) == (1, 0) else plane * slope + intercept
    unit = header.get_xyzt_units()[0]
    return Box(
        values if n_channels > 1 else values[..., 0],
        to_world=np.array(header.get_best_affine(), np.float64),
        unit="" if unit == "unknown" else unit,
    )


def _body(file: IO[bytes], offset: int, n_bytes: int) -> np.ndarray:
    """Read the values, and the rest of the file: gzip checks its sum at the end."""
    for begin in range(0, offset, _READ_BYTES):
        file.read(min(_READ_BYTES, offset - begin))
    data = np.empty(n_bytes, np.uint8)
    filled = 0
    while filled < n_bytes:
        chunk = file.read(min(_READ_BYTES, n_bytes - filled))
        if not chunk:
            raise DataError(f"it is cut short: it has {filled} of {n_bytes} bytes of values")
        data[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    if len(file.read(_READ_BYTES)) == _READ_BYTES:
        raise DataError("it is broken: its values are followed by many other bytes")
    return data
