"""How good a fitted image is, over every pixel, and the pictures that show it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.compact import stored_bytes
from ngp_warp.field import Field
from ngp_warp.primitive import Progress, Report
from ngp_warp.primitives.image import pictures
from ngp_warp.primitives.image.config import ImageConfig
from ngp_warp.primitives.image.data import Image
from ngp_warp.primitives.image.raster import quantize, raster_of, tone_map
from ngp_warp.primitives.image.transfer import choose

# The window of Wang et al. 2004: sigma 1.5, 11 pixels across.
_SSIM_MARGIN = 5
# Beyond this, structural similarity is measured on every k-th stripe: it costs 1 us a pixel.
SSIM_PIXELS = 2**26
# Rows of a stripe: several windows, however few rows the bands of a wide image have.
_STRIPE_ROWS = 64


@dataclass
class View:
    """What is compared: stored pixels as values of a stated range."""

    name: str
    peak: float
    tone_map: bool
    to_unit: bool

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 values from 0 to ``peak``."""
        values = pixels.astype(np.float32)
        if self.tone_map:
            values = tone_map(values)
        if self.to_unit:
            return np.rint(np.clip(values, 0, 1) * 255)
        return values


def make_view(image: Image) -> View:
    """Return how an image is compared: integers as they are, floats as 8 bit or tone-mapped."""
    if image.info.dtype != "float32":
        bits = 8 if image.info.dtype == "uint8" else 16
        return View(f"decoded {bits}-bit values", float(2**bits - 1), False, False)
    if image.unit_range:
        return View("values 0..1 rounded to 8 bit", 255.0, False, True)
    return View("v/(1+v) in sRGB, rounded to 8 bit", 255.0, True, True)


@dataclass
class Scores:
    """Sums over the pixels seen so far."""

    view: View
    squares: float = 0.0
    count: int = 0
    ssim_sum: float = 0.0
    ssim_count: int = 0
    negative: int = 0
    negative_right: int = 0
    _tail: list[np.ndarray] = field(default_factory=list)

    def add(self, decoded: np.ndarray, truth: np.ndarray, with_ssim: bool) -> np.ndarray:
        """Take a band of rows; return its squared error [rows, width, c] in units of the peak."""
        a, b = self.view(decoded), self.view(truth)
        error = np.square((a - b) / np.float32(self.view.peak))
        self.squares += float(error.sum(dtype=np.float64))
        self.count += error.size
        if truth.dtype == np.float32:
            below = truth < 0
            self.negative += int(below.sum())
            self.negative_right += int((decoded[below] < 0).sum())
        self._add_ssim(a, b, with_ssim)
        return error

    def _add_ssim(self, a: np.ndarray, b: np.ndarray, wanted: bool) -> None:
        """Add the band's windows; those across two bands need the last band's lowest rows."""
        if self._tail:
            a, b = (np.concatenate(pair) for pair in zip(self._tail, (a, b), strict=True))
        self._tail = [v[-2 * _SSIM_MARGIN :].copy() for v in (a, b)] if wanted else []
        if not wanted or min(a.shape[:2]) <= 2 * _SSIM_MARGIN:
            return
        from skimage.metrics import structural_similarity

        full = structural_similarity(
            a,
            b,
            data_range=self.view.peak,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )[1]
        inner = full[_SSIM_MARGIN:-_SSIM_MARGIN, _SSIM_MARGIN:-_SSIM_MARGIN]
        self.ssim_sum += float(inner.sum(dtype=np.float64))
        self.ssim_count += inner.size

    def metrics(self) -> dict[str, Any]:
        """Return psnr, ssim and what they are of."""
        mean = self.squares / self.count
        values: dict[str, Any] = {
            "psnr": round(-10 * math.log10(max(mean, 1e-12)), 3),
            "psnr_of": self.view.name,
            "ssim": round(self.ssim_sum / self.ssim_count, 5) if self.ssim_count else None,
        }
        if self.negative:
            values["negative_values"] = self.negative
            values["negative_sign_right"] = round(self.negative_right / self.negative, 5)
        return values


def measure(
    fitted: Any,
    image: Image,
    config: ImageConfig,
    report: Report,
    watch: Callable[[int, np.ndarray], None] | None = None,
) -> tuple[dict[str, Any], pictures.Thumbnails]:
    """Decode every pixel and compare it.

    Args:
        fitted: what ``Run.fitted`` of an image is.
        image: the truth.
        config: resolved.
        report: told of progress.
        watch: called with the first row of each band and its squared error
            [rows, width, channels] in units of the peak.

    Returns:
        The metrics, and reduced pictures of result, truth and error.
    """
    info = image.info
    transfer = choose(config, image)[0]
    scores = Scores(make_view(image))
    thumbnails = pictures.Thumbnails(info.width, info.height, info.channels, scores.view)
    raster = raster_of(fitted, transfer, info.width, info.height)
    every = max(1, round(info.width * info.height / SSIM_PIXELS))
    stripe = max(_STRIPE_ROWS, raster.band_rows)
    for row, band in raster.bands():
        decoded = quantize(band, info.dtype)
        truth = np.asarray(image.pixels[row : row + len(band)])
        error = scores.add(decoded, truth, row // stripe % every == 0)
        thumbnails.add(row, decoded, truth, error)
        if watch is not None:
            watch(row, error)
        report(Progress(stage="evaluate", step=row + len(band), total=info.height))
    n_bytes = stored_bytes(fitted) if isinstance(fitted, Field) else fitted.stored_bytes()
    return {
        **scores.metrics(),
        "width": info.width,
        "height": info.height,
        "channels": info.channels,
        "bytes": n_bytes,
        "bits_per_pixel": round(n_bytes * 8 / (info.width * info.height), 4),
    }, thumbnails


def evaluate(
    field: Field,
    image: Image,
    config: ImageConfig,
    run: Path,
    curve: np.ndarray,
    report: Report,
) -> dict[str, Any]:
    """Measure a fitted image and write the pictures to run/renders; return the metrics."""
    metrics, thumbnails = measure(field, image, config, report)
    report(Progress(stage="write", message="writing pictures"))
    pictures.write_all(run / "renders", thumbnails, curve, metrics)
    return metrics
