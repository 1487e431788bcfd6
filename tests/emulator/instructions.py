"""Instructions that each thread carries out for itself, as functions on all threads."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.emulator import accesses, arithmetic, conversions, rounding, warps
from tests.emulator.arithmetic import dtype_of, unsigned
from tests.emulator.text import Instruction, parts_of
from tests.emulator.variables import SIZES, PtxError

Step = Callable[[Any, Any], None]
"""(threads, which of them or None for all)."""

_NOTHING = ("membar", "fence", "prefetch", "prefetchu", "nanosleep", "discard")
_ARITHMETIC = "rn rm rp rz ftz"
_MODIFIERS = {
    word: set(modifiers.split())
    for word, modifiers in {
        "add": _ARITHMETIC, "sub": _ARITHMETIC, "mul": _ARITHMETIC + " lo hi wide",
        "mad": "lo wide", "fma": "rn rm rp rz", "div": "rn approx full ftz",
        "min": "ftz NaN", "max": "ftz NaN", "abs": "ftz", "neg": "ftz",
        "sqrt": "rn approx ftz", "rcp": "rn approx ftz", "rsqrt": "approx ftz",
        "sin": "approx ftz", "cos": "approx ftz", "ex2": "approx ftz", "lg2": "approx ftz",
        "tanh": "approx", "shf": "l r wrap", "bfind": "shiftamt",
        "cvt": "rn rm rp rz rni rmi rpi rzi sat",
        "setp": "eq ne lt le gt ge equ neu ltu leu gtu geu num nan lo ls hi hs and or xor",
    }.items()
}  # fmt: skip
"""What may stand between an instruction's word and its types; none where a word is not here."""


def decode(program: Any, item: Instruction) -> Step | None:
    """Return an instruction's function; None: it does nothing.

    Raises:
        PtxError: it is not emulated.
    """
    words = item.op.split(".")
    word = words[0]
    if word in _NOTHING:
        return None
    if word == "trap":

        def trap(t: Any, ix: Any) -> None:
            raise PtxError("trap")

        return trap
    for kind in (accesses.decode, warps.decode):
        step = kind(program, words, item.operands)
        if step is not None:
            return step
    for modifier in words[1:]:
        if modifier not in SIZES and modifier not in _MODIFIERS.get(word, ()):
            raise PtxError(f"{modifier} is not emulated")
    if "ftz" in words and {"rm", "rp", "rz"} & set(words):
        raise PtxError("ftz with this rounding is not emulated")
    step = _special(program, words, item.operands) or _plain(program, words, item.operands)
    if step is None:
        raise PtxError("not emulated")
    return step


def _special(program: Any, words: list[str], operands: list[str]) -> Step | None:
    """Instructions that have a form of their own."""
    word = words[0]
    function = {"mov": _mov, "setp": _setp, "selp": _selp, "cvt": _cvt, "mad": _mad, "fma": _fma,
                "shl": _shift, "shr": _shift, "shf": _funnel, "bfi": _bfi,
                "bfind": _bfind, "prmt": _permute}.get(word)  # fmt: skip
    if word == "mul" and ("wide" in words or "hi" in words):
        function = _mul
    return function(program, words, operands) if function else None


def _plain(program: Any, words: list[str], operands: list[str]) -> Step | None:
    """One or two operands of the result's type."""
    if words[-1] == "f16x2":
        return _halves(program, words, operands)
    function = {2: _unary, 3: _binary}.get(len(operands))
    return function(program, words, operands) if function else None


def _unary(program: Any, words: list[str], operands: list[str]) -> Step | None:
    dtype = dtype_of(words[-1])
    function = arithmetic.unary(words[0], dtype, "ftz" in words)
    if function is None:
        return None
    write, a = program.writes(operands[0], dtype), program.reads(operands[1], dtype)
    return lambda t, ix: write(t, ix, function(a(t, ix)))


def _binary(program: Any, words: list[str], operands: list[str]) -> Step | None:
    dtype = dtype_of(words[-1])
    mode = next((w for w in words[1:] if w in ("rm", "rp", "rz")), None)
    if mode and dtype.kind == "f":
        function = rounding.rounded(words[0], mode, dtype)
    else:
        function = arithmetic.binary(words[0], dtype, "ftz" in words, "NaN" in words)
    if function is None:
        return None
    a, b = (program.reads(o, dtype) for o in operands[1:])
    if isinstance(function, np.ufunc) and program.size_of(operands[0]) == dtype.itemsize:
        at = program.view(operands[0], dtype)

        def in_place(t: Any, ix: Any) -> None:
            if ix is None:
                function(a(t, ix), b(t, ix), out=t.arrays[at])
            else:
                t.arrays[at][ix] = function(a(t, ix), b(t, ix))

        return in_place
    write = program.writes(operands[0], dtype)
    return lambda t, ix: write(t, ix, function(a(t, ix), b(t, ix)))


