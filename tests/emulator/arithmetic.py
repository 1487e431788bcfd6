"""What instructions compute, on arrays with one value a thread.

Functions take arrays of the instruction's type and return one of it; integers wrap around.
Approximate instructions (``.approx``) are computed in float64 and rounded once: a GPU's are off by
an ulp or two.
"""

from collections.abc import Callable

import numpy as np

from tests.emulator.variables import SIZES, PtxError

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


def _flushed(v: np.ndarray) -> np.ndarray:
    """Return values with zeros for the denormal ones (``.ftz``)."""
    return np.where(np.abs(v) < np.finfo(v.dtype).tiny, np.copysign(v.dtype.type(0), v), v)


def _in_double(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Return a function that is computed in float64 and rounded once."""

    def apply(*v: np.ndarray) -> np.ndarray:
        return function(*(x.astype(np.float64) for x in v)).astype(v[0].dtype)

    return apply


def _reversed(x: np.ndarray) -> np.ndarray:
    """Return the bits in reverse order."""
    found, bits = np.zeros_like(x), x.dtype.itemsize * 8
    for i in range(bits):
        found |= ((x >> x.dtype.type(i)) & x.dtype.type(1)) << x.dtype.type(bits - 1 - i)
    return found


def leading_zeros(x: np.ndarray) -> np.ndarray:
    """Return how many bits above the highest one are 0."""
    bits = x.dtype.itemsize * 8
    for shift in (1, 2, 4, 8, 16, 32)[: bits.bit_length() - 1]:
        x = x | (x >> x.dtype.type(shift))
    return (bits - np.bitwise_count(x)).astype(np.uint32)


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
    "clz": leading_zeros,
    "brev": _reversed,
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


def permute_bytes(a: np.ndarray, b: np.ndarray, selector: np.ndarray) -> np.ndarray:
    """Return four bytes of b's and a's eight (a's are the lower ones), each as a nibble says.

    A nibble of 8 or more: the sign of the byte of 8 less, eight times.
    """
    both = b.astype(np.uint64) << np.uint64(32) | a.astype(np.uint64)
    found = np.zeros_like(both)
    for i in range(4):
        nibble = selector.astype(np.uint64) >> np.uint64(4 * i) & np.uint64(15)
        byte = both >> np.uint64(8) * (nibble & np.uint64(7)) & np.uint64(255)
        sign = np.where(byte > 127, np.uint64(255), np.uint64(0))
        found |= np.where(nibble > 7, sign, byte) << np.uint64(8 * i)
    return found.astype(np.uint32)


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
