"""What every reader returns, and the guards around what a file may hold."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import DataError, NgpError, ResourceError


@dataclass(frozen=True)
class Soup:
    """A file's triangles as they stand there: nothing is merged, removed or turned."""

    vertices: np.ndarray
    """float64 [n, 3], input units; may hold values that are not finite."""
    faces: np.ndarray
    """int64 [m, 3], each within 0..n-1."""
    n_polygons: int = 0
    """Faces of more than three corners that were triangulated."""
    n_parts: int = 1
    """Parts of a scene that were merged."""
    ignored: tuple[str, ...] = ()
    """What the file holds besides its shape, in words."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn everything that goes wrong in a reader into one error of one line, and keep it quiet.

    Files come from anywhere; which exceptions trimesh and NumPy raise on broken ones is not
    documented, so all of them count as "this file is broken".

    Raises:
        DataError: the file cannot be opened or read.
        ResourceError: there is not enough memory, or a package is missing.
    """
    try:
        with warnings.catch_warnings(), _silent_log("trimesh"):
            warnings.simplefilter("ignore")
            yield
    except DataError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    except NgpError:
        raise
    except ImportError as error:
        raise ResourceError(f"cannot read {path} without the package {error.name}") from error
    except MemoryError as error:
        raise ResourceError(f"not enough memory to read {path}") from error
    except FileNotFoundError as error:
        missing = error.filename or error
        raise DataError(
            f"cannot read {path}: the file {missing}, which it needs, is missing"
        ) from error
    except Exception as error:
        # OSErrors of the system have a number; those of the readers have none.
        reason = error.strerror if isinstance(error, OSError) and error.errno else str(error)
        reason = " ".join((reason or type(error).__name__).split())[:200]
        raise DataError(f"cannot read {path}: {reason}; is it whole?") from error


@contextmanager
def _silent_log(name: str) -> Iterator[None]:
    """Stop what loggers of a name and below it would pass on.

    To disable a logger does not disable those below it; and where no handler is found at all,
    logging prints.
    """
    log = logging.getLogger(name)
    nowhere = logging.NullHandler()
    propagated = log.propagate
    log.addHandler(nowhere)
    log.propagate = False
    try:
        yield
    finally:
        log.propagate = propagated
        log.removeHandler(nowhere)


def parse_numbers(text: bytes, dtype: Any, what: str) -> np.ndarray:
    """Return the numbers of a text, divided by white space.

    Args:
        text: nothing but numbers; "nan" and "inf" are among them for floats.
        dtype: of the result, [n].
        what: named in the error: "vertices", "faces".

    Raises:
        DataError: a word is no such number.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return np.fromstring(text, dtype=dtype, sep=" ")  # type: ignore[arg-type]
        except (ValueError, Warning) as error:
            raise DataError(f"a word among its {what} is not a number") from error
