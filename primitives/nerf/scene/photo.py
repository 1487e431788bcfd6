"""Where a photo lies, how large it is, and a lens for its size. Only headers are read."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.primitives.image.info import turned_size
from ngp_warp.primitives.image.readers import open_source
from ngp_warp.primitives.nerf.scene.checks import SceneError
from ngp_warp.primitives.nerf.scene.files import is_file
from ngp_warp.primitives.nerf.scene.values import LARGEST
from ngp_warp.rays.lenses import Lens

SUFFIXES = (".png", ".jpg", ".jpeg", ".exr", ".webp", ".tif", ".tiff", ".avif", ".hdr", ".npy")
"""Tried in this order where a name has none; capital letters too."""
SIZE_MAX = 1 << 20
FOCAL_LEAST = 1e-3
"""Pixels."""


def find_photo(folder: Path, name: str) -> Path | None:
    """Return the photo of a name that may lack its suffix or have backslashes; None: not there."""
    for text in dict.fromkeys((name, name.replace("\\", "/"))):
        path = folder / text
        if is_file(path):
            return path
        for suffix in SUFFIXES:
            for spelled in (suffix, suffix.upper()):
                if is_file(path.parent / f"{path.name}{spelled}"):
                    return path.parent / f"{path.name}{spelled}"
    return None


def view_name(photo: Path, folder: Path) -> str:
    """Return a photo's path from the scene's folder, without the way up where it lies elsewhere."""
    parts = Path(os.path.relpath(photo, folder)).parts
    return "/".join(part for part in parts if part != "..")


def photo_sizes(path: Path) -> list[tuple[int, int]]:
    """Return a photo's width and height as stored, then, if that differs, as its EXIF turns it.

    Raises:
        DataError: it cannot be read.
    """
    source = open_source(path)
    stored = (source.width, source.height)
    return list(dict.fromkeys((stored, turned_size(*stored, source.orientation))))


def make_lens(where: str, *, width: int, height: int, **values: Any) -> Lens:
    """Return a lens, or say where and what is wrong with it.

    Args:
        where: named in errors.
        width: of the photo in pixels.
        height: of the photo in pixels.
        values: the lens's other fields.

    Raises:
        DataError: no pixels, a focal length that is not above 0, an absurd number, or a coefficient
            that a fisheye lens does not have.
    """
    if not (1 <= width <= SIZE_MAX and 1 <= height <= SIZE_MAX):
        what = f"the lens is for {width}x{height} pixels"
        raise SceneError(where, what, f"width and height must lie between 1 and {SIZE_MAX}")
    for name, value in values.items():
        if not abs(value) <= LARGEST:
            raise SceneError(where, f"{name} of the lens is {value:g}", "calibrate it again")
        if name in ("fx", "fy") and not value >= FOCAL_LEAST:
            what = f"the focal length {name} is {value:g} pixels"
            raise SceneError(where, what, "it must be above 0: calibrate the lens again")
    try:
        return Lens(width=width, height=height, **values)
    except ConfigError as error:
        raise SceneError(where, str(error), "calibrate the lens again") from error


def fit_lens(lens: Lens, sizes: list[tuple[int, int]], where: str) -> Lens:
    """Return the lens for the size that the photo has.

    A scene's poses and lens are of the pixels that its maker's program saw, and most programs do
    not look at EXIF orientation: so it is applied where only the turned photo has the shape that
    the scene's file states, and not otherwise.

    Args:
        lens: as the scene's file states it.
        sizes: of the photo, from `photo_sizes`.
        where: named in errors.

    Returns:
        The lens, its size one of ``sizes``.

    Raises:
        DataError: the photo has another shape.
    """
    stated = (lens.width, lens.height)
    for size in sizes:
        if size == stated:
            return lens
    for size in sizes:
        if same_shape(stated, size):
            return lens.scaled(*size)
    raise SceneError(
        where,
        f"the photo has {sizes[0][0]}x{sizes[0][1]} pixels and its lens is for "
        f"{stated[0]}x{stated[1]}",
        "both must have one aspect ratio: use the photos that were posed",
    )


def same_shape(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Return whether two sizes have one aspect ratio, within the rounding to whole pixels."""
    small, large = sorted((a, b))
    ratio = np.sqrt(large[0] / small[0] * (large[1] / small[1]))
    return bool(np.all(np.abs(np.array(large) / ratio - small) <= 1.0))
