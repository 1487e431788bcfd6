"""Races: two threads of a launch at one place of memory, one of them writing.

On a GPU the result would depend on their order. Atomic operations among themselves race with
nobody, nor does a thread that writes what is there already (a mark that all set). Places are
compared by an access's first byte, so that accesses of different sizes are missed. In shared memory
two warps race that have not met in between; lanes of a warp are taken to wait for each other.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tests.emulator.variables import PtxError

_NOBODY, _MANY = -1, -2


class Memory(Protocol):
    """Bytes that threads may use: an allocation, or blocks' shared memory."""

    @property
    def base(self) -> int:
        """Tell it from other ones."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...


class Races:
    """Who has done what, of one launch.

    Args:
        unit: threads that count as one: those of a warp, or of a block, where the kernel lets them
            meet, for they may then hand values on in memory.
    """

    def __init__(self, unit: int):
        self._unit = unit
        self._notes: dict[tuple[int, str], np.ndarray] = {}

    def _who(self, region: Memory, what: str) -> np.ndarray:
        key = (region.base, what)
        if key not in self._notes:
            self._notes[key] = np.full(region.size + 16, _NOBODY, np.int32)
        return self._notes[key]

    def notes(self) -> list[np.ndarray]:
        """Return what is noted, of each byte."""
        return list(self._notes.values())

    def read(self, region: Memory, place: np.ndarray, thread: np.ndarray) -> None:
        """Note that threads read, each at a byte of a region.

        Raises:
            PtxError: another one has written there.
        """
        thread = thread // self._unit
        for what in ("write", "add"):
            self._check(region, place, thread, what, "reads what")
        self._note(region, place, thread, "read")

    def write(
        self,
        region: Memory,
        place: np.ndarray,
        thread: np.ndarray,
        there: np.ndarray,
        bits: np.ndarray,
    ) -> None:
        """Note that threads write ``bits`` over what is ``there``.

        Raises:
            PtxError: another one has read, written or added there.
        """
        thread, bits = thread // self._unit, np.broadcast_to(bits, place.shape)
        changes = there != bits
        for what in ("write", "add", "read"):
            self._check(region, place[changes], thread[changes], what, "writes where")
        order = np.argsort(place, kind="stable")
        same = place[order][1:] == place[order][:-1]
        other = thread[order][1:] != thread[order][:-1]
        bad = same & other & (bits[order][1:] != bits[order][:-1])
        if bad.any():
            at = int(place[order][1:][np.flatnonzero(bad)[0]])
            raise PtxError(f"a race: two threads write at byte {at} at once")
        self._note(region, place[changes], thread[changes], "write")

    def add(self, region: Memory, place: np.ndarray, thread: np.ndarray) -> None:
        """Note an atomic operation.

        Raises:
            PtxError: another thread has read or written there without one.
        """
        thread = thread // self._unit
        for what in ("write", "read"):
            self._check(region, place, thread, what, "adds where")
        self._note(region, place, thread, "add")

    def _check(
        self, region: Memory, place: np.ndarray, thread: np.ndarray, what: str, does: str
    ) -> None:
        who = self._who(region, what)[place]
        bad = np.flatnonzero((who != _NOBODY) & (who != thread))
        if bad.size:
            first = bad[0]
            other = "many" if who[first] == _MANY else int(who[first])
            raise PtxError(
                f"a race: thread {int(thread[first])} {does} thread {other} has done a {what}, "
                f"at byte {int(place[first])} of {region.size}"
            )

    def _note(self, region: Memory, place: np.ndarray, thread: np.ndarray, what: str) -> None:
        who = self._who(region, what)
        before = who[place]
        who[place] = np.where((before == _NOBODY) | (before == thread), thread, _MANY)
        # of several threads at one place only the last is left there
        who[place[who[place] != thread]] = _MANY


@dataclass(frozen=True)
class Shared:
    """The shared memory of blocks that run side by side, and what their warps do there.

    Attributes:
        size: bytes of all.
        each: bytes of a block.
    """

    size: int
    each: int
    base: int = -1
    races: Races = field(default_factory=lambda: Races(32))

    def meet(self, blocks: np.ndarray) -> None:
        """Note that each block's threads have met, and may use what others have written."""
        for notes in self.races.notes():
            notes[: self.size].reshape(-1, self.each)[np.unique(blocks)] = _NOBODY
