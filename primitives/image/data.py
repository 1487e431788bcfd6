"""Image files to pixels: in memory where they fit, memory-mapped where they do not.

Integer images are taken as sRGB whatever their profile; float images as linear light.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ngp_warp import memory
from ngp_warp.errors import ConfigError, DataError, ResourceError
from ngp_warp.files import format_bytes
from ngp_warp.primitives.image.cache import cached_pixels
from ngp_warp.primitives.image.info import (
    CHANNEL_NAMES,
    ImageInfo,
    rows_per_band,
    turned_size,
)
from ngp_warp.primitives.image.readers import open_source
from ngp_warp.primitives.image.readers.source import Source, reading

__all__ = ["Image", "ImageInfo", "load_image", "probe"]

_MAX_BYTES = 1 << 30
SHARED_BYTES = 1 << 26
"""The most that a picture takes in memory where only a part of it is wanted: larger ones go through
the cache file, so that several parts cost one decoding and little memory each."""
_ADVICE = "convert it to a tiled TIFF, which is read tile by tile"


@dataclass(frozen=True)
class Image:
    """Pixels and what is known of them."""

    info: ImageInfo
    pixels: np.ndarray
    """Shape [h, w, c], C-contiguous, uint8, uint16 or float32; finite; an np.memmap, read-only,
    where the image is larger than memory or its file holds the very pixels."""

    @cached_property
    def unit_range(self) -> bool:
        """Whether the picture is one of values 0..1 (integers: of full scale): no HDR."""
        if self.info.dtype != "float32":
            return True
        step = rows_per_band(self.pixels[0].nbytes)
        bands = (self.pixels[y : y + step] for y in range(0, len(self.pixels), step))
        return all(float(b.min()) >= 0.0 and float(b.max()) <= 1.0 for b in bands)

    def digest(self) -> str:
        """Return a short digest of 64 rows: it tells an image from another of the same size."""
        rows = np.linspace(0, len(self.pixels) - 1, min(64, len(self.pixels))).round().astype(int)
        digest = hashlib.sha256()
        for row in rows:
            digest.update(np.ascontiguousarray(self.pixels[row]).data)
        return digest.hexdigest()[:16]


def probe(path: str | Path) -> ImageInfo:
    """Read what an image holds from its header alone.

    Raises:
        DataError: the file is missing, broken, or no image.
    """
    path = Path(path)
    return _info(path, open_source(path))


def load_image(
    path: str | Path,
    *,
    cache_dir: Path | None = None,
    max_bytes: int | None = None,
    crop: tuple[int, int, int, int] | None = None,
) -> Image:
    """Read an image: JPEG, PNG, TIFF, WebP, AVIF, EXR, Radiance HDR or NPY, told by its content.

    EXIF orientation is applied; grey and alpha are kept; CMYK and palettes become RGB. Files that
    hold the very pixels (uncompressed TIFF, NPY) are mapped in place.

    Args:
        path: the file.
        cache_dir: where the decoded pixels of an image larger than ``max_bytes`` are kept;
            None: ngp-warp in this user's cache folder (XDG_CACHE_HOME).
        max_bytes: the most that the pixels may take in memory; None: 1 GiB, or half of what is
            available if that is less; with ``crop`` SHARED_BYTES. A map costs no speed while the
            system has memory for it.
        crop: left, top, width, height of the part that is wanted, in pixels; None: all.

    Raises:
        ConfigError: the crop reaches outside the image.
        DataError: the file is missing, broken, cut short, no image, or has pixels that are not
            finite.
        ResourceError: too little memory, or too little room for the cache.
    """
    path = Path(path)
    source = open_source(path)
    info = _info(path, source)
    available = memory.available_bytes()
    if crop is not None:
        _check_box(info, crop)
    if max_bytes is None:
        max_bytes = min(available // 2, _MAX_BYTES if crop is None else SHARED_BYTES)
    with reading(path):
        if source.mapped is not None and source.orientation == 1:
            pixels = source.mapped()
            if crop is None:
                _check_finite(path, pixels)
        elif info.bytes <= max_bytes:
            pixels = _in_memory(path, source, info, available)
        else:
            pixels = _through_cache(path, source, info, cache_dir, available)
        if crop is not None:
            pixels = _part(path, pixels, crop)
    return Image(replace(info, width=pixels.shape[1], height=pixels.shape[0]), pixels)


def _check_box(info: ImageInfo, box: tuple[int, int, int, int]) -> None:
    """Raise ConfigError unless a box lies within an image."""
    left, top, width, height = box
    if left + width > info.width or top + height > info.height:
        raise ConfigError(
            f"the crop {left},{top},{width},{height} reaches outside {info.path} of "
            f"{info.width}x{info.height} pixels"
        )


def _part(path: Path, pixels: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return the pixels of a box, C-contiguous: rows as they lie, else a copy of the box alone."""
    left, top, width, height = box
    part = pixels[top : top + height, left : left + width]
    if width != pixels.shape[1]:
        _check_memory(path, part.nbytes, memory.available_bytes())
        part = np.ascontiguousarray(part)
    _check_finite(path, part, (left, top))
    return part


