"""Loads, stores, atomic operations and addresses."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.emulator import memory
from tests.emulator.arithmetic import dtype_of, unsigned
from tests.emulator.memory import LOCAL, PARAM, SHARED, Region
from tests.emulator.races import Shared
from tests.emulator.text import parts_of
from tests.emulator.variables import PtxError

Step = Callable[[Any, Any], None]

_SPACES = ("global", "shared", "local", "param", "const")
_WINDOWS = {"local": LOCAL, "shared": SHARED, "param": PARAM, "global": 0, "const": 0}
_ADDRESS = np.dtype(np.uint64)


def decode(program: Any, words: list[str], operands: list[str]) -> Step | None:
    """Return the function of ``ld``, ``st``, ``atom``, ``red`` or ``cvta``; None: another one."""
    function = {"ld": _load, "ldu": _load, "st": _store, "atom": _atomic, "red": _atomic,
                "cvta": _convert}.get(words[0])  # fmt: skip
    return function(program, words, operands) if function else None


@dataclass(frozen=True)
class _View:
    """Accesses that lie in one piece of memory.

    Attributes:
        array: the memory, as the access's type.
        index: of each access's first value.
        threads: whose accesses they are.
        which: their numbers among the instruction's; None: all.
        region: of global memory, or the blocks' shared memory.
    """

    array: np.ndarray
    index: np.ndarray
    threads: np.ndarray
    which: np.ndarray | None = None
    region: Region | Shared | None = None

    def own(self, values: np.ndarray) -> np.ndarray:
        """Return of an instruction's values those of these accesses."""
        return values if self.which is None or len(values) == 1 else values[self.which]

    def note(self, t: Any, what: str, k: int, *more: np.ndarray) -> None:
        """Look for races, where that is asked for."""
        races, region = t.access.races, self.region
        if races is None or region is None:
            return
        place = (self.index + k) * self.array.itemsize
        if isinstance(region, Shared):
            getattr(region.races, what)(region, place, self.threads, *more)
        elif not region.foreign:
            place -= region.base - region.start
            getattr(races, what)(region, place, self.threads + t.first, *more)


class Place:
    """An address operand, ``[base+offset]``, in a space."""

    def __init__(self, program: Any, words: list[str], operand: str):
        base, _, more = operand.strip("[] ").partition("+")
        base = base.strip()
        self._offset = int(more, 0) if more.strip() else 0
        self.space = next((w for w in words if w in _SPACES), "")
        if self.space == "param" and base in program.locals:
            self.space = "local"  # an argument of a call
        self._fixed: int | None = None
        if program.size_of(base) is None:
            self._fixed = program.symbol(base) + self._offset
        else:
            self._base = program.reads(base, _ADDRESS if program.size_of(base) == 8 else
                                       np.dtype(np.uint32))  # fmt: skip
        self._more = np.uint64(self._offset & 0xFFFFFFFFFFFFFFFF)

    def addresses(self, t: Any, ix: Any) -> np.ndarray:
        """Return each thread's address."""
        n = t.n if ix is None else len(ix)
        if self._fixed is not None:
            return np.full(n, self._fixed, _ADDRESS)
        base = self._base(t, ix).astype(_ADDRESS)
        return np.broadcast_to(base + self._more, (n,)) if len(base) != n else base + self._more

    def uniform(self) -> int | None:
        """Return the offset of a parameter that the operand names."""
        return self._fixed if self.space == "param" else None

    def views(self, t: Any, ix: Any, dtype: np.dtype, count: int, kind: str) -> list[_View]:
        """Return the accesses by where they lie; ``kind`` is one of ``traffic.KINDS``."""
        address = self.addresses(t, ix)
        threads = t.all if ix is None else ix
        size = dtype.itemsize * count
        if self.space:
            return _in_space(t, self.space, address, threads, dtype, size, kind)
        # generic: usually all in one space
        tops = address >> np.uint64(56)
        if np.all(tops == tops[0]):
            space = memory.space_of(int(address[0]))
            return _in_space(t, space, memory.offset(address), threads, dtype, size, kind)
        found = []
        for top in np.unique(tops):
            some = np.flatnonzero(tops == top)
            space = memory.space_of(int(top) << 56)
            inside = memory.offset(address[some])
            parts = _in_space(t, space, inside, threads[some], dtype, size, kind)
            found += [replace(v, which=some if v.which is None else some[v.which]) for v in parts]
        return found


