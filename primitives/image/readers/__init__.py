"""One reader a format, chosen by a file's first bytes, whatever its name says."""

from functools import partial
from pathlib import Path

from ngp_warp.errors import DataError
from ngp_warp.primitives.image.readers.exr import read_exr
from ngp_warp.primitives.image.readers.npy import read_npy
from ngp_warp.primitives.image.readers.pillow import read_pillow
from ngp_warp.primitives.image.readers.png import read_png
from ngp_warp.primitives.image.readers.radiance import read_radiance
from ngp_warp.primitives.image.readers.source import Source, reading
from ngp_warp.primitives.image.readers.tiff import read_tiff

_HEAD_BYTES = 64
_AVIF_BRANDS = (b"avif", b"avis")
_READERS = {
    "jpeg": partial(read_pillow, image_format="jpeg"),
    "webp": partial(read_pillow, image_format="webp"),
    "avif": partial(read_pillow, image_format="avif"),
    "png": read_png,
    "tiff": read_tiff,
    "exr": read_exr,
    "hdr": read_radiance,
    "npy": read_npy,
}
_MAGIC = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"\x76\x2f\x31\x01": "exr",
    b"#?": "hdr",
    b"\x93NUMPY": "npy",
}


def open_source(path: Path) -> Source:
    """Read an image file's header.

    Raises:
        DataError: the file is missing, unreadable, empty, a folder, of no known format, has no
            pixels, or its header is broken.
    """
    with reading(path):
        if path.is_dir():
            raise DataError(f"cannot read {path}: it is a folder, not an image file")
        if not path.is_file() and path.exists():
            raise DataError(f"cannot read {path}: it is not a regular file")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if not head:
            raise DataError(f"cannot read {path}: it is empty")
        source = _READERS[sniff(path, head)](path)
    if source.width < 1 or source.height < 1:
        raise DataError(f"{path} has no pixels: its size is {source.width}x{source.height}")
    return source


def sniff(path: Path, head: bytes) -> str:
    """Return the format whose first bytes these are.

    Args:
        path: named in the error.
        head: the file's first 64 bytes, or all of it.

    Raises:
        DataError: none of them.
    """
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        brands = head[8 : min(int.from_bytes(head[:4], "big"), len(head))]
        if any(brands[i : i + 4] in _AVIF_BRANDS for i in range(0, len(brands), 4)):
            return "avif"
    raise DataError(
        f"{path} is not an image that can be read: JPEG, PNG, TIFF, WebP, AVIF, EXR, "
        "Radiance HDR or NPY"
    )
