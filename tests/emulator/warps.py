"""Instructions that the lanes of a warp carry out together."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.emulator.accesses import Place
from tests.emulator.text import parts_of
from tests.emulator.variables import PtxError

Step = Callable[[Any, Any], None]

_WORD, _HALF, _SINGLE = np.dtype(np.uint32), np.dtype(np.float16), np.dtype(np.float32)
_LANES = np.arange(32)


def decode(program: Any, words: list[str], operands: list[str]) -> Step | None:
    """Return the function of an instruction for which a warp or a block meets; None: another one.

    Raises:
        PtxError: it is not emulated.
    """
    function = {"shfl": _shuffle, "vote": _vote, "match": _match, "redux": _reduce,
                "mma": _mma, "movmatrix": _transpose, "ldmatrix": _load_matrices,
                "bar": _barrier, "barrier": _barrier}.get(words[0])  # fmt: skip
    return function(program, words, operands) if function else None


def _barrier(program: Any, words: list[str], operands: list[str]) -> Step:
    """Nothing but the meeting, of all lanes or of all threads."""
    if words == ["bar", "warp", "sync"]:
        mask = program.reads(operands[0], _WORD)
        return lambda t, ix: _check_mask(mask(t, ix))
    if words not in (["bar", "sync"], ["barrier", "sync"], ["barrier", "sync", "aligned"]):
        raise PtxError("not emulated")
    if len(operands) != 1:
        raise PtxError("a barrier for some threads is not emulated")

    def meet(t: Any, ix: Any) -> None:
        if t.access.shared is not None:
            t.access.shared.meet(t.block[t.all if ix is None else ix])

    return meet


def _warps(values: np.ndarray, t: Any, ix: Any) -> np.ndarray:
    """Return [n_warps, 32] of each thread's value; the threads are whole warps."""
    n = t.n if ix is None else len(ix)
    return np.broadcast_to(values, (n,)).reshape(-1, 32)


def _check_mask(mask: np.ndarray) -> None:
    if not np.all(mask == 0xFFFFFFFF):
        raise PtxError("a mask of some lanes is not emulated")


def _shuffle(program: Any, words: list[str], operands: list[str]) -> Step:
    if words[1:] not in [["sync", mode, "b32"] for mode in ("up", "down", "bfly", "idx")]:
        raise PtxError("not emulated")
    mode = words[2]
    to, _, predicate = operands[0].partition("|")
    write = program.writes(to, _WORD)
    note = program.writes(predicate or "_", np.dtype(bool))
    value, lane, clamp, mask = (program.reads(o, _WORD) for o in operands[1:])

    def step(t: Any, ix: Any) -> None:
        _check_mask(mask(t, ix))
        v, b, c = (_warps(r(t, ix), t, ix).astype(np.int64) for r in (value, lane, clamp))
        b, segment = b & 31, (c >> 8) & 31
        clamped = c & 31
        least = _LANES & segment
        most = least | (clamped & ~segment)
        if mode == "up":
            source = _LANES - b
            inside = source >= most
        elif mode == "down":
            source = _LANES + b
            inside = source <= most
        elif mode == "bfly":
            source = _LANES ^ b
            inside = source <= most
        else:
            source = least | (b & ~segment)
            inside = source <= most
        source = np.where(inside, source, _LANES)
        found = np.take_along_axis(v, source, axis=1)
        write(t, ix, found.reshape(-1).astype(_WORD))
        note(t, ix, inside.reshape(-1))

    return step


def _vote(program: Any, words: list[str], operands: list[str]) -> Step:
    if words[1] != "sync" or words[2] not in ("ballot", "all", "any", "uni"):
        raise PtxError("not emulated")
    mode, truth = words[2], np.dtype(bool)
    negated = operands[1].startswith("!")
    read = program.reads(operands[1].lstrip("!"), truth)
    mask = program.reads(operands[2], _WORD)
    write = program.writes(operands[0], _WORD if mode == "ballot" else truth)

    def step(t: Any, ix: Any) -> None:
        _check_mask(mask(t, ix))
        p = _warps(read(t, ix) != negated, t, ix)
        if mode == "ballot":
            bits = (p.astype(np.uint64) << _LANES.astype(np.uint64)).sum(axis=1).astype(_WORD)
        elif mode in ("all", "any"):
            bits = p.all(axis=1) if mode == "all" else p.any(axis=1)
        else:
            bits = (p == p[:, :1]).all(axis=1)
        write(t, ix, np.repeat(bits, 32))

    return step


