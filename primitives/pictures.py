"""Pictures that every primitive leaves: how they are written, and the learning curve."""

from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.files import atomic_path


def save_png(path: Path, rgb: np.ndarray) -> None:
    """Write uint8 [h, w, 3].

    Raises:
        ResourceError: the folder cannot be written, or the disk is full.
    """
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(rgb).save(temporary, format="PNG")


def make_figure(width: float, height: float) -> Any:
    """Return a figure that draws into memory, without a display or global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_learning_curve(
    path: Path, curve: np.ndarray, label: str, batch: str, end: tuple[float, str] | None
) -> None:
    """Draw a metric over the training time.

    Args:
        path: the PNG.
        curve: float64 [n, 3]: step, seconds, metric.
        label: of the metric, with its unit.
        batch: what the curve is of.
        end: the metric in the end and what it is of; None: not known.

    Raises:
        ResourceError: the folder cannot be written, or the disk is full.
    """
    figure = make_figure(8.0, 4.5)
    axes = figure.add_subplot()
    if len(curve):
        axes.plot(curve[:, 1], curve[:, 2], linewidth=1.0, label=batch)
    if end is not None:
        axes.axhline(end[0], color="C1", linestyle="--", label=end[1])
    axes.set_xlabel("training time in seconds")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    if len(curve) or end is not None:
        axes.legend(loc="lower right")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """Return linear light of sRGB values, float32 (IEC 61966-2-1)."""
    values = np.asarray(values, np.float32)
    curve = ((np.maximum(values, 0) + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.where(values <= 0.04045, values / np.float32(12.92), curve)


def linear_to_srgb(values: np.ndarray) -> np.ndarray:
    """Return sRGB values of linear light, float32 (IEC 61966-2-1)."""
    values = np.asarray(values, np.float32)
    curve = np.float32(1.055) * np.maximum(values, 0) ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(values <= 0.0031308, values * np.float32(12.92), curve)
