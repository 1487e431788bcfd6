"""Raw values: nothing but numbers, x the fastest."""

import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ngp_warp.errors import ConfigError, DataError
from ngp_warp.primitives.volume.grid import GridInfo
from ngp_warp.primitives.volume.readers.source import (
    MAX_CHANNELS,
    Box,
    Stored,
    check_memory,
    to_float32,
)

RawDtype = Literal[
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float16", "float32", "float64",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RawLayout:
    """What a raw file does not say of itself."""

    shape: tuple[int, int, int]
    """Voxels along x, y and z."""
    dtype: RawDtype = "uint8"
    """Of a number."""
    n_channels: int = 1
    """Numbers of a voxel, side by side."""
    big_endian: bool = False
    """Numbers begin with their highest byte."""

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: names the one that is wrong.
        """
        if len(self.shape) != 3 or not all(isinstance(n, int) and n > 0 for n in self.shape):
            raise ConfigError(f"shape must be 3 positive integers X,Y,Z, got {self.shape}")
        if self.dtype not in get_args(RawDtype):
            known = ", ".join(get_args(RawDtype))
            raise ConfigError(f"dtype must be one of {known}, got {self.dtype!r}")
        if not 1 <= self.n_channels <= MAX_CHANNELS:
            raise ConfigError(f"n_channels must be 1 to {MAX_CHANNELS}, got {self.n_channels}")


def read_raw(path: Path, layout: RawLayout) -> list[Stored]:
    """Hold the file's size against its layout.

    Raises:
        DataError: they do not agree.
    """
    dtype = np.dtype(layout.dtype).newbyteorder(">" if layout.big_endian else "<")
    size = os.stat(path).st_size  # noqa: PTH116
    needed = math.prod(layout.shape) * layout.n_channels * dtype.itemsize
    if size != needed:
        shape = " x ".join(map(str, layout.shape))
        channels = f" x {layout.n_channels}" if layout.n_channels > 1 else ""
        raise DataError(
            f"it has {size} bytes, and {shape}{channels} values of {layout.dtype} are {needed}; "
            "is it of another shape or dtype?"
        )
    info = GridInfo(path.stem, layout.dtype, layout.n_channels)
    return [Stored(info, partial(_read, path, layout, dtype))]


def _read(path: Path, layout: RawLayout, dtype: np.dtype) -> Box:
    check_memory(layout.shape, 4 * layout.n_channels + 1)
    shape = (*layout.shape[::-1], layout.n_channels)
    array = np.memmap(path, dtype, "r", shape=shape).transpose(2, 1, 0, 3)
    return Box(to_float32(array[..., 0] if layout.n_channels == 1 else array))
