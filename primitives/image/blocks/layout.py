"""Where the blocks of an image lie, and how they fade into each other.

A block's *core* is its share of the image; it is fitted with a margin around its core, clipped at
the image's border. At a border between two cores, position b, the right one's weight rises linearly
from 0 at b - margin to 1 at b + margin, and the left one's is the rest. In two dimensions weights
are products. So they sum to 1 everywhere, and inside a core, away from the margins, one block
counts alone.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ngp_warp.errors import ConfigError

MARGIN = 16
"""Pixels; wide enough for two fits that differ by a step of 8 bits to fade without an edge."""
Box = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""


@dataclass(frozen=True)
class Layout:
    """An image cut into columns and rows of blocks."""

    edges_x: tuple[int, ...]
    """Edges of the columns' cores, from 0 to the image's width."""
    edges_y: tuple[int, ...]
    margin: int

    @property
    def width(self) -> int:
        """Of the image."""
        return self.edges_x[-1]

    @property
    def height(self) -> int:
        """Of the image."""
        return self.edges_y[-1]

    @property
    def columns(self) -> int:
        """Number of blocks side by side."""
        return len(self.edges_x) - 1

    @property
    def rows(self) -> int:
        """Number of blocks above each other."""
        return len(self.edges_y) - 1

    def __len__(self) -> int:
        return self.columns * self.rows

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows}"

    def cells(self) -> Iterator[tuple[int, int]]:
        """Yield (row, column) of every block, row by row."""
        for row in range(self.rows):
            for column in range(self.columns):
                yield row, column

    def core(self, row: int, column: int) -> Box:
        """Return a block's share of the image."""
        return _box(self.edges_x, self.edges_y, row, column)

    def box(self, row: int, column: int) -> Box:
        """Return what is fitted of a block: its core and the margin."""
        (left, right), (top, bottom) = self.span_x(column), self.span_y(row)
        return left, top, right - left, bottom - top

    def span_x(self, column: int) -> tuple[int, int]:
        """Return the first and the last edge of a block with its margin."""
        return _span(self.edges_x, column, self.margin)

    def span_y(self, row: int) -> tuple[int, int]:
        """Return the first and the last edge of a block with its margin."""
        return _span(self.edges_y, row, self.margin)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        blocks = [
            {"name": name_of(*at), "core": list(self.core(*at)), "box": list(self.box(*at))}
            for at in self.cells()
        ]
        edges = {"edges_x": list(self.edges_x), "edges_y": list(self.edges_y)}
        return {**edges, "margin": self.margin, "blocks": blocks}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Layout":
        """Return the layout of what ``to_dict`` gave."""
        return cls(tuple(values["edges_x"]), tuple(values["edges_y"]), values["margin"])


def name_of(row: int, column: int) -> str:
    """Return the name of a block, which is that of its folder: ``003_012``."""
    return f"{row:03d}_{column:03d}"


def make_layout(
    width: int,
    height: int,
    *,
    blocks: str | None = None,
    block_size: int | None = None,
    margin: int = MARGIN,
) -> Layout:
    """Cut an image into blocks of about equal size.

    Args:
        width: of the image, in pixels.
        height: of the image.
        blocks: "COLUMNSxROWS".
        block_size: instead of ``blocks``: the longest side of a core, in pixels.
        margin: pixels around a core that are fitted too.

    Raises:
        ConfigError: both or neither of the two, or blocks smaller than two margins.
    """
    if (blocks is None) == (block_size is None):
        raise ConfigError("give --blocks COLUMNSxROWS or --block-size, and not both")
    if margin < 0 or (block_size is not None and block_size < 1):
        raise ConfigError("the margin must be at least 0 and the block size at least 1")
    if block_size is not None:
        columns, rows = -(-width // block_size), -(-height // block_size)
    else:
        match = re.fullmatch(r"([1-9]\d{0,2})x([1-9]\d{0,2})", blocks or "")
        if match is None:
            raise ConfigError(
                f"blocks must be COLUMNSxROWS, as in 4x4, each from 1 to 999, got {blocks!r}"
            )
        columns, rows = int(match[1]), int(match[2])
    layout = Layout(_edges(width, columns), _edges(height, rows), margin)
    for edges in (layout.edges_x, layout.edges_y):
        smallest = min(b - a for a, b in pairwise(edges))
        what = f"{layout} blocks of an image of {width}x{height} pixels have a side of {smallest}"
        if smallest < 1:
            raise ConfigError(f"{what}; take fewer blocks")
        if len(edges) > 2 and smallest < 2 * margin:
            raise ConfigError(
                f"{what}, less than two margins of {margin}; take fewer blocks or a smaller "
                "--margin"
            )
    return layout


def rise(positions: np.ndarray, edge: int, margin: int) -> np.ndarray:
    """Return the weight, float64 from 0 to 1, of what lies beyond an edge.

    Args:
        positions: in pixels; the middle of pixel i is i + 0.5.
        edge: between two cores.
        margin: of the blocks.
    """
    if margin == 0:
        return (positions >= edge).astype(np.float64)
    return np.clip((positions - (edge - margin)) / (2 * margin), 0.0, 1.0)


def weights(
    positions: np.ndarray, edges: Sequence[int], margin: int, index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights of a column or row of blocks along its axis, and their slopes for a pixel.

    Args:
        positions: float64 [n], in pixels.
        edges: of the cores along the axis.
        margin: of the blocks.
        index: of the column or row.
    """
    weight, slope = np.ones_like(positions), np.zeros_like(positions)
    for edge, sign in ((index, 1.0), (index + 1, -1.0)):
        if 0 < edge < len(edges) - 1:
            rising = rise(positions, edges[edge], margin)
            weight = rising if sign > 0 else weight - rising
            fading = (rising > 0) & (rising < 1)
            slope[fading] = sign / max(2 * margin, 1)
    return weight, slope


def _edges(length: int, count: int) -> tuple[int, ...]:
    return tuple(length * i // count for i in range(count + 1))


def _box(edges_x: Sequence[int], edges_y: Sequence[int], row: int, column: int) -> Box:
    left, top = edges_x[column], edges_y[row]
    return left, top, edges_x[column + 1] - left, edges_y[row + 1] - top


def _span(edges: Sequence[int], index: int, margin: int) -> tuple[int, int]:
    return max(edges[index] - margin, edges[0]), min(edges[index + 1] + margin, edges[-1])
