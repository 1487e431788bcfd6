"""Values in the dtype that was asked for."""

from collections.abc import Iterable

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.primitives.volume.readers.source import CHUNK_BYTES

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32")
FLOATS = ("float32", "float64")


def known_dtype(name: str, known: Iterable[str]) -> np.dtype:
    """Return the dtype of a name, little-endian.

    Raises:
        ConfigError: it is none of those known.
    """
    if name not in known:
        raise ConfigError(f"dtype must be one of {', '.join(known)}, got {name!r}")
    return np.dtype(name).newbyteorder("<")


def converted(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return values in a dtype: clipped to its range, and rounded to integers (half to even).

    Args:
        values: float32 [x, ...].
        dtype: of the result; float32's own returns the values as they are.
    """
    if dtype == values.dtype:
        return values
    out = np.empty(values.shape, dtype)
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    step = max(1, CHUNK_BYTES // max(1, 8 * values[0].size))
    for x in range(0, len(values), step):
        # float64: the largest int32 is no float32
        part = values[x : x + step].astype(np.float64)
        part = np.rint(part) if dtype.kind in "iu" else part
        out[x : x + step] = np.clip(part, float(limits.min), float(limits.max))
    return out
