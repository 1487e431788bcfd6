"""TIFF and BigTIFF: strips or tiles decoded one by one; uncompressed ones mapped in place."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.image.info import ITEM_BYTES, PixelDtype
from ngp_warp.primitives.image.readers.codestream import jpeg2000_size, jpeg_frame
from ngp_warp.primitives.image.readers.source import Source, check_ratio

# Compression: the most that it can shrink pixels; inf where a segment of any size can be a few
# bytes long, and memory is the only check.
_COMPRESSIONS = {
    1: 1.0,  # none
    2: math.inf,  # CCITT
    3: math.inf,
    4: math.inf,
    5: 4096.0,  # LZW: 12 bits for at most 4096 bytes
    7: 3.0 * 8192,  # JPEG: see pillow.py
    8: 1032.0,  # deflate
    32946: 1032.0,
    32773: 64.0,  # PackBits
    33003: math.inf,  # JPEG 2000
    33005: math.inf,
    34712: math.inf,
    34925: 2.0**14,  # LZMA: half of it was measured
    50000: 2.0**16,  # Zstandard: 128 KiB in a block of 4 bytes
    50001: math.inf,  # WebP
    50002: math.inf,  # JPEG XL
    52546: math.inf,
}
_JPEG = 7
_JPEG_2000 = (33003, 33005, 34712)
_COLOR_IN_CODEC = (_JPEG, *_JPEG_2000, 50001, 50002, 52546)
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _SEPARATED, _YCBCR = 0, 1, 2, 3, 5, 6
_PLANAR = 2
_READ_BYTES = 1 << 24


def read_tiff(path: Path) -> Source:
    """Read the first page's tags and check that every strip or tile lies within the file.

    Palettes and CMYK become RGB, white-is-zero is turned over, 1 to 7 bits are spread over 8 and
    9 to 15 over 16, float16 and float64 become float32. Alpha is kept as stored (associated or
    not).

    Raises:
        DataError: broken tags, pixels outside the file, or a kind of TIFF that is not read.
    """
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        height, width = page.imagelength, page.imagewidth
        channels, dtype = _kind(path, page)
        _check_segments(path, page)
        tag = page.tags.get(274)
        turn = tag.value if tag is not None else 1
        return Source(
            format="tiff",
            width=width,
            height=height,
            channels=channels,
            dtype=dtype,
            hdr=dtype == "float32",
            fill=partial(_fill, path),
            working_bytes=3 * _segment_bytes(page) + 2 * _READ_BYTES,
            orientation=turn if isinstance(turn, int) and 1 <= turn <= 8 else 1,
            mapped=_mapping(path, page, dtype, tiff.byteorder),
        )


def _kind(path: Path, page: Any) -> tuple[int, PixelDtype]:
    """Return the channels and dtype that the page is read as; DataError where it is not read."""
    kind, samples = int(page.photometric), int(page.samplesperpixel)
    if int(page.compression) not in _COMPRESSIONS:
        raise DataError(f"{path} is compressed by a method that is not read: {page.compression!r}")
    if page.imagedepth != 1:
        raise DataError(f"{path} is a volume of {page.imagedepth} slices, not an image")
    known = kind in (_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _SEPARATED)
    if not known and not (kind == _YCBCR and int(page.compression) in _COLOR_IN_CODEC):
        raise DataError(f"{path} has colors that are not read: {page.photometric!r}; save as RGB")
    channels = samples
    if kind in (_PALETTE, _SEPARATED):
        channels = 3
        if samples != (1 if kind == _PALETTE else 4) or page.planarconfig == _PLANAR:
            raise DataError(f"{path} has {samples} samples a pixel, not read as RGB; save as RGB")
    if not 1 <= channels <= 4:
        raise DataError(f"{path} has {channels} channels; an image has 1 to 4")
    name = "none" if page.dtype is None else np.dtype(page.dtype).name
    dtypes: dict[str, PixelDtype] = {"bool": "uint8", "uint8": "uint8", "uint16": "uint16"}
    if kind not in (_MINISWHITE, _PALETTE, _SEPARATED):
        dtypes |= {"float16": "float32", "float32": "float32", "float64": "float32"}
    if name not in dtypes:
        raise DataError(
            f"{path} has samples of a kind that is not read: {name} of {page.bitspersample} bits"
        )
    return channels, dtypes[name]


def _segment_shape(page: Any) -> tuple[int, int]:
    """Return rows and columns of a strip or tile."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


def _segment_bytes(page: Any) -> int:
    """Return the size of a decoded strip or tile, as stored or as read, whichever is larger."""
    rows, columns = _segment_shape(page)
    return rows * columns * page.samplesperpixel * max(np.dtype(page.dtype).itemsize, 4)


