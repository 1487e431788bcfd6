"""A kernel as straight pieces of code, with its registers and the places of its variables."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.emulator.arithmetic import unsigned
from tests.emulator.instructions import Step, decode
from tests.emulator.text import Function, Instruction, Module
from tests.emulator.variables import PtxError, Variable

Read = Callable[[Any, Any], np.ndarray]
Write = Callable[[Any, Any, np.ndarray], None]

_ENDS = ("ret", "exit")
_MEETS = {"bar": "block", "barrier": "block", "shfl": "warp", "vote": "warp", "match": "warp",
          "redux": "warp", "mma": "warp", "movmatrix": "warp", "ldmatrix": "warp"}  # fmt: skip
_INTEGER = re.compile(r"-?(0[xX][0-9a-fA-F]+|0[bB][01]+|0|[1-9][0-9]*)U?")


@dataclass
class Piece:
    """Instructions that are run one after another: nothing jumps in or out."""

    program: "Program"
    meets: str | None = None
    """"warp" or "block": whose threads must all be here first."""
    steps: list[Step] = field(default_factory=list)
    leave: Callable[[Any, Any], Any] | None = None
    """(threads, group) -> the next piece, or one for each; None: the next one."""
    texts: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return its instructions."""
        return "\n".join(f"    {t}" for t in self.texts)


