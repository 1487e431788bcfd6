"""``python -m benchmarks mosaic``: a huge picture of a photo, turned and mirrored cell by cell."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.files import atomic_path, check_free_space

TILE = 256
_SEED = 0


class Mosaic:
    """A square picture of cells, each a square of the photo in one of its eight orientations.

    Pixel (y, x) is pixel (y % cell, x % cell) of the photo's middle square, mirrored left to right
    where orientation[y // cell, x // cell] >= 4 and then turned by its remainder modulo 4 quarter
    turns to the left.

    Args:
        photo: uint8 [h, w, 3].
        size: width and height in pixels.
        cell: side of a cell; None: the photo's shorter side.

    Raises:
        ConfigError: a size or cell out of range.
    """

    def __init__(self, photo: np.ndarray, size: int, cell: int | None = None):
        shorter = min(photo.shape[:2])
        side = shorter if cell is None else cell
        if not 1 <= side <= shorter:
            raise ConfigError(f"--cell must be from 1 to the photo's {shorter}, got {side}")
        if not 1 <= size <= 2**20:
            raise ConfigError(f"--size must be from 1 to {2**20}, got {size}")
        self.size = size
        self.cell = side
        top, left = ((length - side) // 2 for length in photo.shape[:2])
        self._square = photo[top : top + side, left : left + side]
        n = -(-size // side)
        self.orientation = np.random.default_rng(_SEED).integers(8, size=(n, n))

    def oriented(self, orientation: int) -> np.ndarray:
        """Return a view of the square in an orientation from 0 to 7."""
        square = self._square[:, ::-1] if orientation >= 4 else self._square
        return np.rot90(square, orientation % 4)

    def band(self, top: int, rows: int) -> np.ndarray:
        """Return rows of the picture, uint8 [rows, size, 3]."""
        out = np.empty((rows, self.size, 3), np.uint8)
        for i in range(top // self.cell, -(-(top + rows) // self.cell)):
            y0, y1 = max(i * self.cell, top), min((i + 1) * self.cell, top + rows)
            for j, orientation in enumerate(self.orientation[i]):
                x0, x1 = j * self.cell, min((j + 1) * self.cell, self.size)
                cell = self.oriented(orientation)
                source = cell[y0 - i * self.cell : y1 - i * self.cell, : x1 - x0]
                out[y0 - top : y1 - top, x0:x1] = source
        return out

    def write(self, path: Path, *, compress: bool) -> None:
        """Write a BigTIFF in tiles, a row of tiles in memory at a time.

        Args:
            path: written beside and renamed.
            compress: deflate the tiles.

        Raises:
            ResourceError: no room, or it cannot be written.
        """
        import tifffile

        if path.absolute().parent.is_dir() and not compress:
            need = 3 * self.size**2
            check_free_space(path.absolute().parent, need, str(path), "name another disk")
        with atomic_path(path) as temporary:
            tifffile.imwrite(
                temporary,
                data=self._tiles(),
                shape=(self.size, self.size, 3),
                dtype=np.uint8,
                bigtiff=True,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="deflate" if compress else None,
                maxworkers=1,
            )

    def _tiles(self) -> Iterator[np.ndarray]:
        """Yield the tiles row by row, those at the right and below filled with zeros."""
        for top in range(0, self.size, TILE):
            band = self.band(top, min(TILE, self.size - top))
            for left in range(0, self.size, TILE):
                tile = np.zeros((TILE, TILE, 3), np.uint8)
                part = band[:, left : left + TILE]
                tile[: len(part), : part.shape[1]] = part
                yield tile
