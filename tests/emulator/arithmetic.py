"""What instructions compute, on arrays with one value a thread.

Functions take arrays of the instruction's type and return one of it; integers wrap around.
Approximate instructions (``.approx``) are computed in float64 and rounded once: a GPU's are off by
an ulp or two.
"""

from collections.abc import Callable

import numpy as np

from tests.emulator.text import SIZES, PtxError

KINDS = {"u": "u", "b": "u", "s": "i", "f": "f"}

Binary = Callable[[np.ndarray, np.ndarray], np.ndarray]
Unary = Callable[[np.ndarray], np.ndarray]


def dtype_of(name: str) -> np.dtype:
    """Return NumPy's type of a PTX type ("s32", "b16", "pred").

    Raises:
        PtxError: no such.
    """
    if name not in SIZES:
        raise PtxError(f"no type that is emulated: {name}")
    if name == "pred":
        return np.dtype(bool)
    if name == "f16x2":
        return np.dtype(np.uint32)
    return np.dtype(f"{KINDS[name[0]]}{int(name[1:]) // 8}")


def unsigned(dtype: np.dtype) -> np.dtype:
    """Return the unsigned integer of a type's size."""
    return np.dtype(f"u{dtype.itemsize}")


# integers


def high(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the upper half of a product."""
    bits = a.dtype.itemsize * 8
    if bits <= 32:
        wide = np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}")
        return ((a.astype(wide) * b.astype(wide)) >> bits).astype(a.dtype)
    exact = a.astype(object) * b.astype(object) >> bits
    return exact.astype(a.dtype)


def wide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a product in twice the bits."""
    twice = np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}")
    return a.astype(twice) * b.astype(twice)


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    zero = b == 0
    b = np.where(zero, b.dtype.type(1), b)
    down = a // b
    # Python's quotient rounds down, a machine's towards zero
    quotient = down + ((down < 0) & (down * b != a)) if a.dtype.kind == "i" else down
    return np.where(zero, ~a.dtype.type(0), quotient).astype(a.dtype)


