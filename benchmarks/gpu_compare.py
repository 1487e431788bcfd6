"""Two sides of one computation: how they are named, compared, and said to be the same."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Side:
    """Where a row is computed, and by which kernels."""

    device: str
    serves_cuda: bool
    """By the kernels that CUDA has; on a CPU they are the slower ones."""

    @property
    def backend(self) -> str:
        """Of what has a choice of backends."""
        return "portable" if self.serves_cuda else "auto"


@dataclass(frozen=True)
class Tolerance:
    """How far two sides may lie apart, and why."""

    limit: float
    """Most relative error; 0: the same bits."""
    reason: str
    outliers: float = 0.0
    """Share of the values that may differ by more."""
    whole: bool = False
    """The error is the norm of the difference over the norm, instead of the worst value's."""


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: what is compared.
        run: (side) -> arrays by name, computed on the side.
        tolerance: of every array.
        others: arrays with another tolerance, by name.
        on_cpu: whether a CPU has two kinds of kernels for it, so that they can be compared there.
    """

    name: str
    run: Callable[[Side], Arrays]
    tolerance: Tolerance
    others: Mapping[str, Tolerance] | None = None
    on_cpu: bool = False

    def tolerance_of(self, name: str) -> Tolerance:
        """Return what an array is held to."""
        return (self.others or {}).get(name, self.tolerance)


def deviations(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return each value's error as a share of its size, or of the usual size if that is more.

    The usual size is the root mean square of what is not 0. Integers and truth values have an error
    of 0 or 1. Where one side is not finite and the other differs, the error is infinite.
    """
    if wanted.dtype.kind in "iub":
        return (wanted != found).astype(np.float64)
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    some = np.abs(a[finite & (a != 0)])
    usual = float(np.sqrt(np.mean(some**2))) if some.size else 0.0
    size = np.maximum(np.abs(a), usual)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(b - a) / size
        same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, np.where(finite & (size > 0), error, np.inf))


def compare(wanted: np.ndarray, found: np.ndarray, tolerance: Tolerance) -> dict[str, Any]:
    """Return the error of an array and whether it is within its tolerance.

    An array of zeros, or of nothing finite, is not: a gradient that has vanished would agree.
    """
    told = {"limit": tolerance.limit, "outliers": tolerance.outliers, "values": int(wanted.size)}
    if wanted.shape != found.shape:
        why = f"shapes {list(wanted.shape)} and {list(found.shape)}"
        return {**told, "error": None, "ok": False, "why": why}
    if not np.any(np.isfinite(wanted) & (wanted != 0)):
        return {**told, "error": None, "ok": False, "why": "nothing but zeros, or not finite"}
    if tolerance.whole:
        a, b = wanted.astype(np.float64), found.astype(np.float64)
        error = worst = float(np.linalg.norm(b - a) / np.linalg.norm(a))
        beyond = 0.0
    else:
        each = np.sort(deviations(wanted, found), axis=None)
        kept = each.size - int(tolerance.outliers * each.size)
        error, worst = float(each[kept - 1]), float(each[-1])
        beyond = float(np.mean(each > tolerance.limit))
    ok = bool(error <= tolerance.limit)  # NaN is not
    return {**told, "error": _plain(error), "worst": _plain(worst), "beyond": beyond, "ok": ok}


def _plain(value: float) -> float | None:
    """Return a number as JSON has it; None: not finite."""
    return value if np.isfinite(value) else None


def run_row(row: Row, reference: Side, side: Side) -> dict[str, Any]:
    """Compute a row on both sides and compare.

    Where both are the same code on the same device it is computed once and not compared: ``ok`` is
    None then, or False if it gives nothing that could be compared.
    """
    start = time.perf_counter()
    names: set[str] = set()
    with launched_kernels(names):
        found = row.run(side)
    result: dict[str, Any] = {"row": row.name, "reason": row.tolerance.reason}
    one_code = reference.device == side.device and not row.on_cpu
    wanted = found if one_code else row.run(reference)
    arrays = {n: compare(wanted[n], found[n], row.tolerance_of(n)) for n in wanted if n in found}
    result["ok"] = all(a["ok"] for a in arrays.values())
    missing = sorted(wanted.keys() - found.keys())
    if missing or not wanted:
        result |= {"ok": False, "why": f"no array {', '.join(missing)}".strip()}
    if one_code and result["ok"]:
        result |= {"ok": None, "why": "a CPU has one code for it"}
    else:
        result["arrays"] = arrays
    result["kernels"] = sorted(names)
    result["seconds"] = time.perf_counter() - start
    return result


@contextlib.contextmanager
def launched_kernels(names: set[str]) -> Iterator[None]:
    """Add "module.factory" of every kernel that is launched or recorded inside to ``names``."""
    original = wp.launch

    def noted(kernel: Any, *args: Any, **kwargs: Any) -> Any:
        names.add(kernel_name(kernel))
        return original(kernel, *args, **kwargs)

    wp.launch = noted
    try:
        yield
    finally:
        wp.launch = original


def kernel_name(kernel: Any) -> str:
    """Return "module.factory" of a kernel, or "module.kernel" of one that no factory makes."""
    return f"{kernel.func.__module__}.{kernel.func.__qualname__.partition('.')[0]}"


def run_list(launches: list[launch.Launch]) -> None:
    """Run launches one after another."""
    for item in launches:
        item.run()


def to_device(values: np.ndarray, device: str, dtype: Any = None) -> wp.array:
    """Return values as a flat array on a device."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return wp.array(flat, dtype=dtype or wp.dtype_from_numpy(flat.dtype), device=device)


def blocked(points: np.ndarray, device: str) -> wp.array:
    """Return points [n, n_rows], n a multiple of 32, in blocks on a device."""
    n, n_rows = points.shape
    rows = points.astype(np.float32).reshape(n // 32, 32, n_rows).transpose(0, 2, 1)
    return to_device(rows, device)


def zeros(n: int, device: str, dtype: Any = wp.float32) -> wp.array:
    """Return a flat array of zeros."""
    return wp.zeros(n, dtype=dtype, device=device)
