"""Who the processes of a run are, and which of them have ended."""

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ngp_warp.errors import LostError

# A killed process is gone within milliseconds, one that raised while its interpreter ends.
_DEATH_SECONDS = 2.0
# Looking at a process of this machine takes some 20 us.
_LOOK_SECONDS = 0.1
# Its frames hold arrays, and to free page-locked memory is to wait for the device, which waits for
# the one that is gone: the process is to end with them.
_kept: list[LostError] = []


class Peers:
    """The processes of a run, as this one knows them.

    Args:
        processes: ``identity`` of each, by rank.
        rank: this one's.
        store: torch's, where it outlives every process; None: it does not.
    """

    def __init__(self, processes: Sequence[tuple[str, int]], rank: int, store: Any = None):
        self._processes, self._rank, self._store = processes, rank, store
        self._looked = 0.0

    def check(self) -> None:
        """Raise where one of this machine has ended; looks now and then, however often it is asked.

        Raises:
            LostError: says which one.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        if gone := self._gone():
            raise self._error(gone, "")

    def lost(self, text: str) -> LostError:
        """Return the error for an exchange that failed: who has ended, as far as that is known.

        Args:
            text: what torch.distributed says.
        """
        end = time.monotonic() + _DEATH_SECONDS
        while not (gone := self._gone()) and time.monotonic() < end:
            time.sleep(0.02)
        return self._error(gone, text)

    def _gone(self) -> list[int]:
        """Return those of this machine that have ended."""
        here = identity()[0]
        return [
            rank
            for rank, (where, pid) in enumerate(self._processes)
            if where == here and rank != self._rank and is_dead(pid)
        ]

    def _error(self, gone: list[int], text: str) -> LostError:
        n = len(self._processes)
        if gone:
            names = " and ".join(f"{rank} (pid {self._processes[rank][1]})" for rank in gone)
            verb = "process {} of {} has" if len(gone) == 1 else "processes {} of {} have"
            message = f"{verb.format(names, n)} ended unexpectedly"
        else:
            message = f"a process of {n} does not answer: {text.partition(chr(10))[0]}"
        error = LostError(message)
        error.said_here = self._is_first(gone)
        _kept.append(error)
        return error

    def _is_first(self, gone: list[int]) -> bool:
        """Whether no other process says what this one has noticed.

        Each notices it when its own neighbour in an exchange ends, be it for the same reason.
        """
        with suppress(RuntimeError):  # torchrun may be gone too
            if self._store is not None:
                return self._store.add("ngp-warp/lost", 1) == 1
        # all, where nobody knows who is left
        return not gone or min(set(range(len(self._processes))) - set(gone)) == self._rank


def last_lost() -> LostError | None:
    """Return the error that has ended this process's run; None: all others are there."""
    return _kept[-1] if _kept else None


def identity() -> tuple[str, int]:
    """Return where process ids mean the same, and this process's id."""
    where = socket.gethostname()
    # containers of several machines may have one name
    with suppress(OSError):
        where += Path("/proc/sys/kernel/random/boot_id").read_text()
        where += str(Path("/proc/self/ns/pid").readlink())
    return where, os.getpid()


def is_dead(pid: int) -> bool:
    """Whether a process of this machine has ended, or waits for its parent to take note of it."""
    with suppress(OSError, IndexError):
        # "pid (name) state ..."; Linux alone has it
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state in "ZX"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
