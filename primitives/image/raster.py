"""Decode a field to pixels: any size, any box, band by band."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.field import Field
from ngp_warp.kernels import layout
from ngp_warp.primitives.image import kernels
from ngp_warp.primitives.image.transfer import Transfer
from ngp_warp.primitives.pictures import linear_to_srgb

_BAND_POINTS = 2**18


class Raster:
    """A picture of a field.

    Args:
        field: 2D.
        transfer: of the trained values.
        width: of the whole picture, in pixels; of a block of a larger picture not always whole.
        height: of the whole picture, in pixels.
        box: left, top, width, height of the part that is decoded; None: all.
    """

    def __init__(
        self,
        field: Field,
        transfer: Transfer,
        width: float,
        height: float,
        box: tuple[float, float, int, int] | None = None,
    ):
        self.field = field
        self.transfer = transfer
        self.box = box or (0, 0, int(width), int(height))
        left, top, box_width, box_height = self.box
        self.band_rows = min(max(_BAND_POINTS // box_width, 1), box_height)
        # a band is decoded in passes, so that no width needs more memory than another
        self._pass = min(-(-self.band_rows * box_width // 32) * 32, _BAND_POINTS)
        device = field.device
        self._first = wp.zeros(1, dtype=wp.int64, device=device)
        x, y = field.zeros(self._pass, 2), field.zeros(self._pass, field.n_outputs)
        self._points = wp.empty((self._pass, field.n_outputs), dtype=float, device=device)
        n_items = self._pass // 32 if device == "cpu" else self._pass
        args = [self._first, left, top, box_width, 1.0 / width, 1.0 / height, x]
        self._stages = [
            [launch.record(kernels.raster_kernel(), n_items, args, device)],
            *field.evaluation_stages(x, y),
            [
                launch.record(
                    layout.from_blocked, self._pass, [y, field.n_outputs, self._points], device
                )
            ],
        ]

    def bands(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row in the box, float32 [rows, width, channels] in the image's units)."""
        height = self.box[3]
        for row in range(0, height, self.band_rows):
            yield row, self.rows(row, min(self.band_rows, height - row))

    def rows(self, row: int, n_rows: int) -> np.ndarray:
        """Return float32 [n_rows, width, channels] from ``row`` of the box, in image units."""
        width = self.box[2]
        band = np.empty((n_rows * width, self.field.n_outputs), np.float32)
        for begin in range(0, len(band), self._pass):
            self._first.assign(np.array([row * width + begin], np.int64))
            launch.run_stages(self._stages)
            part = band[begin : begin + self._pass]
            part[:] = self.transfer.inverse(self._points.numpy()[: len(part)])
        return band.reshape(n_rows, width, -1)


def raster_of(
    fitted: Any,
    transfer: Transfer,
    width: int,
    height: int,
    box: tuple[int, int, int, int] | None = None,
) -> Any:
    """Return the picture, or a box of it, of what ``Run.fitted`` of an image is.

    A ``Raster`` of a field, a ``blocks.mosaic.MosaicRaster`` of a run in blocks: both have
    ``bands()`` and ``band_rows``. Arguments as for ``Raster``.
    """
    if isinstance(fitted, Field):
        return Raster(fitted, transfer, width, height, box)
    return fitted.raster(transfer, width, height, box)


def quantize(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return values in the image's units as its dtype: rounded and clipped if integers."""
    if dtype == "float32":
        return values
    top = np.iinfo(dtype).max
    return np.clip(np.rint(values), 0, top).astype(dtype)


def tone_map(values: np.ndarray) -> np.ndarray:
    """Return sRGB values in 0..1 of linear light: v / (1 + v) (Reinhard et al. 2002), then sRGB."""
    light = np.maximum(values, 0)
    return linear_to_srgb(light / (1 + light))