class Program:
    """A kernel that can be launched.

    Args:
        module: the PTX.
        name: the kernel.
        addresses: of the module's variables in global memory, by name.

    Raises:
        PtxError: an instruction that is not emulated.
    """

    def __init__(self, module: Module, name: str, addresses: dict[str, int]):
        function = module.function(name)
        self.name, self.addresses = name, addresses
        self._function: Function = function
        self.params: dict[str, tuple[int, int]] = {}
        self.params_size = _lay_out(function.params, self.params)
        locals_: dict[str, tuple[int, int]] = {}
        of = [v for v in function.variables if v.space == "local"]
        self.local_size = -(-_lay_out(of, locals_) // 16) * 16
        shared: dict[str, tuple[int, int]] = {}
        of = [v for v in function.variables if v.space == "shared"]
        of += [v for v in module.variables.values() if v.space == "shared"]
        self.shared_size = -(-_lay_out(of, shared) // 16) * 16
        self.locals = {n: at for n, (at, _) in locals_.items()}
        self.shared = {n: at for n, (at, _) in shared.items()}
        self._slots: dict[str, int] = {}
        self.register_sizes: list[int] = []
        self._views: dict[tuple[int, np.dtype], int] = {}
        self.register_views: list[tuple[int, np.dtype]] = []
        self.pieces: list[Piece] = []
        self.states: dict[tuple[int, int], Any] = {}
        """The state of the last launch's threads, by its size: what is made anew takes long."""
        self._read()

    # registers

    def size_of(self, name: str) -> int | None:
        """Return the bytes of a register; None: it is none."""
        return self._function.size_of(name)

    def view(self, name: str, dtype: np.dtype) -> int:
        """Return where ``Threads.arrays`` has a register under a type of its size.

        Raises:
            PtxError: it is no register.
        """
        size = self.size_of(name)
        if size is None:
            raise PtxError(f"not a register: {name}")
        if name not in self._slots:
            self._slots[name] = len(self.register_sizes)
            self.register_sizes.append(size)
        key = (self._slots[name], dtype)
        if key not in self._views:
            self._views[key] = len(self.register_views)
            self.register_views.append(key)
        return self._views[key]

    # operands

    def reads(self, text: str, dtype: np.dtype) -> Read:
        """Return how an operand is read as a type."""
        if text.startswith("%") and text in _SPECIAL:
            if dtype.itemsize != 4:
                raise PtxError(f"{text} has 32 bits")
            return lambda t, ix: t.special[text][slice(None) if ix is None else ix].view(dtype)
        size = self.size_of(text)
        if size is None:
            value = self._constant(text, dtype)
            return lambda t, ix: value
        own = _held_as(dtype, size)
        at = self.view(text, own)
        if own == dtype:
            return lambda t, ix: t.arrays[at] if ix is None else t.arrays[at][ix]
        # a wider register than the type: its lower bits
        low = unsigned(dtype)
        return lambda t, ix: (
            (t.arrays[at] if ix is None else t.arrays[at][ix]).astype(low).view(dtype)
        )

    def writes(self, text: str, dtype: np.dtype) -> Write:
        """Return how a register is written with values of a type."""
        if text == "_":
            return lambda t, ix, v: None
        size = self.size_of(text)
        if size is None:
            raise PtxError(f"not a register: {text}")
        # a wider register gets the value with its sign
        own = _held_as(dtype, size)
        at = self.view(text, own)

        def write(t: Any, ix: Any, value: np.ndarray) -> None:
            if ix is None:
                t.arrays[at][:] = value
            else:
                t.arrays[at][ix] = value

        if dtype.kind == "f" and own != dtype:
            bits = unsigned(dtype)
            return lambda t, ix, v: write(t, ix, np.asarray(v, dtype).view(bits))
        return write

    def _constant(self, text: str, dtype: np.dtype) -> np.ndarray:
        if text[:2].lower() in ("0f", "0d"):
            size = 4 if text[1].lower() == "f" else 8
            bits = np.array([int(text[2:], 16)], f"u{size}")
            if dtype.kind == "f":
                return bits.view(f"f{size}").astype(dtype)
            if dtype.itemsize != size:
                raise PtxError(f"{text} has other bits than the instruction's type")
            return bits.view(dtype)
        found = _INTEGER.fullmatch(text)
        number = int(text.removesuffix("U"), 0) if found else self.symbol(text)
        if dtype.kind == "b":
            return np.array([number != 0])
        bits = unsigned(dtype)
        return np.array([number & ((1 << 8 * dtype.itemsize) - 1)], bits).view(dtype)

    def symbol(self, text: str) -> int:
        """Return a variable's address, in its own space.

        Raises:
            PtxError: no such.
        """
        for table in (self.locals, self.shared, self.addresses):
            if text in table:
                return table[text]
        if text in self.params:
            return self.params[text][0]
        raise PtxError(f"neither register, number nor variable: {text}")

    # the code

    def _read(self) -> None:
        starts: dict[str, int] = {}
        lists: list[list[Instruction]] = [[]]
        for item in self._function.code:
            if isinstance(item, str):
                if lists[-1]:
                    lists.append([])
                if item in starts:
                    raise PtxError(f"{self.name}: two labels {item}")
                starts[item] = len(lists) - 1
                continue
            word = item.op.split(".")[0]
            meets = _meets(item)
            if meets and lists[-1]:
                lists.append([])
            lists[-1].append(item)
            if meets or word == "bra" or word in _ENDS or word == "trap":
                lists.append([])
        for place, items in enumerate(lists):
            piece = Piece(self, texts=[i.text for i in items])
            self.pieces.append(piece)
            for item in items:
                word = item.op.split(".")[0]
                piece.meets = _meets(item)
                if word == "bra":
                    piece.leave = self._branch(item, starts[item.operands[0]], place + 1)
                elif word in _ENDS:
                    piece.leave = self._branch(item, len(lists), place + 1)
                else:
                    self._add(piece, item)

    def _branch(self, item: Instruction, target: int, following: int) -> Callable[[Any, Any], Any]:
        if item.guard is None:
            return lambda t, ix: target
        holds = self._guard(item)
        return lambda t, ix: np.where(holds(t, ix), target, following)

    def _guard(self, item: Instruction) -> Read:
        """Return which threads an instruction's guard holds for."""
        read, negated = self.reads(item.guard or "", np.dtype(bool)), item.negated
        return lambda t, ix: read(t, ix) != negated

    def _add(self, piece: Piece, item: Instruction) -> None:
        try:
            step = decode(self, item)
        except PtxError as error:
            raise PtxError(f"{self.name}: {item.text}: {error}") from None
        if step is None:
            return
        if item.guard is None:
            piece.steps.append(step)
            return
        if piece.meets:
            raise PtxError(f"{self.name}: {item.text}: a meeting under a condition")
        holds = self._guard(item)

        def guarded(t: Any, ix: Any) -> None:
            p = holds(t, ix)
            if p.all():
                step(t, ix)
            elif p.any():
                step(t, np.flatnonzero(p) if ix is None else ix[p])

        piece.steps.append(guarded)


_SPECIAL = {f"%{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"} | {
    "%laneid",
    "%warpid",
}


def _held_as(dtype: np.dtype, size: int) -> np.dtype:
    """Return the type under which a register of so many bytes holds values of a type."""
    if dtype.itemsize == size:
        return dtype
    return np.dtype(f"{'i' if dtype.kind == 'i' else 'u'}{size}")


def _meets(item: Instruction) -> str | None:
    words = item.op.split(".")
    return "warp" if words[:2] == ["bar", "warp"] else _MEETS.get(words[0])


def _lay_out(variables: list[Variable], places: dict[str, tuple[int, int]]) -> int:
    """Note each variable's offset and size; return the size of all."""
    at = 0
    for v in variables:
        at = -(-at // v.align) * v.align
        places[v.name] = (at, v.size)
        at += v.size
    return at
