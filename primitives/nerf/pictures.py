"""The pictures of a run: views beside their photos with a map of the error, a sheet of depths."""

import math
from collections.abc import Sequence

import numpy as np

from ngp_warp.primitives.nerf.passes import Buffers
from ngp_warp.primitives.nerf.render import SOLID, DepthRange, depth_picture

MAX_SIDE = 1024
"""Longest side of a view in a picture; larger ones are reduced by whole factors."""
_SHEET_SIDE = 192
_GAP = 8
_CAPTION = 22
_FONT = 15
_LEGEND = "photo | view | error (0 to {:.3f})"
_INK, _PAPER = (20, 20, 20), 255


def reduced(made: Buffers) -> np.ndarray:
    """Return every k-th pixel of a depth, for a sheet; infinite where less than half is hit."""
    k = max(math.ceil(max(made.depth.shape) / _SHEET_SIDE), 1)
    depth = made.depth[::k, ::k]
    return np.where(made.opacity[::k, ::k] < SOLID, np.inf, depth)


def pooled(picture: np.ndarray, max_side: int = MAX_SIDE) -> np.ndarray:
    """Return a picture [h, w, c] reduced by averaging k x k pixels; odd rests are left out."""
    k = max(math.ceil(max(picture.shape[:2]) / max_side), 1)
    if k == 1:
        return picture
    height, width = max(picture.shape[0] // k, 1), max(picture.shape[1] // k, 1)
    cut = picture[: height * k, : width * k]
    return cut.reshape(height, -1, width, cut.shape[1] // width, cut.shape[2]).mean(axis=(1, 3))


def error_scale(differences: Sequence[np.ndarray]) -> float:
    """Return the root mean square error of a pixel that is drawn brightest."""
    errors = np.concatenate([_rms(difference).ravel() for difference in differences])
    return max(float(np.percentile(errors, 99.5)), 1e-3)


def _rms(difference: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(difference).mean(axis=2))


def caption(name: str, psnr: float | None, ssim: float | None) -> str:
    """Return the line above a view."""
    parts = [name]
    parts += [] if psnr is None else [f"{psnr:.2f} dB"]
    parts += [] if ssim is None else [f"SSIM {ssim:.4f}"]
    return "  ".join(parts)


def comparison(truth: np.ndarray, result: np.ndarray, title: str, top: float) -> np.ndarray:
    """Return photo, view and error beside each other (below, if they are wide), uint8 [h, w, 3].

    Args:
        truth: float [h, w, 3], 0..1.
        result: the same.
        title: written above.
        top: root mean square error that is drawn brightest.
    """
    import matplotlib

    error = _rms(pooled(np.square(result - truth)) ** 0.5) / top
    heat = matplotlib.colormaps["inferno"](np.clip(error, 0, 1), bytes=True)[..., :3]
    panels = [np.rint(np.clip(pooled(p), 0, 1) * 255).astype(np.uint8) for p in (truth, result)]
    wide = truth.shape[1] > 2 * truth.shape[0]
    body = _joined([*panels, heat], axis=0 if wide else 1)
    lines = [_line(title, body.shape[1]), _line(_LEGEND.format(top), body.shape[1])]
    return np.concatenate([*lines, body])


def depth_sheet(depths: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Return depths [h, w], infinite where nothing is, as one picture of colours, with names."""
    span = DepthRange.of(np.concatenate([depth.ravel() for _, depth in depths]))
    height = max(depth.shape[0] for _, depth in depths)
    width = max(depth.shape[1] for _, depth in depths)
    cells = []
    for name, depth in depths:
        cell = np.full((height, width, 3), _PAPER, np.uint8)
        cell[: depth.shape[0], : depth.shape[1]] = depth_picture(depth, span)
        cells.append(np.concatenate([_line(name, width, 11), cell]))
    n_columns = math.ceil(math.sqrt(len(cells) * height / width))
    blank = np.full_like(cells[0], _PAPER)
    cells += [blank] * (-len(cells) % n_columns)
    rows = [_joined(cells[i : i + n_columns], 1) for i in range(0, len(cells), n_columns)]
    return _joined(rows, 0)


def _joined(parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
    shape = list(parts[0].shape)
    shape[axis] = _GAP
    gap = np.full(shape, _PAPER, np.uint8)
    spaced = [piece for part in parts for piece in (gap, part)][1:]
    return np.concatenate(spaced, axis=axis)


def _line(text: str, width: int, size: int = _FONT) -> np.ndarray:
    """Return a strip of paper with a line of text, uint8 [h, width, 3]."""
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (width, _CAPTION), (_PAPER,) * 3)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(strip).text((4, (_CAPTION - size) // 2 - 1), text, fill=_INK, font=font)
    return np.asarray(strip)
