"""Masks and depth maps of views."""

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.nerf.downscale import nearest, smallest
from ngp_warp.primitives.nerf.photo_files import PhotoFile, Size

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def check_mask(file: PhotoFile) -> None:
    """Raise DataError unless the file can be a mask: of integers."""
    if file.source.dtype == "float32":
        raise DataError(f"{file.path} is of floats; a mask is a picture of 8 bits, 0: not trained")


def check_depth(file: PhotoFile) -> None:
    """Raise DataError unless the file can be a depth map."""
    if file.source.dtype == "uint8":
        raise DataError(
            f"{file.path} has 8 bits; a depth map is a PNG of 16 bits, an EXR, TIFF or NPY"
        )
    if file.source.channels > 2 and file.source.dtype != "float32":
        raise DataError(
            f"{file.path} has {file.source.channels} channels; a depth map has one, distances"
        )


def read_mask(file: PhotoFile, size: Size) -> np.ndarray:
    """Return uint8 [h, w]: 0 or 255.

    A pixel is trained if every pixel of the mask that it touches is not 0, so that nothing masked
    leaks into it. Of several channels any may be above 0; transparent pixels are 0.

    Args:
        file: a picture of integers, of any size.
        size: width and height of the result.
    """
    pixels = file.decode()
    has_alpha = file.source.channels in (2, 4)
    trained = pixels[..., : file.source.channels - has_alpha].any(axis=2)
    if has_alpha:
        trained &= pixels[..., -1] > 0
    return smallest(np.where(trained, np.uint8(255), np.uint8(0)), size)


def read_depth(file: PhotoFile, size: Size, unit: float) -> np.ndarray:
    """Return float32 [h, w]: distances in scene units; 0: not known.

    What is 0, negative, infinite or not a number is not known. Of a smaller result each pixel has
    the depth at its middle.

    Args:
        file: integers or floats, in its first channel.
        size: width and height of the result.
        unit: scene units of one unit of the file.
    """
    values = nearest(file.decode()[..., 0], size).astype(np.float64) * unit
    known = (values > 0) & (values <= _FLOAT32_MAX)
    return np.where(known, values, 0.0).astype(np.float32)