def _halves(program: Any, words: list[str], operands: list[str]) -> Step | None:
    """Two halves in a word."""
    word = np.dtype(np.uint32)
    function = arithmetic.binary(words[0], np.dtype(np.float16), False, "NaN" in words)
    if function is None or len(operands) != 3:
        return None
    write = program.writes(operands[0], word)
    a, b = (program.reads(o, word) for o in operands[1:])

    def step(t: Any, ix: Any) -> None:
        x, y = (np.ascontiguousarray(v(t, ix)).view(np.float16).reshape(-1, 2) for v in (a, b))
        write(t, ix, np.ascontiguousarray(function(x, y)).view(word)[:, 0])

    return step


def _mov(program: Any, words: list[str], operands: list[str]) -> Step:
    to, of = operands
    dtype = dtype_of(words[-1])
    if to.startswith("{"):
        parts = parts_of(to)
        part = np.dtype(f"u{dtype.itemsize // len(parts)}")
        read = program.reads(of, unsigned(dtype))
        writes = [program.writes(p, part) for p in parts]

        def unpack(t: Any, ix: Any) -> None:
            v = np.ascontiguousarray(read(t, ix)).view(part).reshape(-1, len(parts)).copy()
            for i, write in enumerate(writes):
                write(t, ix, v[:, i])

        return unpack
    write = program.writes(to, dtype)
    if of.startswith("{"):
        parts = parts_of(of)
        part = np.dtype(f"u{dtype.itemsize // len(parts)}")
        reads = [program.reads(p, part) for p in parts]

        def pack(t: Any, ix: Any) -> None:
            v = np.stack(np.broadcast_arrays(*(r(t, ix) for r in reads)), axis=-1)
            write(t, ix, np.ascontiguousarray(v).view(dtype)[:, 0])

        return pack
    read = program.reads(of, dtype)
    return lambda t, ix: write(t, ix, read(t, ix))


def _setp(program: Any, words: list[str], operands: list[str]) -> Step:
    dtype = dtype_of(words[-1])
    compare = arithmetic.comparison(words[1], dtype)
    truth = np.dtype(bool)
    first, *others = operands
    if "|" in first:
        raise PtxError("a second predicate is not emulated")
    write = program.writes(first, truth)
    a, b = (program.reads(o, dtype) for o in others[:2])
    if len(others) == 2:
        return lambda t, ix: write(t, ix, compare(a(t, ix), b(t, ix)))
    join = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[words[2]]
    negated = others[2].startswith("!")
    c = program.reads(others[2].lstrip("!"), truth)
    return lambda t, ix: write(t, ix, join(compare(a(t, ix), b(t, ix)), c(t, ix) != negated))


def _selp(program: Any, words: list[str], operands: list[str]) -> Step:
    dtype = dtype_of(words[-1])
    write = program.writes(operands[0], dtype)
    a, b = (program.reads(o, dtype) for o in operands[1:3])
    p = program.reads(operands[3], np.dtype(bool))
    return lambda t, ix: write(t, ix, np.where(p(t, ix), a(t, ix), b(t, ix)))


def _cvt(program: Any, words: list[str], operands: list[str]) -> Step:
    to, of = words[-2:]
    if to == "f16x2":
        if words[1:-2] != ["rn"]:
            raise PtxError("this rounding is not emulated")
        return _pack_halves(program, operands)
    target, source = dtype_of(to), dtype_of(of)
    change = conversions.conversion(words[1:-2], target, source)
    write, read = program.writes(operands[0], target), program.reads(operands[1], source)
    return lambda t, ix: write(t, ix, change(read(t, ix)))


def _pack_halves(program: Any, operands: list[str]) -> Step:
    """The first of two floats to the upper half of a word."""
    word, single = np.dtype(np.uint32), np.dtype(np.float32)
    write = program.writes(operands[0], word)
    top, low = (program.reads(o, single) for o in operands[1:])

    def step(t: Any, ix: Any) -> None:
        v = np.stack(np.broadcast_arrays(low(t, ix), top(t, ix)), axis=-1).astype(np.float16)
        write(t, ix, np.ascontiguousarray(v).view(word)[:, 0])

    return step


