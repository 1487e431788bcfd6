"""Decode a run to a picture of any size and crop, row by row."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp import memory
from ngp_warp.errors import ConfigError, ResourceError
from ngp_warp.files import format_bytes
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.image.raster import quantize, raster_of, tone_map
from ngp_warp.primitives.image.transfer import Transfer
from ngp_warp.primitives.image.writers import open_writer

_ROW_VALUE_BYTES = 32  # float32, converted, and what the PNG encoder makes of it


def transfer_of(config: Any) -> Transfer:
    """Return the transfer that a resolved config names."""
    return Transfer(1.0 / config.transfer_scale, config.transfer == "asinh")


def render(
    run: Any,
    output: Path,
    *,
    width: int | None = None,
    scale: float | None = None,
    crop: tuple[int, int, int, int] | None = None,
    progress: Report = report_nothing,
) -> None:
    """Decode a run to an image file.

    Args:
        run: an image's ``ngp_warp.run.Run``.
        output: its extension says the format; bits and channels are the fitted image's.
        width: of the picture (of the crop, if there is one), in pixels.
        scale: size as a multiple of the fitted image's.
        crop: left, top, width, height in pixels of the fitted image.
        progress: told of the rows done.

    Raises:
        ConfigError: the crop lies outside the image, or the format cannot hold the picture.
        ResourceError: the file cannot be written.
        CheckpointError: the run cannot be read.
    """
    data = run.header["data"]
    full, box = raster_size(data["width"], data["height"], width, scale, crop)
    dtype = stored_dtype(data["dtype"], output)
    _check_row(box[2], data["n_outputs"])
    with open_writer(output, box[2], box[3], data["n_outputs"], np.dtype(dtype)) as writer:
        raster = raster_of(run.fitted, transfer_of(run.config), *full, box)
        for row, band in raster.bands():
            writer.write(convert(band, data, dtype))
            progress(Progress(stage="write", step=row + len(band), total=box[3]))


def raster_size(
    image_width: int,
    image_height: int,
    width: int | None,
    scale: float | None,
    crop: tuple[int, int, int, int] | None,
) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """Return the size of the whole raster and the box of it that is wanted.

    Raises:
        ConfigError: the crop lies outside the image, or a size that cannot be.
    """
    if width is not None and scale is not None:
        raise ConfigError("give a width or a scale, not both")
    if (width is not None and width < 1) or (scale is not None and not 0 < scale < math.inf):
        raise ConfigError("the width must be at least 1 and the scale above 0")
    left, top, box_width, box_height = crop or (0, 0, image_width, image_height)
    if min(left, top) < 0 or min(box_width, box_height) < 1:
        raise ConfigError(f"the crop {crop} must be left, top, width, height, in whole pixels")
    if left + box_width > image_width or top + box_height > image_height:
        raise ConfigError(
            f"the crop {left},{top},{box_width},{box_height} reaches outside the image of "
            f"{image_width}x{image_height} pixels"
        )
    factor = width / box_width if width else scale or 1.0
    full = (max(round(image_width * factor), 1), max(round(image_height * factor), 1))
    size = (width or max(round(box_width * factor), 1), max(round(box_height * factor), 1))
    left = min(round(left * factor), max(full[0] - size[0], 0))
    top = min(round(top * factor), max(full[1] - size[1], 0))
    return full, (left, top, *size)


def _check_row(width: int, n_outputs: int) -> None:
    """Raise ResourceError where a single row takes more memory than there is."""
    needed, available = width * n_outputs * _ROW_VALUE_BYTES, memory.available_bytes()
    if needed > available:
        raise ResourceError(
            f"a row of {width} pixels takes {format_bytes(needed)} of memory to be written and "
            f"{format_bytes(available)} are available; give a smaller --width or --scale"
        )


def stored_dtype(dtype: str, output: Path) -> str:
    """Return the dtype that a file of this extension gets: the image's, where the format has it."""
    suffix = output.suffix.lower()
    if suffix in {".exr", ".hdr"}:
        return "float32"
    if suffix in {".jpg", ".jpeg", ".webp"} or (suffix == ".png" and dtype == "float32"):
        return "uint8"
    return dtype


def convert(band: np.ndarray, data: dict[str, Any], stored: str) -> np.ndarray:
    """Return decoded values in the image's units as what is stored.

    Args:
        band: float32 [h, w, channels].
        data: what the run keeps of its image.
        stored: "uint8", "uint16" or "float32". A float image stored in integers is what its PSNR
            is of: tone-mapped (v / (1 + v), sRGB), or as it is where all its values lie in 0..1. An
            integer image stored as float becomes its share of full scale.
    """
    if data["dtype"] == stored:
        return quantize(band, stored)
    if data["dtype"] == "float32":
        band = tone_map(band) if data["tone_map"] else band
    else:
        band = band / np.float32(np.iinfo(data["dtype"]).max)
    return (
        band if stored == "float32" else quantize(band * np.float32(np.iinfo(stored).max), stored)
    )
