"""Conversions from one type to another (``cvt``)."""

import numpy as np

from tests.emulator.arithmetic import Unary, unsigned
from tests.emulator.rounding import directed
from tests.emulator.variables import PtxError

_ROUND = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def conversion(modifiers: list[str], to: np.dtype, of: np.dtype) -> Unary:
    """Return a conversion (``cvt``).

    Args:
        modifiers: rounding, ``sat``, ``ftz``.
        to: the result's type.
        of: the operand's.

    Raises:
        PtxError: a rounding that is not emulated.
    """
    mode = next((m for m in modifiers if m[:1] == "r"), None)
    saturate = "sat" in modifiers
    if of.kind == "f" and to.kind == "f":
        return _float_to_float(mode, saturate, to, of)
    if of.kind == "f":
        if mode not in _ROUND:
            raise PtxError(f"cvt.{mode} to an integer is not emulated")
        return _float_to_integer(_ROUND[mode], to, of)
    if to.kind == "f":
        if mode not in ("rn", None):
            raise PtxError(f"cvt.{mode} of an integer is not emulated")
        return lambda v: v.astype(to)
    if saturate:
        limits = np.iinfo(to)
        return lambda v: np.clip(v.astype(object), limits.min, limits.max).astype(to)
    return lambda v: v.astype(to)


def _float_to_float(mode: str | None, saturate: bool, to: np.dtype, of: np.dtype) -> Unary:
    if mode in _ROUND:
        change = _ROUND[mode]
    elif mode in ("rm", "rp", "rz") and to.itemsize < of.itemsize:
        change = lambda v: directed(v.astype(np.float64), to, mode)  # noqa: E731
    else:
        change = lambda v: v  # noqa: E731

    def convert(v: np.ndarray) -> np.ndarray:
        found = change(v).astype(to)
        if saturate:
            found = np.where(np.isnan(found), to.type(0), np.clip(found, 0, 1))
        return found

    return convert


def _float_to_integer(change: Unary, to: np.dtype, of: np.dtype) -> Unary:
    limits = np.iinfo(to)
    # where neither type has 64 bits 0, else the highest bit
    long = max(to.itemsize, of.itemsize) == 8
    of_nan = np.array(1 << (8 * to.itemsize - 1) if long else 0, unsigned(to)).view(to)

    def convert(v: np.ndarray) -> np.ndarray:
        whole = change(v.astype(np.float64))
        low, top = whole <= limits.min, whole >= float(limits.max)
        inside = np.where(low | top | np.isnan(whole), 0.0, whole).astype(to)
        found = np.where(low, to.type(limits.min), np.where(top, to.type(limits.max), inside))
        return np.where(np.isnan(whole), of_nan, found)

    return convert
