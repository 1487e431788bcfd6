"""Pixels to image files, by extension: whole, or in rows for pictures larger than memory.

Every file is written beside and renamed, so that a picture is there whole or not at all.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image as PilImage

from ngp_warp import memory
from ngp_warp.errors import ConfigError, ResourceError, ShapeError
from ngp_warp.files import atomic_path, check_free_space, format_bytes
from ngp_warp.primitives.image.info import CHANNEL_NAMES
from ngp_warp.primitives.image.readers.source import silent_output
from ngp_warp.primitives.image.row_writers import (
    PngRowWriter,
    RowWriter,
    WholeWriter,
    needs_bigtiff,
    npy_row_writer,
    tiff_kind,
    tiff_row_writer,
)

_JPEG_QUALITY = 95
_WEBP_QUALITY = 95
_TILE = (256, 256)


@dataclass(frozen=True)
class _Format:
    """What a file format can hold, and how it is written."""

    dtypes: tuple[str, ...]
    channels: tuple[int, ...] = (1, 2, 3, 4)
    size_max: int = 2**31 - 1
    """Of width and height."""
    encode: Callable[[Path, np.ndarray], None] | None = None
    """Writes a whole picture [h, w, c]."""
    by_rows: Callable[[Path, int, int, int, np.dtype], RowWriter] | None = None
    uncompressed_rows: bool = False


def check_output(
    path: str | Path, width: int, height: int, channels: int, dtype: str | np.dtype
) -> None:
    """Raise unless a picture of this kind can be written under this name: ask before the work.

    Args:
        path: the file to be written; its extension tells the format.
        width: pixels.
        height: pixels.
        channels: 1 to 4 (Y, YA, RGB, RGBA).
        dtype: uint8, uint16, float16 or float32.

    Raises:
        ConfigError: an extension that is not known, or a picture that its format cannot hold.
        ResourceError: the folder does not exist.
    """
    path, dtype = Path(path), np.dtype(dtype)
    image_format = _format(path)
    advice = _alternatives(max(width, height), channels, dtype)
    if dtype.name not in image_format.dtypes:
        raise ConfigError(
            f"cannot write {path}: {path.suffix} holds {' or '.join(image_format.dtypes)}, "
            f"not {dtype.name}; {advice}"
        )
    if channels not in image_format.channels:
        raise ConfigError(
            f"cannot write {path}: {path.suffix} holds no picture of {channels} channels "
            f"({', '.join(CHANNEL_NAMES.get(channels, ()))}); {advice}"
        )
    if not (1 <= width <= image_format.size_max and 1 <= height <= image_format.size_max):
        raise ConfigError(
            f"cannot write {path}: {path.suffix} holds at most {image_format.size_max} pixels a "
            f"side, not {width}x{height}; {advice}"
        )
    if not path.parent.is_dir():
        raise ResourceError(f"cannot write {path}: the folder {path.parent} does not exist")


def save_image(path: str | Path, pixels: np.ndarray) -> None:
    """Write a picture in the format of its extension.

    PNG (8 and 16 bit), JPEG (quality 95), TIFF (deflate, in tiles), WebP (quality 95; grey
    becomes RGB), EXR (half or float), Radiance HDR (RGBE; it holds no negative values: they
    become 0), NPY.

    Args:
        path: the file; replaced if it is there.
        pixels: shape [h, w] or [h, w, 1 to 4]; uint8 or uint16 in sRGB, or float16 or float32.

    Raises:
        ConfigError: an extension that is not known, or pixels that its format cannot hold.
        ShapeError: pixels of another shape.
        ResourceError: the folder is missing or cannot be written, or the disk is full.
    """
    path, pixels = Path(path), np.asarray(pixels)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3:
        raise ShapeError(f"pixels must be [h, w] or [h, w, c], got shape {list(pixels.shape)}")
    height, width, channels = pixels.shape
    check_output(path, width, height, channels, pixels.dtype)
    encode = _format(path).encode
    if encode is None:
        with open_writer(path, width, height, channels, pixels.dtype) as writer:
            writer.write(pixels)
        return
    with atomic_path(path) as temporary:
        encode(temporary, pixels)


@contextmanager
def open_writer(
    path: str | Path, width: int, height: int, channels: int, dtype: str | np.dtype
) -> Iterator[RowWriter]:
    """Write a picture row by row, from top to bottom, with the yielded writer's ``write(rows)``.

    TIFF (uncompressed), NPY and PNG take memory for a band of rows only; the other formats keep
    the whole picture until the end.

    Args:
        path: the file; replaced, once all rows are written, if it is there.
        width: pixels.
        height: pixels.
        channels: 1 to 4 (Y, YA, RGB, RGBA).
        dtype: uint8, uint16, float16 or float32.

    Raises:
        ConfigError: as ``check_output``; or the format needs the whole picture in memory and it
            does not fit.
        ShapeError: rows that do not fit, or too few of them.
        ResourceError: the folder is missing or cannot be written, or the disk is full.
    """
    path, dtype = Path(path), np.dtype(dtype)
    check_output(path, width, height, channels, dtype)
    image_format = _format(path)
    n_bytes = width * height * channels * dtype.itemsize
    if image_format.by_rows is None:
        available = memory.available_bytes()
        if 2 * n_bytes > available:
            raise ConfigError(
                f"cannot write {path}: {path.suffix} is written in one go and "
                f"{format_bytes(2 * n_bytes)} of memory are needed, {format_bytes(available)} "
                "available; .tif, .png and .npy are written row by row"
            )
    elif image_format.uncompressed_rows:
        check_free_space(path.parent, n_bytes, str(path), "free some, or write to another disk")
    with atomic_path(path) as temporary:
        if image_format.by_rows is not None:
            writer = image_format.by_rows(temporary, width, height, channels, dtype)
        else:
            assert image_format.encode is not None  # by_rows or encode
            encode = partial(image_format.encode, temporary)
            writer = WholeWriter(encode, width, height, channels, dtype)
        with closing(writer):
            yield writer
            writer.finish()


def _format(path: Path) -> _Format:
    """Return the format of an extension."""
    found = _FORMATS.get(path.suffix.lower())
    if found is None:
        raise ConfigError(
            f"cannot write {path}: the extension {path.suffix!r} is not known; "
            f"use {', '.join(_FORMATS)}"
        )
    return found


def _alternatives(longest: int, channels: int, dtype: np.dtype) -> str:
    """Return the advice which extensions would do."""
    able = [
        suffix
        for suffix, f in _FORMATS.items()
        if dtype.name in f.dtypes and channels in f.channels and longest <= f.size_max
    ]
    return f"use {', '.join(able)}" if able else "no format holds such a picture"


def _encode_jpeg(path: Path, pixels: np.ndarray) -> None:
    picture = PilImage.fromarray(_squeezed(pixels))
    picture.save(path, "JPEG", quality=_JPEG_QUALITY, subsampling=0)


def _encode_webp(path: Path, pixels: np.ndarray) -> None:
    if pixels.shape[2] < 3:  # WebP has no grey
        grey = np.repeat(pixels[..., :1], 3, axis=2)
        pixels = np.concatenate([grey, pixels[..., 1:]], axis=2)
    PilImage.fromarray(np.ascontiguousarray(pixels)).save(path, "WEBP", quality=_WEBP_QUALITY)


def _encode_tiff(path: Path, pixels: np.ndarray) -> None:
    import tifffile

    height, width, channels = pixels.shape
    tifffile.imwrite(
        path,
        _squeezed(pixels),
        bigtiff=needs_bigtiff(width, height, channels, pixels.dtype),
        tile=_TILE,
        compression="zlib",
        predictor=True,
        metadata=None,
        **tiff_kind(channels),
    )


def _encode_exr(path: Path, pixels: np.ndarray) -> None:
    import OpenEXR

    names = CHANNEL_NAMES[pixels.shape[2]]
    channels = {name: np.ascontiguousarray(pixels[..., c]) for c, name in enumerate(names)}
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    path.touch()  # a folder that cannot be written gives the system's own words
    try:
        with silent_output():
            OpenEXR.File(header, channels).write(str(path))
    except RuntimeError as error:  # what the library makes of an error of the disk
        raise OSError(f"the disk is full or cannot be written ({error})") from error


def _encode_hdr(path: Path, pixels: np.ndarray) -> None:
    import imagecodecs

    light = np.maximum(pixels.astype(np.float32, copy=False), 0)
    path.write_bytes(imagecodecs.rgbe_encode(np.ascontiguousarray(light), header=True))


def _squeezed(pixels: np.ndarray) -> np.ndarray:
    """Return [h, w] for grey, as the libraries want it, C-contiguous."""
    return np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


_JPEG = _Format(("uint8",), channels=(1, 3), size_max=65535, encode=_encode_jpeg)
_TIFF = _Format(
    ("uint8", "uint16", "float32"),
    encode=_encode_tiff,
    by_rows=tiff_row_writer,
    uncompressed_rows=True,
)
_FORMATS = {
    ".png": _Format(("uint8", "uint16"), by_rows=PngRowWriter),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".webp": _Format(("uint8",), size_max=16383, encode=_encode_webp),
    ".exr": _Format(("float16", "float32"), encode=_encode_exr),
    ".hdr": _Format(("float32",), channels=(3,), encode=_encode_hdr),
    ".npy": _Format(
        ("uint8", "uint16", "float16", "float32"), by_rows=npy_row_writer, uncompressed_rows=True
    ),
}
