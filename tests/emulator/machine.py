"""Threads: all of some blocks at once, each with registers of its own and a place in the code.

The threads that are at the earliest place run, to the end of its straight piece of code; those of
a branch not taken wait at theirs. Where an instruction wants all lanes of a warp, or all threads of
a block, it waits for them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.emulator.memory import Access, GlobalMemory
from tests.emulator.races import Races, Shared
from tests.emulator.traffic import Traffic
from tests.emulator.variables import PtxError

WARP = 32
_THREADS_AT_ONCE, _BYTES_AT_ONCE = 1 << 14, 1 << 26
"""Threads that run side by side, and the bytes of their registers, at most."""
_NOWHERE = np.iinfo(np.int32).max
_GARBAGE = 0xAA
"""What registers, shared and local memory hold before they are written."""


@dataclass(frozen=True)
class Grid:
    """Blocks and threads of a launch."""

    blocks: tuple[int, int, int]
    block_dim: int


class Threads:
    """The state of some blocks' threads.

    Args:
        program: what they run.
        count: blocks.
        block_dim: threads of each.

    Attributes:
        n: threads, whole blocks of them.
        arrays: of a program's registers, each under each type that instructions use.
        special: the special registers.
        params: the launch's parameters, the same bytes for all.
        access: to global memory.
        first: the first thread's number in the launch.
        block: each thread's block, counted from 0 in this state.
    """

    params: np.ndarray
    access: Access
    first: int

    def __init__(self, program: Any, count: int, block_dim: int):
        self.n, self.block_dim = count * block_dim, block_dim
        self.block = np.repeat(np.arange(count), block_dim)
        thread = np.tile(np.arange(block_dim, dtype=np.uint32), count)
        zeros, ones = np.zeros(self.n, np.uint32), np.ones(self.n, np.uint32)
        self.special = {
            "%tid.x": thread, "%tid.y": zeros, "%tid.z": zeros,
            "%ntid.x": ones * np.uint32(block_dim), "%ntid.y": ones, "%ntid.z": ones,
            "%laneid": thread % WARP, "%warpid": thread // WARP,
        }  # fmt: skip
        self.bits = [_garbage(self.n, size) for size in program.register_sizes]
        self.arrays = [self.bits[slot].view(dtype) for slot, dtype in program.register_views]
        self.local = _garbage(self.n * program.local_size, 1)
        self.local_size = program.local_size
        self.shared = _garbage(count * program.shared_size, 1)
        self.shared_size = program.shared_size
        self.all = np.arange(self.n)

    def begin(self, grid: Grid, first: int, params: np.ndarray, access: Access) -> None:
        """Be a grid's blocks from number ``first`` on; registers keep what they have."""
        self.params, self.access, self.first = params, access, first * self.block_dim
        number = (first + self.block).astype(np.uint32)
        nx, ny, _ = (np.uint32(n) for n in grid.blocks)
        for axis, n in zip("xyz", grid.blocks, strict=True):
            self.special[f"%nctaid.{axis}"] = np.full(self.n, n, np.uint32)
        self.special["%ctaid.x"] = number % nx
        self.special["%ctaid.y"] = number // nx % ny
        self.special["%ctaid.z"] = number // (nx * ny)


def _garbage(n: int, size: int) -> np.ndarray:
    return np.full(n * size, _GARBAGE, np.uint8).view(f"u{size}")


def launch(
    program: Any,
    grid: Grid,
    params: np.ndarray,
    memory: GlobalMemory,
    *,
    foreign: bool = False,
    races: bool = False,
    traffic: Traffic | None = None,
) -> None:
    """Run a kernel.

    Args:
        program: of ``program.Program``.
        grid: its blocks.
        params: the parameters' bytes.
        memory: what it may use.
        foreign: whether Warp's native allocations may be used too.
        races: look for races.
        traffic: counts what is asked of a GPU.

    Raises:
        PtxError: what a GPU would not have done, or a race.
    """
    n_blocks = grid.blocks[0] * grid.blocks[1] * grid.blocks[2]
    room = max(_BYTES_AT_ONCE // (sum(program.register_sizes) + 1), grid.block_dim)
    at_once = min(max(min(_THREADS_AT_ONCE, room) // grid.block_dim, 1), n_blocks)
    meets = {p.meets for p in program.pieces}
    if "warp" in meets and grid.block_dim % WARP:
        raise PtxError(f"{program.name}: blocks of {grid.block_dim} threads, not of whole warps")
    together = grid.block_dim if "block" in meets else WARP if "warp" in meets else 1
    looks = Races(together) if races else None
    access = Access(memory, foreign, looks, traffic)
    with np.errstate(all="ignore"):
        for first in range(0, n_blocks, at_once):
            count = min(at_once, n_blocks - first)
            key = (count, grid.block_dim)
            if key not in program.states:
                program.states.clear()
                program.states[key] = Threads(program, *key)
            threads = program.states[key]
            threads.begin(grid, first, params, access)
            if races and program.shared_size:
                access.shared = Shared(count * program.shared_size, program.shared_size)
            _run(program, threads)


def _run(program: Any, threads: Threads) -> None:
    pieces = program.pieces
    end = len(pieces)
    at = np.zeros(threads.n, np.int32)
    held = np.full(threads.n, _NOWHERE, np.int32)
    while True:
        place = int(at.min())
        if place >= end:
            if not _release(program, threads, at, held):
                return
            continue
        group: np.ndarray | None = np.flatnonzero(at == place)
        piece = pieces[place]
        if piece.meets:
            group = _met(piece, threads, at, held, place)
            at[held == place] = _NOWHERE
            if not group.size:
                continue
        if len(group) == threads.n:
            group = None
        if threads.access.traffic is not None:
            n_steps = len(piece.steps) + (piece.leave is not None)
            threads.access.traffic.note_instructions(threads.n, group, n_steps)
        try:
            for step in piece.steps:
                step(threads, group)
            target = piece.leave(threads, group) if piece.leave else place + 1
        except PtxError as error:
            raise PtxError(f"{program.name}: {error}\n{piece.text()}") from None
        at[slice(None) if group is None else group] = target


def _met(piece: Any, threads: Threads, at: np.ndarray, held: np.ndarray, place: int) -> np.ndarray:
    """Return the threads at a place for which all are there that it wants; the others are held."""
    arrived = (at == place) | (held == place)
    if piece.meets == "block":
        units = (arrived | (at == len(piece.program.pieces))).reshape(-1, threads.block_dim)
    else:
        units = arrived.reshape(-1, WARP)
    whole = np.repeat(units.all(axis=1), units.shape[1]) & arrived
    held[arrived] = place
    held[whole] = _NOWHERE
    return np.flatnonzero(whole)


def _release(program: Any, threads: Threads, at: np.ndarray, held: np.ndarray) -> bool:
    """Let threads go that were waiting for some that have ended; False: all have ended.

    Raises:
        PtxError: threads wait for what will never come.
    """
    waiting = held != _NOWHERE
    if not waiting.any():
        return False
    for place in sorted(set(held[waiting].tolist())):
        group = _met(program.pieces[place], threads, at, held, place)
        at[group] = place
        if group.size:
            return True
    places = sorted(set(held[waiting].tolist()))
    lines = "\n".join(program.pieces[p].text() for p in places)
    some = np.flatnonzero(waiting)[:8].tolist()
    raise PtxError(
        f"{program.name}: threads {some} ... wait for others that have ended or branched:\n{lines}"
    )
