"""What an image file holds, known from its header alone."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PixelDtype = Literal["uint8", "uint16", "float32"]

CHANNEL_NAMES: dict[int, tuple[str, ...]] = {
    1: ("Y",),
    2: ("Y", "A"),
    3: ("R", "G", "B"),
    4: ("R", "G", "B", "A"),
}
ITEM_BYTES: dict[str, int] = {"uint8": 1, "uint16": 2, "float32": 4}


@dataclass(frozen=True)
class ImageInfo:
    """An image as it is seen: width and height are those after its EXIF orientation."""

    path: Path
    format: str
    """jpeg, png, tiff, webp, avif, exr, hdr or npy."""
    width: int
    height: int
    channels: int
    """1 to 4."""
    channel_names: tuple[str, ...]
    """Grey (Y) or R, G, B, then A where there is an alpha channel."""
    dtype: PixelDtype
    hdr: bool
    """Linear light without bounds (the float formats); False: sRGB over the integer's range."""

    @property
    def bytes(self) -> int:
        """Size of the pixels in memory."""
        return self.width * self.height * self.channels * ITEM_BYTES[self.dtype]

    @property
    def shape(self) -> tuple[int, int, int]:
        """[height, width, channels]."""
        return self.height, self.width, self.channels


def turned_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Return width and height after an EXIF orientation: 5 to 8 swap them."""
    return (height, width) if orientation >= 5 else (width, height)


def rows_per_band(row_bytes: int, band_bytes: int = 1 << 24) -> int:
    """Return how many rows of an image fit in a band of about ``band_bytes``, at least one."""
    return max(1, math.floor(band_bytes / max(row_bytes, 1)))
