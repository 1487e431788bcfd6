"""The files of views, known from their headers: which way up they are, and reduced copies.

A scene's lens says how large its photo is. Where that is the size of the pixels as the file stores
them, an EXIF orientation is left out of account, for the poses belong to the stored rows; where it
is the size after turning, the photo is turned.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitive import Progress, Report
from ngp_warp.primitives.image.data import stored_view
from ngp_warp.primitives.image.info import ITEM_BYTES, turned_size
from ngp_warp.primitives.image.readers import open_source
from ngp_warp.primitives.image.readers.source import OUTPUT_LOCK, Source, reading
from ngp_warp.primitives.nerf.types import View

Size = tuple[int, int]


@dataclass(frozen=True)
class PhotoFile:
    """A file whose header was read and that has the size it should have."""

    path: Path
    source: Source
    size: Size
    """Width and height, turned if it is to be turned."""
    orientation: int
    """EXIF orientation to apply, 1 to 8."""

    @property
    def working_bytes(self) -> int:
        """Memory that ``decode`` takes, its result included."""
        item = ITEM_BYTES[self.source.dtype]
        pixels = self.size[0] * self.size[1] * self.source.channels * item
        return self.source.working_bytes + pixels

    def decode(self, out: np.ndarray | None = None) -> np.ndarray:
        """Return the pixels [h, w, channels] of ``source.dtype``, in ``out`` where it is given.

        Raises:
            DataError: broken, or with pixels that are not finite.
            ResourceError: not enough memory.
        """
        with reading(self.path):
            if out is None:
                shape = (self.size[1], self.size[0], self.source.channels)
                out = np.empty(shape, self.source.dtype)
            self.source.fill(stored_view(out, self.orientation))
        return out


def open_photo(path: Path, sizes: Sequence[Size], what: str = "the scene") -> PhotoFile:
    """Read a file's header and decide whether it is to be turned.

    Args:
        path: the file.
        sizes: width and height that it may have.
        what: says in the error where these come from.

    Raises:
        DataError: not readable, or of another size.
    """
    source = open_source(path)
    stored = (source.width, source.height)
    turned = turned_size(*stored, source.orientation)
    if stored in sizes:
        return PhotoFile(path, source, stored, 1)
    if turned in sizes:
        return PhotoFile(path, source, turned, source.orientation)
    expected = " or ".join(f"{w}x{h}" for w, h in dict.fromkeys(sizes))
    raise DataError(
        f"{path} has {stored[0]}x{stored[1]} pixels, and {what} says {expected}: "
        "give the photo that the scene was made from, or mend the size there"
    )


def open_all(paths: Sequence[Path], sizes: Sequence[Sequence[Size]], threads: int):
    """Return a PhotoFile for every path, in order; the first that fails raises."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(open_photo, paths, sizes))


def find_reduced(views: Sequence[View], downscale: float) -> list[Path] | None:
    """Return the reduced copies that a data set comes with, or None where it has not all of them.

    COLMAP and LLFF data sets keep photos reduced N times in a folder ``images_N`` beside
    ``images``, under the same names or with another extension.
    """
    if downscale != int(downscale) or downscale <= 1:
        return None
    found = []
    for view in views:
        folder = view.image.parent
        folder = folder.with_name(f"{folder.name}_{int(downscale)}")
        names = [folder / view.image.name]
        names += [folder / f"{view.image.stem}{end}" for end in (".png", ".jpg", ".jpeg", ".JPG")]
        path = next((name for name in names if name.is_file()), None)
        if path is None:
            return None
        found.append(path)
    return found


def reduced_sizes(size: Size, downscale: float) -> list[Size]:
    """Return the sizes that a photo reduced by others may have: rounded up, down, or either."""
    width, height = (n / downscale for n in size)
    return [
        (int(width) + x, int(height) + y)
        for x in ((0, 1) if width % 1 else (0,))
        for y in ((0, 1) if height % 1 else (0,))
    ]


def unmuted(report: Report) -> Report:
    """Return a report that does not speak while a decoder's output goes to nowhere."""

    def say(progress: Progress) -> None:
        with OUTPUT_LOCK:
            report(progress)

    return say


@contextmanager
def decoders() -> Iterator[None]:
    """Set, in this thread, what readers set and restore for one file at a time.

    Warnings, tifffile's log and Pillow's limit are the process's: threads that restore what
    others have set leave them changed, until they are restored here.
    """
    from PIL import Image

    log, limit = logging.getLogger("tifffile"), Image.MAX_IMAGE_PIXELS
    disabled = log.disabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.disabled, Image.MAX_IMAGE_PIXELS = True, None
        try:
            yield
        finally:
            log.disabled, Image.MAX_IMAGE_PIXELS = disabled, limit
