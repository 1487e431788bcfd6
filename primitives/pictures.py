"""Pictures that every primitive leaves: how they are written, and the learning curve."""

from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import ResourceError
from ngp_warp.files import atomic_path

_GAP = 12
"""Pixels of white around the pictures of a row."""


def save_png(path: Path, rgb: np.ndarray) -> None:
    """Write uint8 [h, w, 3].

    Raises:
        ResourceError: the folder cannot be written, or the disk is full.
    """
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(rgb).save(temporary, format="PNG")


def picture_row(pictures: list[np.ndarray], texts: list[str]) -> np.ndarray:
    """Return pictures uint8 [h, w, 3] side by side on white, each with its lines of text below."""
    from PIL import Image, ImageDraw, ImageFont

    height = max(len(picture) for picture in pictures)
    font_size = max(height // 32, 10)
    lines = max(text.count("\n") for text in texts)
    margin = 2 * _GAP + 2 * font_size + int(1.4 * font_size) * lines
    width = _GAP + sum(picture.shape[1] + _GAP for picture in pictures)
    sheet = Image.new("RGB", (width, height + margin), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(font_size)
    left = _GAP
    for picture, text in zip(pictures, texts, strict=True):
        sheet.paste(Image.fromarray(picture), (left, _GAP + height - len(picture)))
        draw.text((left, height + _GAP + font_size // 2), text, fill=(40, 40, 44), font=font)
        left += picture.shape[1] + _GAP
    return np.asarray(sheet)


def write_exr(path: Path, channels: dict[str, np.ndarray]) -> None:
    """Write float32 channels [h, w] by name, compressed without loss.

    By convention R, G and B are linear light, with A premultiplied, and Z is a distance.

    Raises:
        ResourceError: the folder cannot be written, or the disk is full.
    """
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    parts = {name: np.ascontiguousarray(part, np.float32) for name, part in channels.items()}
    with atomic_path(path) as temporary, OpenEXR.File(header, parts) as file:
        try:
            file.write(str(temporary))
        except RuntimeError as error:  # OpenEXR's own way to say that the disk is full
            raise ResourceError(f"cannot write {path}: {error}") from error


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