def _info(path: Path, source: Source) -> ImageInfo:
    """Return what is known of the image once it is turned."""
    width, height = turned_size(source.width, source.height, source.orientation)
    return ImageInfo(
        path=path,
        format=source.format,
        width=width,
        height=height,
        channels=source.channels,
        channel_names=CHANNEL_NAMES[source.channels],
        dtype=source.dtype,
        hdr=source.hdr,
    )


def _in_memory(path: Path, source: Source, info: ImageInfo, available: int) -> np.ndarray:
    _check_memory(path, info.bytes + source.working_bytes, available)
    pixels = np.empty(info.shape, info.dtype)
    _decode(path, source, pixels)
    return pixels


def _through_cache(
    path: Path, source: Source, info: ImageInfo, cache_dir: Path | None, available: int
) -> np.ndarray:
    """Decode into a memory-mapped file: bit by bit where the format can, else in one go."""
    streams = source.stream is not None and source.orientation == 1

    def decode(pixels: np.ndarray) -> None:
        if streams and source.stream is not None:
            source.stream(pixels)
            _check_finite(path, pixels)
            return
        _check_memory(path, source.working_bytes, available)
        _decode(path, source, pixels)

    with reading(path):
        return cached_pixels(info, cache_dir, decode)


def _decode(path: Path, source: Source, pixels: np.ndarray) -> None:
    """Fill ``pixels`` [h, w, c] with the turned image, which must be finite."""
    source.fill(stored_view(pixels, source.orientation))
    _check_finite(path, pixels)


def stored_view(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return the view of a turned image that has its rows and columns as the file stores them.

    Args:
        pixels: shape [h, w, c], as seen.
        orientation: EXIF orientation, 1 to 8 (EXIF 2.32, tag 274).
    """
    if orientation in (5, 7):  # mirrored along a diagonal
        turned = pixels if orientation == 5 else pixels[::-1, ::-1]
        return turned.swapaxes(0, 1)
    if orientation in (6, 8):  # seen upright after a quarter turn to the right, or to the left
        return np.rot90(pixels, 1 if orientation == 6 else -1)
    rows = slice(None, None, -1 if orientation in (3, 4) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3) else 1)
    return pixels[rows, columns]


def _check_memory(path: Path, needed: int, available: int) -> None:
    """Raise ResourceError where decoding would not fit."""
    if needed > available:
        raise ResourceError(
            f"{path} needs {format_bytes(needed)} of memory to be decoded and "
            f"{format_bytes(available)} are available: {_ADVICE}"
        )


def _check_finite(path: Path, pixels: np.ndarray, corner: tuple[int, int] = (0, 0)) -> None:
    """Raise DataError that counts the pixels with a NaN or infinite channel.

    ``corner`` is the x and y of the first pixel in the file's image.
    """
    if pixels.dtype != np.float32:
        return
    step = rows_per_band(pixels[0].nbytes)
    count, first = 0, ""
    for y in range(0, len(pixels), step):
        bad = ~np.isfinite(pixels[y : y + step]).all(axis=2)
        n_bad = int(np.count_nonzero(bad))
        if n_bad and not count:
            row, column = np.unravel_index(int(bad.argmax()), bad.shape)
            first = f"[{corner[0] + column}, {corner[1] + y + row}]"
        count += n_bad
    if count:
        raise DataError(
            f"{path} has {count} pixels that are NaN or infinite, the first at [x, y] = {first}; "
            "mend them first"
        )
