"""Slices through a dense volume as pictures, alone and beside those of another one.

Pictures lie as ``planes.middle_planes`` says; not as radiologists turn them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ngp_warp.config import check_choice, check_range
from ngp_warp.errors import ShapeError
from ngp_warp.primitives.contours import draw_slice, round_number
from ngp_warp.primitives.pictures import make_figure, picture_row
from ngp_warp.primitives.volume.grid import Index, check_window, lengths, magnitudes
from ngp_warp.primitives.volume.planes import AXES, Plane, middle_planes
from ngp_warp.rays.cameras import Up

COLORMAPS = ("grey", "viridis", "inferno", "magma", "cividis")
"""Perceptually even, each from dark to bright."""

_CONTOURS = 12
"""About as many contours on either side as the greatest distance shown has."""
_PERCENTILES = (0.1, 99.9)
"""Of the values, that the default window lies between: a few odd voxels do not set it."""
_MOST_COUNTED = 2**22
"""Values that percentiles are taken of."""
_COLUMN = 3.2
"""Width of a comparison's column in inches, of 100 pixels."""


def value_window(values: np.ndarray) -> tuple[float, float]:
    """Return values between which all but a few lie, never the same."""
    flat = values.reshape(-1)
    # odd: columns of even length are not met at the same few heights
    part = flat[:: (flat.size // _MOST_COUNTED) | 1]
    low, high = (float(p) for p in np.percentile(part, _PERCENTILES))
    if not low < high:
        low, high = float(values.min()), float(values.max())
    return low, high if low < high else low + 1


def render_slices(
    values: np.ndarray,
    to_world: np.ndarray | None = None,
    first: Index = (0, 0, 0),
    *,
    at: tuple[float, float, float] | None = None,
    level_set: bool = False,
    window: tuple[float, float] | None = None,
    colormap: str | None = None,
    size: int = 512,
    up: Up = "y",
) -> np.ndarray:
    """Return three slices side by side, with their places below, uint8 sRGB [h, w, 3].

    Args:
        values: [x, y, z], or [x, y, z, channel]: of vectors the length is shown.
        to_world: float64 [4, 4], index to world; None: the index itself.
        first: index of the first value.
        at: index at which the planes cross; None: the middle.
        level_set: values are signed distances in world units: warm inside, cool outside, the thick
            line the surface, the thin ones contours.
        window: values shown darkest and brightest; None: all but a few (``value_window``).
        colormap: one of ``COLORMAPS``; None: grey, of vectors viridis.
        size: pixels of the longest side.
        up: the index axis that is up (``middle_planes`` says what is right).

    Raises:
        ShapeError: values of another shape, or a transform that is none.
        DataError: values that are not finite, or a singular transform.
        ConfigError: a setting out of its range.
    """
    check_range("the slices' size", size, 16, 16384)
    scalars = magnitudes(values)
    planes = middle_planes(values.shape, to_world, first, at=at, up=up)
    pixel = max(side for plane in planes for side in plane.size) / size
    cuts = [plane.picture(lengths(plane.section(values), 2), pixel) for plane in planes]
    if level_set:
        paint: Any = _Contours.of(cuts, pixel)
    else:
        paint = _Colors.of(scalars, window, colormap or _default_colormap(values))
    names = [f"{name}\n{paint.note}" for name in _names(planes, first)]
    return picture_row([paint(cut) for cut in cuts], names)


def compare_slices(
    target: np.ndarray,
    result: np.ndarray,
    to_world: np.ndarray | None = None,
    first: Index = (0, 0, 0),
    *,
    at: tuple[float, float, float] | None = None,
    level_set: bool = False,
    window: tuple[float, float] | None = None,
    colormap: str | None = None,
    error_limit: float | None = None,
    up: Up = "y",
) -> np.ndarray:
    """Return slices of two volumes and their absolute difference, uint8 sRGB [h, w, 3].

    A row is a plane; of vectors, lengths are shown and the length of the difference.

    Args:
        target: [x, y, z] or [x, y, z, channel].
        result: of the same shape.
        to_world: float64 [4, 4], index to world; None: the index itself.
        first: index of the first value.
        at: index at which the planes cross; None: the middle.
        level_set: values are signed distances in world units.
        window: values shown darkest and brightest; None: all but a few of the target's.
        colormap: one of ``COLORMAPS``; None: grey, of vectors viridis.
        error_limit: the brightest error; None: the largest that is shown.
        up: the index axis that is up (``middle_planes`` says what is right).

    Raises:
        ShapeError: values of different or unknown shapes, or a transform that is none.
        DataError: values that are not finite, or a singular transform.
        ConfigError: a setting out of its range.
    """
    if target.shape != result.shape:
        raise ShapeError(f"result must be {list(target.shape)} as target, got {list(result.shape)}")
    check_range("error_limit", error_limit, 0)
    scalars = magnitudes(target)
    magnitudes(result)  # raises where they cannot be drawn
    planes = middle_planes(target.shape, to_world, first, at=at, up=up)
    pixel = max(side for plane in planes for side in plane.size) / (100 * _COLUMN)
    sections = [[plane.section(values) for values in (target, result)] for plane in planes]
    cuts = [
        [plane.picture(lengths(section, 2), pixel) for section in pair]
        for plane, pair in zip(planes, sections, strict=True)
    ]
    errors = [
        plane.picture(lengths(np.abs(pair[0] - pair[1]), 2), pixel)
        for plane, pair in zip(planes, sections, strict=True)
    ]
    if level_set:
        paint: Any = _Contours.of([cut for pair in cuts for cut in pair], pixel)
    else:
        paint = _Colors.of(scalars, window, colormap or _default_colormap(target))
    most = error_limit or max(float(error.max()) for error in errors) or 1.0
    return _comparison(cuts, errors, _names(planes, first), paint, most)


@dataclass(frozen=True)
class _Contours:
    """Draws signed distances."""

    limit: float
    interval: float
    pixel: float

    @classmethod
    def of(cls, cuts: Sequence[np.ndarray], pixel: float) -> "_Contours":
        limit = max(float(np.abs(cut).max()) for cut in cuts) or 1.0
        return cls(limit, round_number(limit / _CONTOURS), pixel)

    @property
    def note(self) -> str:
        return f"contours every {self.interval:g}"

    def __call__(self, cut: np.ndarray) -> np.ndarray:
        # gradients need two pixels a side
        grown = np.pad(cut, [(0, int(n == 1)) for n in cut.shape], mode="edge")
        picture = draw_slice(grown, self.interval, self.pixel, self.limit)
        return picture[: cut.shape[0], : cut.shape[1]]


@dataclass(frozen=True)
class _Colors:
    """Draws scalars."""

    low: float
    high: float
    colormap: Any  # matplotlib's

    @classmethod
    def of(cls, values: np.ndarray, window: tuple[float, float] | None, name: str) -> "_Colors":
        from matplotlib import colormaps

        check_choice("colormap", name, COLORMAPS)
        window = value_window(values) if window is None else window
        check_window(window)
        return cls(*window, colormaps["gray" if name == "grey" else name])

    @property
    def note(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}"

    def __call__(self, cut: np.ndarray) -> np.ndarray:
        share = np.clip((cut - self.low) / (self.high - self.low), 0, 1)
        return self.colormap(share, bytes=True)[..., :3]


def _default_colormap(values: np.ndarray) -> str:
    return "viridis" if values.ndim == 4 and values.shape[3] > 1 else "grey"


def _names(planes: list[Plane], first: Index) -> list[str]:
    return [f"{AXES[p.axis]} = {first[p.axis] + p.position:g}" for p in planes]


def _comparison(
    cuts: list[list[np.ndarray]],
    errors: list[np.ndarray],
    names: list[str],
    paint: Any,
    most: float,
) -> np.ndarray:
    """Return a figure: a row a plane, columns target, result, absolute error, and scales below."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    heights = [len(error) for error in errors]
    figure = make_figure(3 * _COLUMN + 0.6, sum(heights) / 100 + 0.16 * len(heights) + 1.2)
    axes = figure.subplots(len(heights), 3, squeeze=False, height_ratios=heights)
    for row, pair, error, name in zip(axes, cuts, errors, names, strict=True):
        for cell, cut in zip(row, pair, strict=False):
            cell.imshow(paint(cut))
        row[2].imshow(error, cmap="inferno", vmin=0, vmax=most)
        row[0].set_ylabel(name)
        for cell in row:
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
    for cell, title in zip(axes[0], ("target", "result", "absolute error"), strict=True):
        cell.set_title(title, fontsize=11)
    errors_scale = ScalarMappable(Normalize(0, most), "inferno")
    below: dict[str, Any] = {"location": "bottom", "fraction": 0.05, "aspect": 30, "pad": 0.02}
    if isinstance(paint, _Colors):
        scale = ScalarMappable(Normalize(paint.low, paint.high), paint.colormap)
        figure.colorbar(scale, ax=axes[:, :2], **below)
        figure.colorbar(errors_scale, ax=axes[:, 2], **below)
    else:
        axes[-1, 0].set_xlabel(paint.note)
        # of all columns: one column that gives room alone would not stand beside the others
        figure.colorbar(errors_scale, ax=axes, shrink=0.32, anchor=(1.0, 0.0), **below)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