def _check_segments(path: Path, page: Any) -> None:
    """Raise DataError unless there is a strip or tile within the file for every pixel."""
    size, n_segments = path.stat().st_size, math.prod(page.chunked)
    offsets, counts = page.dataoffsets, page.databytecounts
    if min(len(offsets), len(counts)) < n_segments or n_segments < 1:
        raise DataError(f"{path} is broken: it has {len(offsets)} of {n_segments} strips or tiles")
    start = np.asarray(offsets[:n_segments], np.float64)
    count = np.asarray(counts[:n_segments], np.float64)
    if (start + count).max() > size:
        raise DataError(f"{path} is cut short: its pixels reach past its end")
    # Sparse TIFFs leave out tiles of zeros altogether.
    empty = count == 0
    if empty.all() or (start[empty] > 0).any() or (empty.any() and not page.is_tiled):
        raise DataError(f"{path} is broken: it has empty strips or tiles")
    samples = page.imagelength * page.imagewidth * page.samplesperpixel * (1 - empty.mean())
    ratio = _COMPRESSIONS[int(page.compression)]
    check_ratio(path, int(samples * page.bitspersample / 8), int(count.sum()), ratio)


def _mapping(path: Path, page: Any, dtype: PixelDtype, byteorder: str) -> Any:
    """Return a function that maps the pixels in place, or None where they need work."""
    native = np.dtype(byteorder + "u2").isnative or dtype == "uint8"
    as_is = (
        page.is_final
        and native
        and np.dtype(page.dtype).name == dtype
        and page.bitspersample == 8 * ITEM_BYTES[dtype]
        and int(page.photometric) in (_MINISBLACK, _RGB)
        and (page.planarconfig != _PLANAR or page.samplesperpixel == 1)
    )
    shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
    offset = page.dataoffsets[0]
    end = offset + math.prod(shape) * ITEM_BYTES[dtype]
    if not as_is or offset % ITEM_BYTES[dtype] or end > path.stat().st_size:
        return None
    return partial(np.memmap, path, dtype=dtype, mode="r", offset=offset, shape=shape)


def _fill(path: Path, out: np.ndarray) -> None:
    """Decode strip by strip or tile by tile."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        convert = _converter(page, out.dtype)
        planar = page.planarconfig == _PLANAR and page.samplesperpixel > 1
        for segment, (sample, _, y, x, _), shape in _segments(path, tiff, page):
            rows, columns = min(shape[1], len(out) - y), min(shape[2], out.shape[1] - x)
            channels = slice(sample, sample + 1) if planar else slice(None)
            target = out[y : y + rows, x : x + columns, channels]
            if segment is None:
                target[...] = 0
                continue
            with np.errstate(over="ignore", invalid="ignore"):  # infinite: the caller refuses it
                target[...] = convert(segment[0, :rows, :columns])


def _segments(path: Path, tiff: Any, page: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield every strip or tile, its place and its shape, as tifffile's ``page.segments()`` does.

    Between reading and decoding, a stream with a header of its own is held against the tags, for
    its decoder allocates what that header says.
    """
    compression = int(page.compression)
    tables = {}
    if compression == _JPEG:
        tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
    rows, columns = _segment_shape(page)
    stored = tiff.filehandle.read_segments(
        page.dataoffsets,
        page.databytecounts,
        length=math.prod(page.chunked),
        buffersize=_READ_BYTES,
    )
    for data, index in stored:
        size = (columns, rows)
        if data is not None and compression == _JPEG:
            frame = jpeg_frame(data)
            size = frame[1:] if frame is not None else None
        elif data is not None and compression in _JPEG_2000:
            size = jpeg2000_size(data)
        if size is None or size[0] > columns or size[1] > rows:
            raise DataError(f"{path} is broken: strip or tile {index} has another size inside")
        yield page.decode(data, index, _fullsize=False, **tables)


def _converter(page: Any, dtype: np.dtype) -> Any:
    """Return the function from a segment's samples to pixels of ``dtype``."""
    kind, bits = int(page.photometric), page.bitspersample
    if kind == _PALETTE:
        palette = np.asarray(page.colormap).T  # [2^bits, 3], 16 bits by the specification
        palette = palette >> 8 if palette.max() > 255 and dtype == np.uint8 else palette
        return lambda samples: palette[samples[..., 0].astype(np.intp)]
    if dtype == np.float32:
        return lambda samples: samples
    full = np.iinfo(dtype).max
    if kind == _SEPARATED:
        return partial(_rgb_from_cmyk, full=full)
    most = (1 << bits) - 1
    spread = (lambda s: s) if most == full else partial(_spread, most=most, full=full)
    return (lambda s: full - spread(s)) if kind == _MINISWHITE else spread


def _spread(samples: np.ndarray, most: int, full: int) -> np.ndarray:
    """Spread 0..most over 0..full, rounded."""
    return (samples.astype(np.uint32) * full + most // 2) // most


def _rgb_from_cmyk(samples: np.ndarray, full: int) -> np.ndarray:
    """Return RGB of inks without a color profile: (1 - ink) * (1 - black)."""
    light = full - samples.astype(np.uint32)
    return (light[..., :3] * light[..., 3:] + full // 2) // full