def _match(program: Any, words: list[str], operands: list[str]) -> Step:
    """A bit for each lane that has the same value."""
    if words[1:] != ["any", "sync", "b32"]:
        raise PtxError("not emulated")
    write = program.writes(operands[0], _WORD)
    value, mask = (program.reads(o, _WORD) for o in operands[1:])

    def step(t: Any, ix: Any) -> None:
        _check_mask(mask(t, ix))
        v = _warps(value(t, ix), t, ix)
        same = (v[:, :, None] == v[:, None, :]).astype(np.uint64)
        write(t, ix, (same << _LANES.astype(np.uint64)).sum(axis=2).astype(_WORD).reshape(-1))

    return step


def _reduce(program: Any, words: list[str], operands: list[str]) -> Step:
    """Tell every lane the least of the warp's values."""
    if words[1:] != ["sync", "min", "u32"]:
        raise PtxError("not emulated")
    value, mask = (program.reads(o, _WORD) for o in operands[1:])
    write = program.writes(operands[0], _WORD)

    def step(t: Any, ix: Any) -> None:
        _check_mask(mask(t, ix))
        write(t, ix, np.repeat(_warps(value(t, ix), t, ix).min(axis=1), 32))

    return step


# Of lane 4 g + q: row or column g, and twice q.
_G, _Q = _LANES // 4, _LANES % 4 * 2


def _mma(program: Any, words: list[str], operands: list[str]) -> Step:
    """c + a b of 16x16 and 16x8 halves, the sums in float32."""
    if words[1:] != ["sync", "aligned", "m16n8k16", "row", "col", "f32", "f16", "f16", "f32"]:
        raise PtxError("this shape or type is not emulated")
    d, a, b, c = (parts_of(o) for o in operands)
    writes = [program.writes(o, _SINGLE) for o in d]
    reads_a = [program.reads(o, _WORD) for o in a]
    reads_b = [program.reads(o, _WORD) for o in b]
    reads_c = [program.reads(o, _SINGLE) for o in c]

    def halves(read: Any, t: Any, ix: Any) -> np.ndarray:
        words = np.ascontiguousarray(_warps(read(t, ix), t, ix))
        return words.view(_HALF).reshape(-1, 32, 2)

    def step(t: Any, ix: Any) -> None:
        n = (t.n if ix is None else len(ix)) // 32
        # in float64, where the sums of products of halves hardly depend on their order
        left, right = np.empty((n, 16, 16)), np.empty((n, 16, 8))
        for i, read in enumerate(reads_a):
            v = halves(read, t, ix)
            rows, columns = _G + 8 * (i % 2), _Q + 8 * (i // 2)
            left[:, rows, columns], left[:, rows, columns + 1] = v[..., 0], v[..., 1]
        for i, read in enumerate(reads_b):
            v = halves(read, t, ix)
            right[:, _Q + 8 * i, _G], right[:, _Q + 8 * i + 1, _G] = v[..., 0], v[..., 1]
        product = left @ right
        for i, (read, write) in enumerate(zip(reads_c, writes, strict=True)):
            own = product[:, _G + 8 * (i // 2), _Q + i % 2]
            write(t, ix, (_warps(read(t, ix), t, ix) + own).reshape(-1).astype(_SINGLE))

    return step


def _transpose(program: Any, words: list[str], operands: list[str]) -> Step:
    """The transpose of an 8x8 matrix of halves, one row in four lanes."""
    if words[1:] != ["sync", "aligned", "m8n8", "trans", "b16"]:
        raise PtxError("this shape or type is not emulated")
    write, read = program.writes(operands[0], _WORD), program.reads(operands[1], _WORD)

    def step(t: Any, ix: Any) -> None:
        words = np.ascontiguousarray(_warps(read(t, ix), t, ix))
        matrix = words.view(np.uint16).reshape(-1, 8, 8)
        turned = np.ascontiguousarray(matrix.transpose(0, 2, 1))
        write(t, ix, turned.view(_WORD).reshape(-1))

    return step


def _load_matrices(program: Any, words: list[str], operands: list[str]) -> Step:
    """Four 8x8 matrices of halves from shared memory, whose rows are at the lanes' addresses."""
    turned = words[5] == "trans"
    kept = words[1:5] + words[6 if turned else 5 :]
    if kept != ["sync", "aligned", "m8n8", "x4", "shared", "b16"]:
        raise PtxError("this shape or type is not emulated")
    writes = [program.writes(o, _WORD) for o in parts_of(operands[0])]
    place = Place(program, words, operands[1])

    def step(t: Any, ix: Any) -> None:
        (view,) = place.views(t, ix, _WORD, 4, "read")
        rows = view.index[:, None] + np.arange(4)
        for k in range(4):
            view.note(t, "read", k)
        matrices = view.array[rows].view(np.uint16).reshape(-1, 4, 8, 8)
        if turned:
            matrices = matrices.transpose(0, 1, 3, 2)
        found = np.ascontiguousarray(matrices).view(_WORD).reshape(-1, 4, 32)
        for i, write in enumerate(writes):
            write(t, ix, found[:, i].reshape(-1))

    return step
