"""Exports of a fitted image: a deep-zoom pyramid with its page, and full-size pictures."""

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.files import atomic_folder
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.image.pyramid import OVERLAP, TILE_SIZE, Pyramid
from ngp_warp.primitives.image.raster import raster_of
from ngp_warp.primitives.image.render import convert, render, transfer_of

_JPEG_QUALITY = 90
_WEB = Path(__file__).with_name("web")
_LIBRARY = "openseadragon.min.js"
_LICENSE = "openseadragon-LICENSE.txt"
_XMLNS = "http://schemas.microsoft.com/deepzoom/2008"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title>
<style>html, body, #view { height: 100%; margin: 0; background: #181818; }</style>
</head>
<body>
<div id="view"></div>
<script src="openseadragon.min.js"></script>
<script>
// The source is written out here: a page opened from a disk may not fetch image.dzi.
OpenSeadragon({
  id: "view",
  drawer: "canvas",
  showNavigationControl: false,
  showNavigator: true,
  maxZoomPixelRatio: 8,
  tileSources: SOURCE
});
</script>
</body>
</html>
"""


def export_dzi(run: Any, output: Path | None = None, *, progress: Report = report_nothing) -> Path:
    """Write a deep-zoom pyramid: image.dzi, image_files/LEVEL/X_Y.jpg, and image.html to see it.

    The picture is decoded in bands, so that its size takes disk space but little memory. Tiles are
    8-bit JPEG, PNG where there is an alpha channel; high dynamic range is tone-mapped as by
    ``ngp_warp.primitives.image.render.convert``.

    Args:
        run: an image's ``ngp_warp.run.Run``.
        output: the folder, made or replaced; None: exports/dzi of the run.
        progress: told of the rows done.

    Returns:
        The page, which opens in a browser from the disk.

    Raises:
        ResourceError: the folder holds something else, cannot be written, or the disk is full.
        CheckpointError: the run cannot be read.
    """
    target = Path(run.path, "exports", "dzi") if output is None else output
    data = run.header["data"]
    width, height, channels = data["width"], data["height"], data["n_outputs"]
    suffix = "png" if channels in (2, 4) else "jpg"
    raster = raster_of(run.fitted, transfer_of(run.config), width, height)
    with atomic_folder(target, known="image.dzi") as folder:
        _write_pages(folder, run.source.name, width, height, suffix)
        pyramid = Pyramid(width, height, channels, _tile_writer(folder / "image_files", suffix))
        for row, band in raster.bands():
            pyramid.add(convert(band, data, "uint8"))
            progress(Progress(stage="write", step=row + len(band), total=height))
    return target / "image.html"


def export_picture(
    run: Any, output: Path | None = None, *, suffix: str, progress: Report = report_nothing
) -> Path:
    """Write the picture in its own size.

    Args:
        run: an image's ``ngp_warp.run.Run``.
        output: the file; None: exports/image.SUFFIX of the run.
        suffix: "png", "tif", "exr", "jpg" or "npy"; ``output`` must have it.
        progress: told of the rows done.

    Returns:
        The file.

    Raises:
        NgpError: as ``ngp_warp.primitives.image.render.render``.
    """
    target = Path(run.path, "exports", f"image.{suffix}") if output is None else output
    if target.suffix.lower() != f".{suffix}":
        raise ConfigError(f"--format {suffix} writes to a file named *.{suffix}, not {target}")
    render(run, target, progress=progress)
    return target


def _tile_writer(folder: Path, suffix: str) -> Callable[[int, int, int, np.ndarray], None]:
    from PIL import Image

    options: dict[str, Any] = (
        {"quality": _JPEG_QUALITY, "subsampling": 0} if suffix == "jpg" else {}
    )

    def write(level: int, column: int, row: int, pixels: np.ndarray) -> None:
        level_folder = folder / str(level)
        if column == row == 0:
            level_folder.mkdir(parents=True)
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        picture.save(level_folder / f"{column}_{row}.{suffix}", **options)

    return write


def _write_pages(folder: Path, title: str, width: int, height: int, suffix: str) -> None:
    (folder / "image.dzi").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<Image xmlns="{_XMLNS}" Format="{suffix}" Overlap="{OVERLAP}" TileSize="{TILE_SIZE}">\n'
        f'  <Size Width="{width}" Height="{height}"/>\n</Image>\n',
        encoding="utf-8",
    )
    source = {
        "xmlns": _XMLNS,
        "Url": "image_files/",
        "Format": suffix,
        "Overlap": OVERLAP,
        "TileSize": TILE_SIZE,
        "Size": {"Width": width, "Height": height},
    }
    page = _PAGE.replace("SOURCE", json.dumps({"Image": source})).replace(
        "TITLE", html.escape(title)
    )
    (folder / "image.html").write_text(page, encoding="utf-8")
    for name in (_LIBRARY, _LICENSE):
        (folder / name).write_bytes((_WEB / name).read_bytes())