def _in_space(
    t: Any, space: str, address: np.ndarray, threads: np.ndarray, dtype: np.dtype, size: int,
    kind: str,
) -> list[_View]:  # fmt: skip
    if space in ("global", "const"):
        if t.access.traffic is not None:
            t.access.traffic.note_access(kind, address, threads, size)
        found = []
        for region, which in t.access.parts(address, size, size):
            own, whose = (address, threads) if which is None else (address[which], threads[which])
            index = ((own - np.uint64(region.start)) // np.uint64(dtype.itemsize)).astype(np.int64)
            found.append(_View(region.view(dtype), index, whose, which, region))
        return found
    raw, unit, stride = {
        "local": (t.local, threads, t.local_size),
        "shared": (t.shared, t.block[threads], t.shared_size),
        "param": (t.params, 0, len(t.params)),
    }[space]
    at = address.astype(np.int64)
    if np.any(at < 0) or np.any(at + size > stride):
        bad = int(at[np.flatnonzero((at < 0) | (at + size > stride))[0]])
        raise PtxError(f"an access of {size} bytes at {bad} of {stride} bytes of {space} memory")
    if np.any(at % size):
        raise PtxError(f"a misaligned access of {size} bytes to {space} memory")
    region = t.access.shared if space == "shared" else None
    return [_View(raw.view(dtype), (at + unit * stride) // dtype.itemsize, threads, region=region)]


def _width(words: list[str]) -> int:
    return next((int(w[1]) for w in words if re.fullmatch(r"v[248]", w)), 1)


def _load(program: Any, words: list[str], operands: list[str]) -> Step:
    dtype, count = dtype_of(words[-1]), _width(words)
    place = Place(program, words, operands[1])
    writes = [program.writes(o, dtype) for o in parts_of(operands[0])]
    fixed = place.uniform()
    if fixed is not None:
        parts = [slice(fixed + dtype.itemsize * k, fixed + dtype.itemsize * (k + 1))
                 for k in range(count)]  # fmt: skip

        def uniform(t: Any, ix: Any) -> None:
            for part, write in zip(parts, writes, strict=True):
                write(t, ix, t.params[part].view(dtype))

        return uniform

    def step(t: Any, ix: Any) -> None:
        views = place.views(t, ix, dtype, count, "read")
        found = []
        for k in range(count):
            for view in views:
                view.note(t, "read", k)
            if len(views) == 1 and views[0].which is None:
                found.append(views[0].array[views[0].index + k])
                continue
            values = np.empty(t.n if ix is None else len(ix), dtype)
            for view in views:
                values[slice(None) if view.which is None else view.which] = view.array[
                    view.index + k
                ]
            found.append(values)
        # only now: a register of the address may be one that is loaded
        for write, values in zip(writes, found, strict=True):
            write(t, ix, values)

    return step


def _store(program: Any, words: list[str], operands: list[str]) -> Step:
    dtype, count = dtype_of(words[-1]), _width(words)
    place = Place(program, words, operands[0])
    reads = [program.reads(o, dtype) for o in parts_of(operands[1])]
    bits = unsigned(dtype)

    def step(t: Any, ix: Any) -> None:
        for view in place.views(t, ix, dtype, count, "write"):
            for k, read in enumerate(reads):
                values = view.own(read(t, ix))
                if t.access.races is not None:
                    there = view.array[view.index + k]
                    view.note(t, "write", k, there.view(bits), values.view(bits))
                view.array[view.index + k] = values

    return step


_OPERATIONS: dict[str, Callable[..., np.ndarray]] = {
    "add": lambda old, v: old + v,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "exch": lambda old, v: v,
    "cas": lambda old, wanted, v: np.where(old == wanted, v, old),
}


def _atomic(program: Any, words: list[str], operands: list[str]) -> Step:
    dtype, count = dtype_of(words[-1]), _width(words)
    returns = words[0] == "atom"
    name = next((w for w in words[1:] if w in _OPERATIONS), None)
    if words == ["red", "global", "add", "noftz", "f16x2"]:
        return _add_halves(program, words, operands)
    if name is None or words[-1] in ("f16x2", "f16"):
        raise PtxError("not emulated")
    if words[-1][0] == "b" and name == "add":
        raise PtxError("an addition without a type")
    operate = _OPERATIONS[name]
    place = Place(program, words, operands[1 if returns else 0])
    given = operands[2:] if returns else operands[1:]
    writes = [program.writes(o, dtype) for o in parts_of(operands[0])] if returns else []
    if count > 1 and (returns or len(given) != 1):
        raise PtxError("not emulated")
    # [value of the vector][argument]
    reads = [[program.reads(o, dtype)] for o in parts_of(given[0])] if count > 1 else [
        [program.reads(o, dtype) for o in given]]  # fmt: skip

    def step(t: Any, ix: Any) -> None:
        n = t.n if ix is None else len(ix)
        for view in place.views(t, ix, dtype, count, "add"):
            for k, arguments in enumerate(reads):
                values = [view.own(np.broadcast_to(read(t, ix), (n,))) for read in arguments]
                view.note(t, "add", k)
                index = view.index + k
                old = _one_after_another(view.array, index, operate, values, name, returns)
                if returns:
                    writes[k](t, view.threads, old)

    return step


def _add_halves(program: Any, words: list[str], operands: list[str]) -> Step:
    """Two halves added to the two of a word."""
    word, half = np.dtype(np.uint32), np.dtype(np.float16)
    place, read = Place(program, words, operands[0]), program.reads(operands[1], word)

    def step(t: Any, ix: Any) -> None:
        n = t.n if ix is None else len(ix)
        for view in place.views(t, ix, word, 1, "add"):
            view.note(t, "add", 0)
            values = np.ascontiguousarray(view.own(np.broadcast_to(read(t, ix), (n,))))
            for i in range(2):
                np.add.at(view.array.view(half), 2 * view.index + i, values.view(half)[i::2])

    return step


def _one_after_another(
    array: np.ndarray, index: np.ndarray, operate: Callable, values: list[np.ndarray], name: str,
    returns: bool,
) -> np.ndarray | None:  # fmt: skip
    """Operate on array[index] thread after thread; return what each has found there."""
    if name == "add" and not returns:
        np.add.at(array, index, values[0])
        return None
    old = np.empty(len(index), array.dtype)
    order = np.argsort(index, kind="stable")
    at = index[order]
    first = np.r_[True, at[1:] != at[:-1]]
    rank = np.arange(len(at)) - np.maximum.accumulate(np.where(first, np.arange(len(at)), 0))
    for turn in range(int(rank.max()) + 1 if len(rank) else 0):
        some = order[rank == turn]
        found = array[index[some]]
        old[some] = found
        array[index[some]] = operate(found, *(v[some] for v in values))
    return old


def _convert(program: Any, words: list[str], operands: list[str]) -> Step:
    space = next(w for w in words if w in _SPACES)
    window = np.uint64(_WINDOWS[space])
    dtype = unsigned(dtype_of(words[-1]))
    write, read = program.writes(operands[0], dtype), program.reads(operands[1], dtype)
    if "to" in words:
        return lambda t, ix: write(t, ix, read(t, ix) - window)
    return lambda t, ix: write(t, ix, read(t, ix) + window)
