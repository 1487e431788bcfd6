"""A deep-zoom pyramid, made from rows as they come: memory for one row of tiles a level.

Level n is half as large as level n + 1, rounded up, down to one pixel; a pixel is the mean of the
2x2 below it (of those that there are at an odd edge), its colour weighted by alpha.
"""

from collections.abc import Callable

import numpy as np

TILE_SIZE = 254
"""Pixels of a tile's side without its overlap."""
OVERLAP = 1
"""Pixels that a tile shares with each neighbour, so that no seam shows when it is enlarged."""

# Between levels 8 bits carry 8 more: rounding ten times over would brighten the small levels.
_FRACTION = 256

WriteTile = Callable[[int, int, int, np.ndarray], None]
"""(level, column, row, uint8 [h, w, channels])."""


def level_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """Return width and height of every level, the single pixel first."""
    top = (max(width, height) - 1).bit_length()
    return [(-(-width >> (top - n)), -(-height >> (top - n))) for n in range(top + 1)]


class Pyramid:
    """Takes a picture's rows in order and hands on every tile of every level.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        channels: 1 to 4.
        write_tile: called once for each tile.
    """

    def __init__(self, width: int, height: int, channels: int, write_tile: WriteTile):
        below: _Level | None = None
        for number, size in enumerate(level_sizes(width, height)):
            below = _Level(number, *size, channels, write_tile, below)
        assert below is not None
        self._level = below

    def add(self, rows: np.ndarray) -> None:
        """Take rows, uint8 [n, width, channels]; any n."""
        self._level.add(rows.astype(np.uint16) * _FRACTION)


class _Level:
    """One level: rows that wait for their tiles, and a row that waits for its pair."""

    def __init__(
        self,
        number: int,
        width: int,
        height: int,
        channels: int,
        write_tile: WriteTile,
        smaller: "_Level | None",
    ):
        self.number, self.width, self.height = number, width, height
        self._write_tile = write_tile
        self._smaller = smaller
        self._bands: list[np.ndarray] = []
        self._first = self._end = 0  # rows that _bands begins with and ends before
        self._tile_row = 0
        self._odd = np.empty((0, width, channels), np.uint16)

    def add(self, rows: np.ndarray) -> None:
        """Take the next rows."""
        self._bands.append(rows)
        self._end += len(rows)
        while self._tile_row * TILE_SIZE < self.height:
            begin, end = _span(self._tile_row, self.height)
            if self._end < end:
                break
            waiting = np.concatenate(self._bands)
            self._write_row(waiting[begin - self._first : end - self._first])
            self._tile_row += 1
            kept = max(end - 2 * OVERLAP, self._first)
            self._bands = [waiting[kept - self._first :].copy()]
            self._first = kept
        if self._smaller is not None:
            self._hand_down(rows, self._end == self.height)

    def _write_row(self, rows: np.ndarray) -> None:
        pixels = ((rows + np.uint16(_FRACTION // 2)) // _FRACTION).astype(np.uint8)
        for column in range(-(-self.width // TILE_SIZE)):
            left, right = _span(column, self.width)
            self._write_tile(self.number, column, self._tile_row, pixels[:, left:right])

    def _hand_down(self, rows: np.ndarray, last: bool) -> None:
        assert self._smaller is not None
        rows = np.concatenate([self._odd, rows])
        even = len(rows) if last else len(rows) // 2 * 2
        self._odd = rows[even:].copy()
        if even:
            self._smaller.add(halve(rows[:even]))


def _span(index: int, size: int) -> tuple[int, int]:
    """Return where a tile begins and ends along an axis, its overlap included."""
    begin, end = index * TILE_SIZE, (index + 1) * TILE_SIZE
    return max(begin - OVERLAP, 0), min(end + OVERLAP, size)


def halve(pixels: np.ndarray) -> np.ndarray:
    """Return the 2x2 means of uint16 [h, w, c]: [ceil(h / 2), ceil(w / 2), c]."""
    height, width, channels = pixels.shape
    if height % 2 or width % 2:  # the pixel beyond an odd edge is the one before it
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    if channels in (1, 3):
        return ((_sums(pixels.astype(np.uint32)) + 2) // 4).astype(np.uint16)
    values = pixels.astype(np.float32)
    alpha = values[..., -1:]
    weights = _sums(alpha)
    colour = _sums(values[..., :-1] * alpha) / np.maximum(weights, 1)
    colour = np.where(weights > 0, colour, _sums(values[..., :-1]) / 4)
    return np.rint(np.concatenate([colour, weights / 4], axis=2)).astype(np.uint16)


def _sums(pixels: np.ndarray) -> np.ndarray:
    return pixels[0::2, 0::2] + pixels[0::2, 1::2] + pixels[1::2, 0::2] + pixels[1::2, 1::2]