def _remainder(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a - _quotient(a, b) * b


def shift_left(a: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return a << n; 0 where n is not less than the bits."""
    bits = a.dtype.itemsize * 8
    kept = np.minimum(n, bits - 1).astype(a.dtype)
    return np.where(n < bits, a << kept, a.dtype.type(0))


def shift_right(a: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return a >> n; 0, or the sign, where n is not less than the bits."""
    bits = a.dtype.itemsize * 8
    shifted = a >> np.minimum(n, bits - 1).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(n < bits, shifted, a.dtype.type(0))


def funnel_left(low: np.ndarray, top: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the upper word of (top, low) << n % 32."""
    n = (n & 31).astype(np.uint64)
    both = (top.astype(np.uint64) << np.uint64(32)) | low
    return ((both << n) >> np.uint64(32)).astype(np.uint32)


def funnel_right(low: np.ndarray, top: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the lower word of (top, low) >> n % 32."""
    n = (n & 31).astype(np.uint64)
    both = (top.astype(np.uint64) << np.uint64(32)) | low
    return (both >> n).astype(np.uint32)


def insert_bits(a: np.ndarray, b: np.ndarray, at: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return b with its n bits from ``at`` on replaced by the lowest of a."""
    bits = b.dtype.itemsize * 8
    at, n = at & 0xFF, np.minimum(n & 0xFF, bits)
    one = b.dtype.type(1)
    ones = np.where(n >= bits, ~b.dtype.type(0), shift_left(np.broadcast_to(one, n.shape), n) - one)
    mask = shift_left(ones.astype(b.dtype), at)
    return (b & ~mask) | (shift_left(a, at) & mask)


# floats


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


def _directed(exact: np.ndarray, dtype: np.dtype, mode: str) -> np.ndarray:
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
            return _directed(_EXACT[op](*(x.astype(np.float64) for x in v)), dtype, mode)

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


def _flushed(v: np.ndarray) -> np.ndarray:
    """Return values with zeros for the denormal ones (``.ftz``)."""
    return np.where(np.abs(v) < np.finfo(v.dtype).tiny, np.copysign(v.dtype.type(0), v), v)


def _in_double(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Return a function that is computed in float64 and rounded once."""

    def apply(*v: np.ndarray) -> np.ndarray:
        return function(*(x.astype(np.float64) for x in v)).astype(v[0].dtype)

    return apply


def _least(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return minima; of zeros the negative one."""
    found = np.fmin(a, b)
    zero = found == 0
    return np.where(zero & (a == b), -(-a - b), found) if zero.any() else found


def _greatest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return maxima; of zeros the positive one."""
    found = np.fmax(a, b)
    zero = found == 0
    return np.where(zero & (a == b), a + b, found) if zero.any() else found


_FLOAT_UNARY: dict[str, Unary] = {
    "abs": np.abs,
    "neg": np.negative,
    "sqrt": np.sqrt,
    "rsqrt": _in_double(lambda x: 1.0 / np.sqrt(x)),
    "rcp": lambda x: x.dtype.type(1) / x,
    "sin": _in_double(np.sin),
    "cos": _in_double(np.cos),
    "ex2": _in_double(np.exp2),
    "lg2": _in_double(np.log2),
    "tanh": _in_double(np.tanh),
}
_INTEGER_UNARY: dict[str, Unary] = {
    "abs": np.abs,
    "neg": np.negative,
    "not": np.invert,
    "popc": lambda x: np.bitwise_count(x).astype(np.uint32),
}
_FLOAT_BINARY: dict[str, Binary] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "min": _least,
    "max": _greatest,
    "copysign": lambda a, b: np.copysign(b, a),
}
_INTEGER_BINARY: dict[str, Binary] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _quotient,
    "rem": _remainder,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


def unary(op: str, dtype: np.dtype, flush: bool) -> Unary | None:
    """Return an instruction of one operand; None: no such."""
    function = (_FLOAT_UNARY if dtype.kind == "f" else _INTEGER_UNARY).get(op)
    return _with_flush(function, flush)


def binary(op: str, dtype: np.dtype, flush: bool, nan: bool) -> Binary | None:
    """Return an instruction of two operands of one type; None: no such.

    Args:
        op: its first word.
        dtype: of the operands.
        flush: ``.ftz``.
        nan: ``.NaN``: a NaN in, a NaN out, also of ``min`` and ``max``.
    """
    function = (_FLOAT_BINARY if dtype.kind == "f" else _INTEGER_BINARY).get(op)
    if nan and function is not None:
        plain = function
        function = lambda a, b: np.where(np.isnan(a) | np.isnan(b), a + b, plain(a, b))  # noqa: E731
    return _with_flush(function, flush)


def _with_flush(function: Callable | None, flush: bool) -> Callable | None:
    if function is None or not flush:
        return function
    return lambda *v: _flushed(function(*(_flushed(x) for x in v)))


_COMPARE = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
            "gt": np.greater, "ge": np.greater_equal}  # fmt: skip
_UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


def comparison(name: str, dtype: np.dtype) -> Binary:
    """Return a comparison; those that end in u hold for NaN, as ``num`` does not.

    Raises:
        PtxError: no such.
    """
    if dtype.kind != "f" and _UNSIGNED.get(name, name) in _COMPARE:
        return _COMPARE[_UNSIGNED.get(name, name)]
    if name in ("num", "nan"):
        wanted = name == "nan"
        return lambda a, b: (np.isnan(a) | np.isnan(b)) == wanted
    if name in _COMPARE:
        if name == "ne":  # ordered: false for a NaN
            return lambda a, b: (a < b) | (a > b)
        return _COMPARE[name]
    base = dtype.kind == "f" and {
        "equ": "eq",
        "neu": "ne",
        "ltu": "lt",
        "leu": "le",
        "gtu": "gt",
        "geu": "ge",
    }.get(name)
    if not base:
        raise PtxError(f"no comparison {name}")
    compare = _COMPARE[base]
    return lambda a, b: compare(a, b) | np.isnan(a) | np.isnan(b)


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
        change = lambda v: _directed(v.astype(np.float64), to, mode)  # noqa: E731
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