def _mul(program: Any, words: list[str], operands: list[str]) -> Step:
    dtype = dtype_of(words[-1])
    function = arithmetic.wide if "wide" in words else arithmetic.high
    result = np.dtype(f"{dtype.kind}{dtype.itemsize * 2}") if "wide" in words else dtype
    write = program.writes(operands[0], result)
    a, b = (program.reads(o, dtype) for o in operands[1:])
    return lambda t, ix: write(t, ix, function(a(t, ix), b(t, ix)))


def _mad(program: Any, words: list[str], operands: list[str]) -> Step:
    dtype = dtype_of(words[-1])
    wide = "wide" in words
    result = np.dtype(f"{dtype.kind}{dtype.itemsize * 2}") if wide else dtype
    function = arithmetic.wide if wide else np.multiply
    write = program.writes(operands[0], result)
    a, b = (program.reads(o, dtype) for o in operands[1:3])
    c = program.reads(operands[3], result)
    return lambda t, ix: write(t, ix, function(a(t, ix), b(t, ix)) + c(t, ix))


def _fma(program: Any, words: list[str], operands: list[str]) -> Step:
    dtype = dtype_of(words[-1])
    if dtype.kind != "f":
        raise PtxError("not emulated")
    mode = next((w for w in words[1:] if w in ("rm", "rp", "rz")), None)
    function = rounding.rounded("fma", mode, dtype) if mode else rounding.fma
    write = program.writes(operands[0], dtype)
    a, b, c = (program.reads(o, dtype) for o in operands[1:])
    return lambda t, ix: write(t, ix, function(a(t, ix), b(t, ix), c(t, ix)))


def _shift(program: Any, words: list[str], operands: list[str]) -> Step:
    dtype = dtype_of(words[-1])
    function = arithmetic.shift_left if words[0] == "shl" else arithmetic.shift_right
    write, a = program.writes(operands[0], dtype), program.reads(operands[1], dtype)
    n = program.reads(operands[2], np.dtype(np.uint32))
    return lambda t, ix: write(t, ix, function(a(t, ix), n(t, ix)))


def _funnel(program: Any, words: list[str], operands: list[str]) -> Step:
    if words[2] != "wrap" or words[-1] != "b32":
        raise PtxError("not emulated")
    dtype = np.dtype(np.uint32)
    function = arithmetic.funnel_left if words[1] == "l" else arithmetic.funnel_right
    write = program.writes(operands[0], dtype)
    a, b, n = (program.reads(o, dtype) for o in operands[1:])
    return lambda t, ix: write(t, ix, function(a(t, ix), b(t, ix), n(t, ix)))


def _permute(program: Any, words: list[str], operands: list[str]) -> Step:
    if words != ["prmt", "b32"]:
        raise PtxError("this mode is not emulated")
    write, *reads = (f(o, np.dtype(np.uint32)) for f, o in zip(
        (program.writes, *[program.reads] * 3), operands, strict=True))  # fmt: skip
    return lambda t, ix: write(t, ix, arithmetic.permute_bytes(*(read(t, ix) for read in reads)))


def _bfi(program: Any, words: list[str], operands: list[str]) -> Step:
    dtype, count = dtype_of(words[-1]), np.dtype(np.uint32)
    write = program.writes(operands[0], dtype)
    a, b = (program.reads(o, dtype) for o in operands[1:3])
    at, n = (program.reads(o, count) for o in operands[3:])
    return lambda t, ix: write(
        t, ix, arithmetic.insert_bits(a(t, ix), b(t, ix), at(t, ix), n(t, ix))
    )


def _bfind(program: Any, words: list[str], operands: list[str]) -> Step:
    """The highest bit that is 1, or how far left it could go; all bits 1 where there is none."""
    dtype = dtype_of(words[-1])
    if dtype.kind != "u":
        raise PtxError("a signed search is not emulated")
    write, read = (
        program.writes(operands[0], np.dtype(np.uint32)),
        program.reads(operands[1], dtype),
    )
    top, shift = dtype.itemsize * 8 - 1, "shiftamt" in words

    def step(t: Any, ix: Any) -> None:
        value = read(t, ix)
        zeros = arithmetic.leading_zeros(value)
        found = zeros if shift else np.uint32(top) - zeros
        write(t, ix, np.where(value == 0, np.uint32(0xFFFFFFFF), found))

    return step
