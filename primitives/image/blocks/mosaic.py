"""A run in blocks decoded as one image: pictures band by band, values and gradients at points."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ngp_warp import launch, memory
from ngp_warp.decode import load_field
from ngp_warp.errors import CheckpointError, ShapeError
from ngp_warp.field import Field
from ngp_warp.primitives.image.blocks.layout import Layout, name_of, rise, weights
from ngp_warp.primitives.image.raster import Raster
from ngp_warp.primitives.image.transfer import Transfer, in_units
from ngp_warp.run import Run, open_run

_BAND_VALUES = 2**23  # of a band of the picture: 32 MB, and as much for a row of blocks

Cell = tuple[int, int]
"""Row and column of a block."""


def block_folder(run: Path, row: int, column: int) -> Path:
    """Return the folder of a block, an ordinary run."""
    return run / "blocks" / name_of(row, column)


def is_finished(folder: Path) -> bool:
    """Return whether a block is fitted and measured: metrics.json is written last of all."""
    return (folder / "metrics.json").is_file()


class Mosaic:
    """The blocks of a run.

    Args:
        run: in blocks, all of them finished.

    Raises:
        CheckpointError: some are not.
    """

    def __init__(self, run: Run):
        self.run = run
        self.layout = Layout.from_dict(run.header)
        self.n_outputs = int(run.header["data"]["n_outputs"])
        self._queried: dict[Cell, Run] = {}
        cells = list(self.layout.cells())
        missing = [at for at in cells if not is_finished(block_folder(run.path, *at))]
        if missing:
            raise CheckpointError(
                f"{len(missing)} of {len(cells)} blocks of {run.path} are not fitted, the first is "
                f"{name_of(*missing[0])}; continue with ngp fit-image-blocks --resume {run.path}"
            )

    def block(self, row: int, column: int) -> Run:
        """Return the run of a block."""
        return open_run(block_folder(self.run.path, row, column), device=self.run.device)

    def stored_bytes(self) -> int:
        """Return the sum of the blocks' sizes, as each was measured."""
        return sum(int(self.block(*at).metrics["bytes"]) for at in self.layout.cells())

    def raster(
        self,
        transfer: Transfer,
        width: int,
        height: int,
        box: tuple[int, int, int, int] | None = None,
    ) -> "MosaicRaster":
        """Return a picture; arguments as for ``ngp_warp.primitives.image.raster.Raster``."""
        return MosaicRaster(self, transfer, width, height, box or (0, 0, width, height))

    def query(
        self, points: np.ndarray, *, gradient: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return values [n, c] and, where asked for, Jacobians [n, c, 2], in the image's units.

        Args:
            points: [n, 2], in the unit square of the whole image (clamped to it).
            gradient: whether to give the Jacobians.

        Raises:
            ShapeError: another shape, or values that are no real numbers.
        """
        points = np.asarray(points)
        if points.ndim != 2 or points.shape[1] != 2 or points.dtype.kind not in "fiu":
            raise ShapeError(f"points must be real numbers [n, 2], got {list(points.shape)}")
        layout = self.layout
        size = np.array([layout.width, layout.height], np.float64)
        # NaN goes to 0: to a block at all
        inside = np.clip(np.nan_to_num(points.astype(np.float64), nan=0.0), 0.0, 1.0) * size
        values = np.zeros((len(points), self.n_outputs))
        jacobian = np.zeros((*values.shape, 2))
        for row in range(layout.rows):
            in_row, wy, sy = _weighted(inside[:, 1], layout.edges_y, layout.margin, row)
            for column in range(layout.columns):
                x = inside[in_row, 0]
                at, wx, sx = _weighted(x, layout.edges_x, layout.margin, column)
                here = in_row[at]
                if not here.size:
                    continue
                found, slopes = self._evaluate(row, column, inside[here], gradient)
                weight = wx * wy[at]
                values[here] += weight[:, None] * found
                if slopes is not None:
                    fading = np.stack([sx * wy[at], wx * sy[at]], 1)[:, None, :]
                    added = weight[:, None, None] * slopes + found[..., None] * fading
                    jacobian[here] += added * size
        return values.astype(np.float32), jacobian.astype(np.float32) if gradient else None

    def _evaluate(
        self, row: int, column: int, positions: np.ndarray, gradient: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return a block's values, and Jacobians for a pixel, at positions in image pixels."""
        if (row, column) not in self._queried:
            if any(_is_short(run.fitted) for run in self._queried.values()):
                self._queried.clear()
            self._queried[row, column] = self.block(row, column)
        block = self._queried[row, column]
        left, top, width, height = self.layout.box(row, column)
        points = (positions - [left, top]) / [width, height]
        if not gradient:
            return in_units(block.config, block.fitted.query(points), None)
        values, slopes = in_units(block.config, *block.fitted.value_and_gradient(points))
        return values, None if slopes is None else slopes / np.array([width, height])


def _weighted(
    positions: np.ndarray, edges: tuple[int, ...], margin: int, index: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the indices of positions of which a row or column counts, its weights and slopes."""
    weight, slope = weights(positions, edges, margin, index)
    at = np.flatnonzero(weight > 0)
    return at, weight[at], slope[at]


def _is_short(field: Field) -> bool:
    """Return whether another block like this one would take more than half of what is free."""
    on_cpu = field.device == "cpu"
    free = memory.available_bytes() if on_cpu else launch.free_memory(field.device)
    return 2 * 4 * field.n_params > free


class MosaicRaster:
    """A picture of a run in blocks, decoded from top to bottom.

    Open are the blocks that a band meets: one row of them, two where rows fade into each other. If
    they do not fit in memory, one at a time is, which is then read again for every band.

    Args:
        mosaic: the blocks.
        transfer: of the trained values.
        width: of the whole picture, in pixels.
        height: of the whole picture, in pixels.
        box: left, top, width, height of the part that is decoded.
    """

    def __init__(
        self,
        mosaic: Mosaic,
        transfer: Transfer,
        width: int,
        height: int,
        box: tuple[int, int, int, int],
    ):
        self.mosaic = mosaic
        self.transfer = transfer
        self.size = (width, height)
        self.box = box
        row_values = box[2] * mosaic.n_outputs
        self.band_rows = min(max(_BAND_VALUES // row_values, 1), box[3])
        layout = mosaic.layout
        # the middles of the picture's pixels, in pixels of the image
        self._x = (np.arange(box[2]) + (box[0] + 0.5)) * (layout.width / width)
        self._y = (np.arange(box[3]) + (box[1] + 0.5)) * (layout.height / height)
        self._open: dict[Cell, Raster] = {}

    def bands(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row in the box, float32 [rows, width, channels] in the image's units)."""
        layout = self.mosaic.layout
        try:
            for begin in range(0, self.box[3], self.band_rows):
                y = self._y[begin : begin + self.band_rows]
                rows = [r for r in range(layout.rows) if _meets(y, layout.span_y(r)).size]
                self._close_all_but(rows)
                band = np.empty((len(y), self.box[2], self.mosaic.n_outputs), np.float32)
                for row in rows:
                    at = _meets(y, layout.span_y(row))
                    strip = self._strip(row, begin + int(at[0]), len(at))
                    edge = layout.edges_y[row] if row > 0 else None
                    _lay_over(band, strip, y, int(at[0]), edge, layout.margin)
                yield begin, band
        finally:
            self._open.clear()

    def _strip(self, row: int, first: int, n_rows: int) -> np.ndarray:
        """Return rows of the box as one row of blocks has them."""
        layout = self.mosaic.layout
        strip = np.empty((self.box[2], n_rows, self.mosaic.n_outputs), np.float32)
        for column in range(layout.columns):
            at = _meets(self._x, layout.span_x(column))
            if not at.size:
                continue
            part = self._raster(row, column).rows(first - self._first_row(row), n_rows)
            edge = layout.edges_x[column] if column > 0 else None
            _lay_over(strip, part.swapaxes(0, 1), self._x, int(at[0]), edge, layout.margin)
            if _is_short(self._open[row, column].field):
                del self._open[row, column]
        return strip.swapaxes(0, 1)

    def _first_row(self, row: int) -> int:
        return int(_meets(self._y, self.mosaic.layout.span_y(row))[0])

    def _raster(self, row: int, column: int) -> Raster:
        """Return the picture of a block's part of the box, opened where it is not."""
        if (row, column) not in self._open:
            layout = self.mosaic.layout
            columns = _meets(self._x, layout.span_x(column))
            rows = _meets(self._y, layout.span_y(row))
            left, top, width, height = layout.box(row, column)
            # In pixels of the picture, whole only without scaling. Products before quotients: at
            # the image's own size, and of one block at any, these are exact.
            box = (
                self.box[0] + int(columns[0]) - left * self.size[0] / layout.width,
                self.box[1] + int(rows[0]) - top * self.size[1] / layout.height,
                len(columns),
                len(rows),
            )
            whole_x = width * self.size[0] / layout.width
            whole_y = height * self.size[1] / layout.height
            field: Field = load_field(self.mosaic.block(row, column))
            self._open[row, column] = Raster(field, self.transfer, whole_x, whole_y, box)
        return self._open[row, column]

    def _close_all_but(self, rows: list[int]) -> None:
        for cell in [cell for cell in self._open if cell[0] not in rows]:
            del self._open[cell]


def _meets(positions: np.ndarray, span: tuple[int, int]) -> np.ndarray:
    """Return the indices, without a gap, of the positions inside a span."""
    return np.flatnonzero((positions >= span[0]) & (positions < span[1]))


def _lay_over(
    below: np.ndarray,
    part: np.ndarray,
    positions: np.ndarray,
    first: int,
    edge: int | None,
    margin: int,
) -> None:
    """Put ``part`` at ``first`` along axis 0 of ``below``, fading in over an edge.

    As a + w (b - a), which leaves equal values as they are; where w is 1, ``part`` is copied.
    """
    target = below[first : first + len(part)]
    if edge is None:
        target[:] = part
        return
    weight = rise(positions[first : first + len(part)], edge, margin)
    alone = weight >= 1
    target[alone] = part[alone]
    fading = (weight > 0) & ~alone
    if fading.any():
        w = weight[fading].astype(np.float32)[:, None, None]
        target[fading] += w * (part[fading] - target[fading])
