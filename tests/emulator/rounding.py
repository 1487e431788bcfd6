"""Sums and products of floats that are rounded once, in any direction."""

from collections.abc import Callable

import numpy as np

from tests.emulator.variables import PtxError


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return a b + c, rounded once (a float32's sum first to float64's 53 bits)."""
    if a.dtype.itemsize < 8:
        exact = np.multiply(a, b, dtype=np.float64)
        return (exact + c).astype(a.dtype)
    # Boldo and Melquiond 2008: what is added last is rounded to odd, so that no tie arises of it
    product, rest = _two_product(a, b)
    upper, lower = _two_sum(c, rest)
    total, error = _two_sum(product, upper)
    exact = total + _sum_to_odd(error, lower)
    return np.where(np.isfinite(total) & np.isfinite(rest), exact, product + c)


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a sum and what its rounding has left out (Knuth 1969)."""
    total = a + b
    around = total - a
    return total, (a - (total - around)) + (b - around)


def _sum_to_odd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return float64 sums; of the two numbers next to an inexact one that whose last bit is 1.

    Rounded once more to fewer bits, in any direction, they are what the exact sum would be.
    """
    total, error = _two_sum(a, b)
    even = (np.ascontiguousarray(total).view(np.int64) & 1) == 0
    inexact = np.isfinite(error) & (error != 0)
    return np.where(inexact & even, np.nextafter(total, np.copysign(np.inf, error)), total)


def _two_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a product and what its rounding has left out (Dekker 1971)."""
    product = a * b

    def halves(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        big = v * 134217729.0
        top = big - (big - v)
        return top, v - top

    a1, a2 = halves(a)
    b1, b2 = halves(b)
    rest = ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2
    return product, rest


def directed(exact: np.ndarray, dtype: np.dtype, mode: str) -> np.ndarray:
    """Round float64 values to a type: "rm" down, "rp" up, "rz" towards zero."""
    near = exact.astype(dtype)
    back = near.astype(np.float64)
    down = np.nextafter(near, dtype.type(-np.inf))
    up = np.nextafter(near, dtype.type(np.inf))
    if mode == "rm":
        return np.where(back > exact, down, near)
    if mode == "rp":
        return np.where(back < exact, up, near)
    return np.where(back > exact, np.where(exact > 0, down, near), np.where(
        (back < exact) & (exact < 0), up, near))  # fmt: skip


_EXACT: dict[str, Callable[..., np.ndarray]] = {
    "add": _sum_to_odd,
    "sub": lambda a, b: _sum_to_odd(a, -b),
    "mul": np.multiply,
    "fma": lambda a, b, c: _sum_to_odd(a * b, c),
}
"""Of float32 values, in float64."""


def rounded(op: str, mode: str, dtype: np.dtype) -> Callable[..., np.ndarray]:
    """Return add, sub, mul or fma with a rounding that is not to the nearest.

    Raises:
        PtxError: it is not emulated.
    """
    if op not in _EXACT:
        raise PtxError(f"{op}.{mode} is not emulated")
    if dtype.itemsize == 4:

        def single(*v: np.ndarray) -> np.ndarray:
            return directed(_EXACT[op](*(x.astype(np.float64) for x in v)), dtype, mode)

        return single
    if op not in ("add", "sub"):
        raise PtxError(f"{op}.{mode} of f64 is not emulated")

    def double(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        b = -b if op == "sub" else b
        total, error = _two_sum(a, b)
        beyond = {
            "rm": error < 0,
            "rp": error > 0,
            "rz": np.sign(error) * np.sign(total) < 0,
        }[mode]
        towards = {"rm": -np.inf, "rp": np.inf, "rz": 0.0}[mode]
        return np.where(beyond, np.nextafter(total, towards), total)

    return double
