"""JPEG, WebP and AVIF, decoded by Pillow; JPEGs larger than memory by libjpeg into a map."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image as PilImage

from ngp_warp.errors import DataError
from ngp_warp.primitives.image.info import rows_per_band
from ngp_warp.primitives.image.readers.codestream import jpeg_frame
from ngp_warp.primitives.image.readers.source import Source, check_ratio

_ORIENTATION = 0x0112  # EXIF tag 274

# A baseline or progressive JPEG spends at least one bit on each block of 8x8 samples (512 pixels
# a byte); 4x4 subsampling of every channel makes that 8192.
_JPEG_PIXELS_PER_BYTE = 8192

# The modes of a block of 16x16 pixels take 1.7 bits at least: their probabilities are fixed.
_VP8_PIXELS_PER_BYTE = 4096

# The items' descriptions come before their data.
_AVIF_HEAD_BYTES = 1 << 16

# What cameras append behind the end marker.
_JPEG_TRAILER_BYTES = 1 << 20

# The markers of frames that libjpeg decodes row by row: others need all coefficients at once.
_SEQUENTIAL_FRAMES = (0xC0, 0xC1)


def read_pillow(path: Path, image_format: str) -> Source:
    """Read the header of a JPEG, WebP or AVIF (its first picture).

    AVIF of 10 or 12 bits is spread over 16, by another decoder, for Pillow gives 8.

    Args:
        path: the file.
        image_format: jpeg, webp or avif.
    """
    with _opened(path, image_format) as picture:
        width, height = picture.size
        stored_mode, orientation = picture.mode, _orientation(picture)
        mode = _output_mode(path, stored_mode)
    if image_format == "jpeg":
        check_ratio(path, width * height, path.stat().st_size, _JPEG_PIXELS_PER_BYTE)
    elif image_format == "webp":
        _check_riff(path, width * height)
    channels = len(mode)
    bits = _avif_bits(path) if image_format == "avif" else 8
    streams = image_format == "jpeg" and channels == len(stored_mode) and _is_sequential(path)
    return Source(
        format=image_format,
        width=width,
        height=height,
        channels=channels,
        dtype="uint16" if bits > 8 else "uint8",
        fill=partial(_fill_deep_avif, path, bits)
        if bits > 8
        else partial(_fill, path, image_format, mode),
        # Pillow keeps 4 bytes a pixel and decodes WebP and AVIF through one or two copies more.
        working_bytes=width * height * (4 if image_format == "jpeg" else 12),
        orientation=orientation,
        stream=partial(_stream_jpeg, path) if streams else None,
    )


@contextmanager
def _opened(path: Path, image_format: str) -> Iterator[PilImage.Image]:
    """Open with Pillow, without its limit on pixels: memory is checked against what there is."""
    limit = PilImage.MAX_IMAGE_PIXELS
    PilImage.MAX_IMAGE_PIXELS = None
    try:
        with PilImage.open(path, formats=[image_format.upper()]) as picture:
            yield picture
    finally:
        PilImage.MAX_IMAGE_PIXELS = limit


def _output_mode(path: Path, mode: str) -> str:
    """Return the mode to convert to: grey and alpha are kept, CMYK becomes RGB."""
    modes = {"L": "L", "LA": "LA", "RGB": "RGB", "RGBX": "RGB", "RGBA": "RGBA", "CMYK": "RGB"}
    if mode not in modes:
        raise DataError(f"{path} has pixels of a kind that is not read: {mode}")
    return modes[mode]


def _orientation(picture: PilImage.Image) -> int:
    """Return the EXIF orientation, 1 where it is missing or its EXIF block is broken."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block takes nothing from the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _fill(path: Path, image_format: str, mode: str, out: np.ndarray) -> None:
    """Decode the whole picture, then copy it in bands so that only Pillow's own copy is held."""
    height, width, channels = out.shape
    with _opened(path, image_format) as picture:
        picture.load()
        if picture.size != (width, height):
            raise DataError(f"{path} is broken: its pictures differ in size from its header")
        step = rows_per_band(width * channels)
        for y in range(0, height, step):
            band = picture.crop((0, y, width, min(y + step, height)))
            if band.mode != mode:
                band = band.convert(mode)
            out[y : y + step] = np.asarray(band).reshape(-1, width, channels)


def _avif_bits(path: Path) -> int:
    """Return the bits of a channel, of the first AV1 configuration (AV1-ISOBMFF, 2.3.3)."""
    with path.open("rb") as file:
        head = file.read(_AVIF_HEAD_BYTES)
    position = head.find(b"av1C")
    if position < 0 or position + 7 > len(head):
        return 8
    flags = head[position + 6]
    if not flags & 0x40:  # high_bitdepth
        return 8
    return 12 if flags & 0x20 else 10  # twelve_bit


def _fill_deep_avif(path: Path, bits: int, out: np.ndarray) -> None:
    """Decode the first picture and spread its values over 16 bits, rounded."""
    import imagecodecs

    pixels = imagecodecs.avif_decode(path.read_bytes(), index=0)
    if pixels.dtype != np.uint16 or pixels.size != out.size or pixels.shape[:2] != out.shape[:2]:
        raise DataError(f"{path} is broken: its picture differs from its header")
    most = (1 << bits) - 1
    step = rows_per_band(out[0].nbytes)
    for y in range(0, len(out), step):
        rows = pixels[y : y + step].astype(np.uint32).reshape(out[y : y + step].shape)
        out[y : y + step] = (rows * 65535 + most // 2) // most


def _is_sequential(path: Path) -> bool:
    """Return whether the first frame is of a kind that is decoded row by row."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        frame = jpeg_frame(data)
    return frame is not None and frame[0] in _SEQUENTIAL_FRAMES


def _stream_jpeg(path: Path, out: np.ndarray) -> None:
    """Decode row by row into ``out``: libjpeg itself, which Pillow does not let do so.

    libjpeg pads a file that is cut short with grey and says nothing: its end is looked for here.
    """
    import imagecodecs

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.rfind(b"\xff\xd9", max(0, len(data) - _JPEG_TRAILER_BYTES)) < 0:
            raise DataError(f"{path} is cut short: it has no end marker")
        imagecodecs.jpeg8_decode(data, out=out if out.shape[2] == 3 else out[..., 0])


def _check_riff(path: Path, n_pixels: int) -> None:
    """Raise DataError where a WebP is shorter than it says, or than its pixels need."""
    with path.open("rb") as file:
        head = file.read(16)
    promised, size = int.from_bytes(head[4:8], "little") + 8, path.stat().st_size
    if promised > size:
        raise DataError(f"{path} is cut short: it has {size} of {promised} bytes")
    if head[12:] == b"VP8 ":  # lossy without alpha
        check_ratio(path, n_pixels, size, _VP8_PIXELS_PER_BYTE)
