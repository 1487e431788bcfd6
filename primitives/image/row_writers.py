"""Writers that are fed rows from top to bottom; TIFF, NPY and PNG hold only a band of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ngp_warp.errors import ShapeError
from ngp_warp.primitives.image.info import rows_per_band
from ngp_warp.primitives.image.png_encoder import PngEncoder

_PNG_BAND_BYTES = 1 << 20  # the encoder works on about ten arrays of a band's size


class RowWriter(ABC):
    """Takes a picture's rows in order; made by ``open_writer``.

    Args:
        width: pixels of a row.
        height: rows of the picture.
        channels: 1 to 4.
        dtype: of the pixels.
    """

    def __init__(self, width: int, height: int, channels: int, dtype: np.dtype) -> None:
        self.width, self.height, self.channels, self.dtype = width, height, channels, dtype
        self.rows_written = 0

    def write(self, rows: np.ndarray) -> None:
        """Append rows.

        Args:
            rows: shape [n, width, channels], of the writer's dtype; any n.

        Raises:
            ShapeError: another shape or dtype, or more rows than the picture has.
        """
        n_rows = len(rows)
        if rows.shape != (n_rows, self.width, self.channels) or rows.dtype != self.dtype:
            raise ShapeError(
                f"rows must be {self.dtype} of shape [n, {self.width}, {self.channels}], "
                f"got {rows.dtype} of shape {list(rows.shape)}"
            )
        if self.rows_written + n_rows > self.height:
            raise ShapeError(f"the picture has {self.height} rows, and more were written")
        if n_rows:
            self._append(rows)
        self.rows_written += n_rows

    def finish(self) -> None:
        """Complete the file.

        Raises:
            ShapeError: rows are missing.
        """
        if self.rows_written != self.height:
            raise ShapeError(f"{self.rows_written} of {self.height} rows were written")
        self._complete()

    def close(self) -> None:  # noqa: B027, most writers hold nothing
        """Let go of the file, complete or not."""

    @abstractmethod
    def _append(self, rows: np.ndarray) -> None:
        """Write rows that fit."""

    @abstractmethod
    def _complete(self) -> None:
        """Write what follows the last row."""


class RawRowWriter(RowWriter):
    """Rows as they are, behind a header that was written before: NPY, uncompressed TIFF."""

    def __init__(
        self, path: Path, offset: int, width: int, height: int, channels: int, dtype: np.dtype
    ) -> None:
        super().__init__(width, height, channels, dtype)
        self._file = path.open("r+b")
        self._file.seek(offset)

    def _append(self, rows: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(rows).data)

    def _complete(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Let go of the file, complete or not."""
        self._file.close()


class PngRowWriter(RowWriter):
    """PNG of 8 or 16 bits."""

    def __init__(self, path: Path, width: int, height: int, channels: int, dtype: np.dtype) -> None:
        super().__init__(width, height, channels, dtype)
        self._file = path.open("wb")
        self._encoder = PngEncoder(self._file, width, height, channels, dtype)
        self._step = rows_per_band(width * channels * dtype.itemsize, _PNG_BAND_BYTES)

    def _append(self, rows: np.ndarray) -> None:
        for y in range(0, len(rows), self._step):
            self._encoder.write(rows[y : y + self._step])

    def _complete(self) -> None:
        self._encoder.finish()
        self._file.flush()

    def close(self) -> None:
        """Let go of the file, complete or not."""
        self._file.close()


class WholeWriter(RowWriter):
    """Keeps all rows, for the formats that are encoded in one go."""

    def __init__(
        self,
        encode: Callable[[np.ndarray], None],
        width: int,
        height: int,
        channels: int,
        dtype: np.dtype,
    ) -> None:
        super().__init__(width, height, channels, dtype)
        self._encode = encode
        self._pixels = np.empty((height, width, channels), dtype)

    def _append(self, rows: np.ndarray) -> None:
        self._pixels[self.rows_written : self.rows_written + len(rows)] = rows

    def _complete(self) -> None:
        self._encode(self._pixels)


def npy_row_writer(
    path: Path, width: int, height: int, channels: int, dtype: np.dtype
) -> RawRowWriter:
    """Return a writer of an NPY file, shape [height, width, channels]."""
    shape = (height, width, channels)
    with path.open("wb") as file:
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
    return RawRowWriter(path, offset, width, height, channels, dtype)


def tiff_row_writer(
    path: Path, width: int, height: int, channels: int, dtype: np.dtype
) -> RawRowWriter:
    """Return a writer of an uncompressed TIFF, which any part can be read of without the rest."""
    import tifffile

    with tifffile.TiffWriter(path, bigtiff=needs_bigtiff(width, height, channels, dtype)) as tiff:
        offset, _ = tiff.write(
            shape=(height, width, channels) if channels > 1 else (height, width),
            dtype=dtype,
            returnoffset=True,
            metadata=None,
            **tiff_kind(channels),
        )
    return RawRowWriter(path, offset, width, height, channels, dtype)


def tiff_kind(channels: int) -> dict:
    """Return tifffile's options for grey or RGB, with alpha or without."""
    kind = {"photometric": "rgb" if channels > 2 else "minisblack", "planarconfig": "contig"}
    return kind | {"extrasamples": ["unassalpha"]} if channels in (2, 4) else kind


def needs_bigtiff(width: int, height: int, channels: int, dtype: np.dtype) -> bool:
    """Return whether the offsets of a plain TIFF, 32 bits, may be too short."""
    return width * height * channels * dtype.itemsize > 2**32 - 2**26
