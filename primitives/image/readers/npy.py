"""NumPy arrays [h, w] or [h, w, c], mapped where their dtype is one that is fitted."""

from functools import partial
from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.image.info import PixelDtype, rows_per_band
from ngp_warp.primitives.image.readers.source import Source

_DTYPES: dict[str, PixelDtype] = {
    "uint8": "uint8",
    "uint16": "uint16",
    "float16": "float32",
    "float32": "float32",
    "float64": "float32",
}


def read_npy(path: Path) -> Source:
    """Read an array's header; nothing is unpickled.

    Raises:
        DataError: a broken header, a file shorter than its array, or an array that is no image.
    """
    shape, fortran, dtype, offset = _header(path)
    if dtype.name not in _DTYPES:
        raise DataError(
            f"{path} holds {dtype.name}; an image is uint8, uint16, float16, float32 or float64"
        )
    if len(shape) not in (2, 3) or (len(shape) == 3 and not 1 <= shape[2] <= 4):
        raise DataError(
            f"{path} has shape {list(shape)}; an image is [height, width] or "
            "[height, width, 1 to 4]"
        )
    size, needed = path.stat().st_size, offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size < needed:
        raise DataError(f"{path} is cut short: it has {size} of {needed} bytes")
    height, width = shape[:2]
    target = _DTYPES[dtype.name]
    as_is = not fortran and dtype.isnative and dtype.name == target
    opened = partial(_open, path, shape, fortran, dtype, offset)
    return Source(
        format="npy",
        width=width,
        height=height,
        channels=shape[2] if len(shape) == 3 else 1,
        dtype=target,
        hdr=target == "float32",
        fill=partial(_fill, opened),
        working_bytes=0,
        mapped=opened if as_is and offset % dtype.itemsize == 0 else None,
    )


def _header(path: Path) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return shape, Fortran order, dtype and where the data begin."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise DataError(f"{path} is of an NPY version that is not read: {version}")
        shape, fortran, dtype = readers[version](file)
        if not all(isinstance(n, int) and n >= 0 for n in shape):
            raise DataError(f"{path} is broken: its shape is {shape}")
        return shape, fortran, dtype, file.tell()


def _open(
    path: Path, shape: tuple[int, ...], fortran: bool, dtype: np.dtype, offset: int
) -> np.ndarray:
    """Map the array, read only, as [height, width, channels]."""
    order = "F" if fortran else "C"
    array = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)
    return array if array.ndim == 3 else array[..., None]


def _fill(opened: partial[np.ndarray], out: np.ndarray) -> None:
    """Convert in bands of rows."""
    array = opened()
    step = rows_per_band(out.shape[1] * out.shape[2] * 8)
    # float64 past float32's range becomes infinite, which the caller refuses
    with np.errstate(over="ignore", invalid="ignore"):
        for y in range(0, len(array), step):
            out[y : y + step] = array[y : y + step]
