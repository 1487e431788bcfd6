"""How good a run in blocks is: over all pixels of the one image, and by block."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp import launch
from ngp_warp.primitive import Progress, Report, check_same
from ngp_warp.primitives import get
from ngp_warp.primitives.image import pictures
from ngp_warp.primitives.image.blocks.layout import Layout, name_of
from ngp_warp.primitives.image.blocks.mosaic import Mosaic
from ngp_warp.primitives.image.config import ImageConfig, parse_box
from ngp_warp.primitives.image.data import SHARED_BYTES, Image, load_image
from ngp_warp.primitives.image.evaluate import measure
from ngp_warp.run import Run, open_run
from ngp_warp.run_folder import write_json

_CURVE_POINTS = 512


class CoreErrors:
    """Mean squared error of each block's core, from bands of the whole image."""

    def __init__(self, layout: Layout):
        self._layout = layout
        self._sums = np.zeros((layout.rows, layout.columns))
        self._counts = np.zeros((layout.rows, layout.columns))

    def add(self, row: int, error: np.ndarray) -> None:
        """Take the band that begins at ``row``: squared errors [rows, width, channels]."""
        layout = self._layout
        block_rows = np.searchsorted(layout.edges_y, np.arange(row, row + len(error)), "right") - 1
        sums = error.sum(axis=2, dtype=np.float64)
        by_column = np.add.reduceat(sums, layout.edges_x[:-1], axis=1)
        np.add.at(self._sums, block_rows, by_column)
        widths = np.diff(layout.edges_x) * error.shape[2]
        np.add.at(self._counts, block_rows, widths)

    def psnr(self, row: int, column: int) -> float:
        """Return the PSNR of a block's core in dB."""
        mean = self._sums[row, column] / self._counts[row, column]
        return round(-10 * math.log10(max(mean, 1e-12)), 3)


def load_whole(source: Path, config: ImageConfig) -> Image:
    """Read the whole image as its blocks are read: larger ones through one shared cache file."""
    return load_image(
        source,
        cache_dir=Path(config.cache_dir) if config.cache_dir else None,
        max_bytes=SHARED_BYTES,
        crop=parse_box(config.crop),
    )


def measure_blocks(run: Run, report: Report) -> tuple[dict[str, Any], pictures.Thumbnails]:
    """Compare the one image with the original.

    Args:
        run: in blocks, all finished.
        report: told of progress.

    Returns:
        The metrics, with a list "blocks", and reduced pictures of result, truth and error.
    """
    image = load_whole(run.source, run.config)
    check_same(run.source, get("image").describe(image), run.header["data"])
    mosaic: Mosaic = run.fitted
    errors = CoreErrors(mosaic.layout)
    metrics, thumbnails = measure(mosaic, image, run.config, report, errors.add)
    metrics["blocks"] = [
        {"name": name_of(*at), "psnr": errors.psnr(*at), **_told(mosaic.block(*at))}
        for at in mosaic.layout.cells()
    ]
    return metrics, thumbnails


def _told(block: Run) -> dict[str, Any]:
    names = ("steps", "seconds", "parameters", "device")
    return {name: block.metrics[name] for name in names}


def measure_run(folder: Path, device: str | None, threads: int | None, report: Report) -> None:
    """Measure a run in blocks; write its metrics.json and pictures."""
    if threads is not None:
        launch.set_num_threads(threads)
    device = launch.resolve_device(device)
    run = open_run(folder, device=device)
    metrics, thumbnails = measure_blocks(run, report)
    report(Progress(stage="write", message="writing pictures"))
    pictures.write_all(folder / "renders", thumbnails, mean_curve(run), metrics)
    blocks = metrics.pop("blocks")
    metrics |= {name: sum(b[name] for b in blocks) for name in ("steps", "seconds", "parameters")}
    metrics["seconds"] = round(metrics["seconds"], 3)
    metrics |= {"device": device, "threads": launch.num_threads(), "blocks": blocks}
    write_json(folder / "metrics.json", metrics)


def mean_curve(run: Run) -> np.ndarray:
    """Return the blocks' learning curves as one, over a block's training time.

    Returns:
        [n, 3]: mean of the steps, seconds, and the PSNR in dB of the blocks' mean squared error, as
        that of the whole image is.
    """
    mosaic: Mosaic = run.fitted
    curves = [
        np.array(mosaic.block(*at).header["curve"], np.float64).reshape(-1, 3)
        for at in mosaic.layout.cells()
    ]
    curves = [curve for curve in curves if len(curve)]
    if len(curves) < 2:
        return curves[0] if curves else np.zeros((0, 3))
    # over the time that all have
    end = min(curve[-1, 1] for curve in curves)
    seconds = np.linspace(max(curve[0, 1] for curve in curves), end, _CURVE_POINTS)
    steps, values = (
        np.array([np.interp(seconds, c[:, 1], c[:, i]) for c in curves]) for i in (0, 2)
    )
    errors = 10 ** (-values / 10)
    return np.stack([steps.mean(0), seconds, -10 * np.log10(errors.mean(0))], axis=1)
