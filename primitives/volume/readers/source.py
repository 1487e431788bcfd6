"""What every reader returns, and the guards around what a file may hold."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ngp_warp import memory
from ngp_warp.errors import DataError, NgpError, ResourceError
from ngp_warp.files import format_bytes
from ngp_warp.primitives.volume.grid import GridInfo, Index

CHUNK_BYTES = 1 << 25
"""What is worked on at a time."""
MAX_CHANNELS = 4


@dataclass(frozen=True)
class Box:
    """What a reader makes of a grid; ``data.load_volume`` checks it and makes a Volume of it."""

    values: np.ndarray
    """float32 [x, y, z] or [x, y, z, channel]; may hold NaN; writable."""
    first: Index = (0, 0, 0)
    active: np.ndarray | None = None
    """bool [x, y, z]; None: all."""
    background: tuple[float, ...] = ()
    """Empty: 0."""
    to_world: np.ndarray = field(default_factory=lambda: np.eye(4))
    unit: str = ""


@dataclass(frozen=True)
class Stored:
    """A grid of a file, read when asked for."""

    info: GridInfo
    read: Callable[[], Box]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn everything that goes wrong in a reader into one error of one line, and keep it quiet.

    Files come from anywhere; which exceptions the libraries raise on broken ones is not documented,
    so all of them count as "this file is broken".

    Raises:
        DataError: the file cannot be opened or read.
        ResourceError: there is not enough memory, or a package is missing.
    """
    try:
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            for name in ("tifffile", "nibabel", "nibabel.global"):
                stack.enter_context(_silent_log(name))
            yield
    except (DataError, ResourceError) as error:
        raise type(error)(f"cannot read {path}: {error}") from error
    except NgpError:
        raise
    except ImportError as error:
        raise ResourceError(
            f"cannot read {path} without the package {error.name}: pip install 'ngp-warp[volume]'"
        ) from error
    except MemoryError as error:
        raise ResourceError(f"not enough memory to read {path}") from error
    except Exception as error:
        # OSErrors of the system have a number; those of the readers have none.
        reason = error.strerror if isinstance(error, OSError) and error.errno else str(error)
        reason = " ".join((reason or type(error).__name__).split())[:200]
        raise DataError(f"cannot read {path}: {reason}; is it whole?") from error


@contextmanager
def _silent_log(name: str) -> Iterator[None]:
    """Disable a logger for a while."""
    log = logging.getLogger(name)
    was_disabled, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = was_disabled


def check_memory(shape: tuple[int, ...], item_bytes: int, working_bytes: int = 0) -> None:
    """Raise ResourceError where a dense box of voxels would not fit into memory.

    Args:
        shape: of the box; its product may be anything.
        item_bytes: memory for one voxel.
        working_bytes: memory besides.
    """
    n_voxels = 1
    for n in shape[:3]:
        n_voxels *= int(n)
    needed, available = n_voxels * item_bytes + working_bytes, memory.available_bytes()
    if needed > available:
        size = " x ".join(str(int(n)) for n in shape[:3])
        raise ResourceError(
            f"its box of {size} voxels needs {format_bytes(needed)} of memory and "
            f"{format_bytes(available)} are available; crop it or halve its resolution first"
        )


def check_ratio(n_bytes: int, n_stored: int, most: float) -> None:
    """Raise DataError where a header promises more than its bytes can hold.

    Args:
        n_bytes: what it promises.
        n_stored: bytes of the file that are to hold it.
        most: the highest ratio that the compression can reach.
    """
    if n_bytes > most * n_stored + 4096:
        raise DataError(
            f"it is cut short or broken: it promises {format_bytes(n_bytes)} of values, and "
            f"{format_bytes(n_stored)} cannot hold them"
        )


def check_room(n_bytes: int) -> None:
    """Raise ResourceError where so many bytes cannot be decoded in memory."""
    available = memory.available_bytes()
    if n_bytes > available:
        raise ResourceError(
            f"it needs {format_bytes(n_bytes)} of memory to be decoded and "
            f"{format_bytes(available)} are available"
        )


def unread_dtype(dtype: np.dtype) -> str:
    """Return why values of a dtype are not read; empty: they are."""
    if dtype.kind in "biuf":
        return ""
    if dtype.kind == "c":
        return f"its values are complex ({dtype.name}); save their magnitude, or one part"
    if dtype.kind == "O":
        return "its values are Python objects, which are never unpickled; save numbers"
    name = "a structure" if dtype.names else dtype.name
    return f"its values are no numbers but {name}"


def to_float32(array: np.ndarray) -> np.ndarray:
    """Return a copy in float32, C-contiguous; what is beyond its range becomes infinite."""
    out = np.empty(array.shape, np.float32)
    step = max(1, CHUNK_BYTES // max(1, 8 * int(np.prod(array.shape[1:]))))
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(0, len(array), step):
            out[i : i + step] = array[i : i + step]
    return out


def dense_shape(shape: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """Return the shape [x, y, z] or [x, y, z, channel] of an array, and why it is none (or "")."""
    if len(shape) == 4 and shape[3] == 1:
        shape = shape[:3]
    if len(shape) not in (3, 4) or (len(shape) == 4 and not 1 <= shape[3] <= MAX_CHANNELS):
        return shape, (
            f"its shape is {list(shape)}; a volume is [x, y, z] or [x, y, z, 1 to {MAX_CHANNELS}]"
        )
    if 0 in shape:
        return shape, f"it has no voxels: its shape is {list(shape)}"
    return shape, ""


def unblosc(data: bytes, most: int) -> bytes:
    """Decompress a frame of Blosc 1, whose header says its sizes.

    Args:
        data: the frame.
        most: bytes that may come out.

    Raises:
        DataError: the frame is broken, or holds more.
    """
    from imagecodecs import blosc_decode

    size, stored = (int.from_bytes(data[i : i + 4], "little") for i in (4, 12))
    if len(data) < 16 or stored != len(data) or size > most:
        raise DataError("it is broken: a compressed chunk has another size than its header says")
    return bytes(blosc_decode(data))
