"""What every reader returns, and the guards around the libraries that decode."""

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError, NgpError, ResourceError
from ngp_warp.files import format_bytes
from ngp_warp.primitives.image.info import PixelDtype

# Held while the process's output goes to nowhere. Two threads doing so by turns would each restore
# what the other one set; whoever prints beside threads that decode holds it meanwhile.
OUTPUT_LOCK = threading.RLock()


@dataclass(frozen=True)
class Source:
    """An image file whose header was read and found sound.

    ``fill(out)`` decodes the pixels into ``out`` [height, width, channels] of ``dtype``, which may
    be any strided view; width and height are the stored ones, before ``orientation`` turns them.
    """

    format: str
    width: int
    height: int
    channels: int
    dtype: PixelDtype
    fill: Callable[[np.ndarray], None]
    working_bytes: int
    """Memory that ``fill`` takes besides its output."""
    hdr: bool = False
    orientation: int = 1
    """EXIF orientation, 1 to 8."""
    stream: Callable[[np.ndarray], None] | None = None
    """As ``fill``, into a C-contiguous array, in little memory whatever the image's size."""
    mapped: Callable[[], np.ndarray] | None = None
    """Where the file holds the very pixels: opens them as a read-only memory map."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn everything that goes wrong in a decoder into one DataError, and keep it quiet.

    Decoders are fed files from anywhere; which exceptions they raise on broken ones is not
    documented, so all of them count as "this file is broken".

    Raises:
        DataError: the file cannot be opened or decoded.
        ResourceError: there is not enough memory.
    """
    tifffile_log = logging.getLogger("tifffile")
    was_disabled = tifffile_log.disabled
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tifffile_log.disabled = True
            yield
    except NgpError:
        raise
    except MemoryError as error:
        raise ResourceError(f"not enough memory to read {path}") from error
    except Exception as error:
        # OSErrors of the system have a number; those of the decoders have none.
        reason = error.strerror if isinstance(error, OSError) and error.errno else str(error)
        reason = " ".join((reason or type(error).__name__).split())[:200]
        raise DataError(f"cannot read {path}: {reason}") from error
    finally:
        tifffile_log.disabled = was_disabled


@contextmanager
def silent_output() -> Iterator[None]:
    """Send to nowhere what a C library prints, on a level below Python's own streams.

    Only around calls of a library that cannot be asked to be quiet: the whole process is silent,
    and ``OUTPUT_LOCK`` is held.
    """
    with OUTPUT_LOCK, contextlib.ExitStack() as stack:
        null = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, null)
        for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
            with contextlib.suppress(Exception):
                stream.flush()
            try:
                saved = os.dup(descriptor)
            except OSError:
                continue  # closed by whoever started this process: nothing is printed there
            os.dup2(null, descriptor)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, descriptor)
        yield


def check_ratio(path: Path, pixel_bytes: int, stored_bytes: int, most: float) -> None:
    """Raise DataError where a header promises more pixels than its compression can hold.

    Args:
        path: named in the error.
        pixel_bytes: size of the pixels that the header promises.
        stored_bytes: size of the file, or of its part that holds pixels.
        most: the highest compression ratio that the format can reach.
    """
    if pixel_bytes > most * stored_bytes + 4096:
        raise DataError(
            f"{path} is cut short or broken: its header promises {format_bytes(pixel_bytes)} of "
            f"pixels, and {format_bytes(stored_bytes)} cannot hold them"
        )
