"""Images larger than memory: decoded once into an uncompressed file that is mapped from then on."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from ngp_warp.errors import ResourceError
from ngp_warp.files import atomic_path, check_free_space, reserve
from ngp_warp.primitives.image.info import ImageInfo

_VERSION = 1  # of what a cache file holds for a given image; part of its name
_HEADER_BYTES = 1024  # room for the NPY header in the check of free space


def default_cache_dir() -> Path:
    """Return the folder for caches when none is named: ``ngp-warp`` in this user's cache folder.

    Not among temporary files, which lie in memory on many systems.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ngp-warp"


def cached_pixels(
    info: ImageInfo, cache_dir: Path | None, decode: Callable[[np.ndarray], None]
) -> np.memmap:
    """Return the pixels of an image from its cache file, decoding it first where there is none.

    Args:
        info: the image.
        cache_dir: folder of the cache file; made if missing. None: default_cache_dir().
        decode: fills an array [h, w, c] and checks it; what it raises leaves no cache file.

    Returns:
        Read-only memory map, shape [h, w, c]. Its file stays, for the next run: its name holds
        the image's path, size and time of change.

    Raises:
        ResourceError: no room on the disk, or the folder cannot be written.
    """
    folder = default_cache_dir() if cache_dir is None else Path(cache_dir)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"cannot make the cache folder {folder}: {error.strerror}; "
            "give another with --cache-dir"
        ) from error
    path = folder / f"{info.path.stem[:64]}-{_key(info)}.npy"
    with suppress(OSError, ValueError):
        return _mapped(path, info)
    check_free_space(
        folder,
        info.bytes + _HEADER_BYTES,
        f"{info.path} does not fit in memory; its cache",
        "give another folder with --cache-dir",
    )
    with atomic_path(path) as temporary:
        _write(temporary, info, decode)
    return _mapped(path, info)


def _key(info: ImageInfo) -> str:
    """Return a name for this very file: another path, size or time of change gives another."""
    status = info.path.stat()
    parts = (_VERSION, info.path.resolve(), status.st_size, status.st_mtime_ns)
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def _mapped(path: Path, info: ImageInfo) -> np.memmap:
    """Map a cache file; OSError or ValueError where it is missing or not of this image."""
    pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    if pixels.shape != info.shape or pixels.dtype != info.dtype or not pixels.flags.c_contiguous:
        raise ValueError(f"{path} holds another image")
    return pixels


def _write(path: Path, info: ImageInfo, decode: Callable[[np.ndarray], None]) -> None:
    """Write the NPY file of the decoded pixels, through a map of blocks reserved beforehand."""
    with path.open("wb") as file:
        header = {"descr": np.dtype(info.dtype).str, "fortran_order": False, "shape": info.shape}
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
        reserve(file, offset + info.bytes)
    pixels = np.memmap(path, dtype=info.dtype, mode="r+", offset=offset, shape=info.shape)
    decode(pixels)
    pixels.flush()
