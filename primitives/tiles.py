"""The pixels of a picture in batches of rays, and where in a pixel its samples lie."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ngp_warp import memory
from ngp_warp.errors import ResourceError
from ngp_warp.files import format_bytes

_TILE = 64
"""Side of a tile in pixels: its rays share cells of the grid."""
_BATCH = 2**18
"""Rays of a batch, about, unless another number is given."""
_CONTRAST = 5
"""Difference of neighbours, of 255, from which on a pixel gets all its samples."""
_PIXEL_BYTES = 64
"""Memory of a pixel while a picture is made, about."""


class Sized(Protocol):
    """A camera or a lens: what has a picture's size."""

    @property
    def width(self) -> int:
        """Pixels."""
        ...

    @property
    def height(self) -> int:
        """Pixels."""
        ...


@dataclass(frozen=True)
class Tile:
    """A part of the picture that is worked on at once."""

    top: int
    bottom: int
    left: int
    right: int

    def select(self, chosen: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and columns [n] of its pixels, of all or of those that are chosen."""
        # column by column: neighbours in the list lie in squares of the tile's height
        columns, rows = np.meshgrid(
            np.arange(self.left, self.right), np.arange(self.top, self.bottom), indexing="ij"
        )
        rows, columns = rows.ravel(), columns.ravel()
        if chosen is None:
            return rows, columns
        kept = chosen[rows, columns]
        return rows[kept], columns[kept]


def tiles(camera: Sized, samples: int, batch: int = _BATCH, side: int = _TILE) -> list[Tile]:
    """Return tiles of the whole picture whose ``samples`` a pixel are about ``batch`` rays.

    Args:
        camera: of the picture.
        samples: rays of a pixel.
        batch: rays of a tile, about.
        side: most rows of a tile.
    """
    height = max(min(side, int((batch / samples) ** 0.5)), 1)
    width = max(batch // (height * height * samples), 1) * height
    return [
        Tile(top, min(top + height, camera.height), left, min(left + width, camera.width))
        for top in range(0, camera.height, height)
        for left in range(0, camera.width, width)
    ]


def bands(camera: Sized, batch: int) -> list[Tile]:
    """Return parts of at most ``batch`` pixels: whole rows, unless one is longer."""
    width = min(camera.width, batch)
    height = max(batch // camera.width, 1)
    return [
        Tile(top, min(top + height, camera.height), left, min(left + width, camera.width))
        for top in range(0, camera.height, height)
        for left in range(0, camera.width, width)
    ]


def contrasted(picture: np.ndarray) -> np.ndarray:
    """Return bool [h, w]: pixels that differ from one above, below or beside them.

    Args:
        picture: uint8 [h, w, 3]; a difference counts from ``_CONTRAST`` on.
    """
    values = picture.astype(np.int16)
    uneven = np.zeros(picture.shape[:2], bool)
    down = np.abs(np.diff(values, axis=0)).max(axis=2) >= _CONTRAST
    right = np.abs(np.diff(values, axis=1)).max(axis=2) >= _CONTRAST
    uneven[1:] |= down
    uneven[:-1] |= down
    uneven[:, 1:] |= right
    uneven[:, :-1] |= right
    return uneven


def check_memory(camera: Sized) -> None:
    """Raise ResourceError where a picture does not fit in memory."""
    needed = camera.width * camera.height * _PIXEL_BYTES
    available = memory.available_bytes()
    if needed > available:
        raise ResourceError(
            f"a picture of {camera.width}x{camera.height} pixels takes {format_bytes(needed)} of "
            f"memory and {format_bytes(available)} are available; give a smaller size"
        )


def pixel_offsets(spp: int) -> np.ndarray:
    """Return where in a pixel its samples lie, float64 [spp, 2], in pixels.

    The same in all pixels, so that edges are smooth, not noisy: the R2 lattice (Roberts 2018),
    which fills the pixel evenly for any number of samples, moved so that their mean is the middle.
    """
    lattice = np.arange(spp)[:, None] * np.array([0.7548776662466927, 0.5698402909980532]) % 1
    return lattice - lattice.mean(axis=0) + 0.5
