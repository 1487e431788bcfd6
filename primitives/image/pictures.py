"""The pictures of a run: result beside target, error map, learning curve."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.files import atomic_path
from ngp_warp.primitives.pictures import make_figure, save_png, write_learning_curve

MAX_SIDE = 2048
"""Longest side of result and target; larger images are reduced by whole factors."""


class Thumbnails:
    """Result, truth and root mean square error, reduced by averaging k x k pixels.

    Args:
        width: of the image.
        height: of the image.
        channels: of the image.
        view: stored pixels -> float values from 0 to ``view.peak``.
    """

    def __init__(
        self, width: int, height: int, channels: int, view: Callable[[np.ndarray], np.ndarray]
    ):
        self.factor = -(-max(width, height) // MAX_SIDE)
        self.view = view
        size = (-(-height // self.factor), -(-width // self.factor))
        self._sums = {
            name: np.zeros((*size, depth), np.float64)
            for name, depth in (("result", channels), ("target", channels), ("error", 1))
        }
        self._counts = np.zeros((*size, 1))

    def add(self, row: int, decoded: np.ndarray, truth: np.ndarray, error: np.ndarray) -> None:
        """Take the band of rows that begins at ``row``; ``error`` is its squared error."""
        k = self.factor
        rows = (np.arange(len(decoded)) + row) // k
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        columns = np.arange(0, decoded.shape[1], k)
        peak = self.view.peak  # type: ignore[attr-defined]
        bands = {
            "result": self.view(decoded) / peak,
            "target": self.view(truth) / peak,
            "error": error.mean(axis=2, keepdims=True),
        }
        for name, band in bands.items():
            self._sums[name][rows[starts]] += _pool(band, starts, columns)
        ones = np.ones((*decoded.shape[:2], 1), np.float32)
        self._counts[rows[starts]] += _pool(ones, starts, columns)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return "result", "target" [h, w, c] or "error" [h, w, 1] (RMS), from 0 to 1."""
        mean = self._sums[name] / np.maximum(self._counts, 1)
        return np.sqrt(mean) if name == "error" else mean


def _pool(band: np.ndarray, starts: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.add.reduceat(np.add.reduceat(band, columns, axis=1), starts, axis=0)


def write_all(
    folder: Path, thumbnails: Thumbnails, curve: np.ndarray, metrics: dict[str, Any]
) -> None:
    """Write result.png, target.png, comparison.png, error.png and learning_curve.png.

    Raises:
        ResourceError: the folder cannot be written, or the disk is full.
    """
    result, target = (_to_rgb(thumbnails[name]) for name in ("result", "target"))
    save_png(folder / "result.png", result)
    save_png(folder / "target.png", target)
    save_png(folder / "comparison.png", _comparison(target, result))
    _error_map(folder / "error.png", thumbnails["error"][..., 0], metrics)
    write_learning_curve(
        folder / "learning_curve.png",
        curve,
        "PSNR in dB",
        "each batch, before its update",
        (metrics["psnr"], "all pixels, at the end"),
    )


def _to_rgb(unit: np.ndarray) -> np.ndarray:
    """Return uint8 RGB; transparency over a grey chequerboard."""
    depth = unit.shape[2]
    colour = unit[..., :3] if depth >= 3 else np.repeat(unit[..., :1], 3, axis=2)
    if depth in {2, 4}:
        y, x = np.indices(unit.shape[:2])
        board = (0.6 + 0.2 * ((x // 16 + y // 16) % 2))[..., None]
        colour = colour * unit[..., -1:] + board * (1 - unit[..., -1:])
    return np.rint(np.clip(colour, 0, 1) * 255).astype(np.uint8)


def _comparison(target: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Return target and result side by side (above each other if they are wide)."""
    wide = target.shape[1] > 1.5 * target.shape[0]
    gap = np.full((8, target.shape[1], 3) if wide else (len(target), 8, 3), 255, np.uint8)
    return np.concatenate([target, gap, result], axis=0 if wide else 1)


def _error_map(path: Path, error: np.ndarray, metrics: dict[str, Any]) -> None:
    height, width = error.shape
    figure = make_figure(10.0, min(max(10.0 * height / width, 2.0), 20.0) + 0.6)
    axes = figure.add_subplot()
    top = max(float(np.percentile(error, 99.5)), 1e-6)
    shown = axes.imshow(error, cmap="inferno", vmin=0, vmax=top, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(f"root mean square error, full scale = 1 ({metrics['psnr']:.2f} dB)")
    figure.colorbar(shown, ax=axes, shrink=0.8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
