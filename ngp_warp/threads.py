"""The threads of a CPU's launches: how many there are, and the pool that works off commands."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ngp_warp.errors import ConfigError
from ngp_warp.processes import place

MAX_THREADS = 1024


class Pool:
    """Worker threads that, with the caller, work off a list of commands.

    concurrent.futures needs about twice the time for the same (33 us against 17 us a launch).
    """

    def __init__(self, n_threads: int):
        self.n_threads = n_threads
        self._queue: Any = iter(())
        self._start = [threading.Lock() for _ in range(n_threads - 1)]
        self._done = [threading.Lock() for _ in range(n_threads - 1)]
        self._working = [False] * (n_threads - 1)
        self._stopped = False
        self._error: BaseException | None = None
        self._busy = threading.Lock()
        for lock in (*self._start, *self._done):
            lock.acquire()
        for number in range(n_threads - 1):
            threading.Thread(target=self._work, args=(number,), daemon=True).start()

    def run(self, commands: Sequence[Any]) -> None:
        """Run commands that do not depend on each other; returns when all have ended.

        Raises what one of them has raised.
        """
        if not self._busy.acquire(blocking=False):
            # the pool works for another thread, or for the command that called this
            for command in commands:
                command.launch()
            return
        try:
            self._run(commands)
        except Exception:
            raise
        except BaseException:
            # Ctrl-C while helpers still worked: what they report counts for nothing.
            self._settle()
            _discard(self)
            raise
        finally:
            self._busy.release()

    def _run(self, commands: Sequence[Any]) -> None:
        self._queue, self._error = iter(commands), None
        n_helpers = min(len(self._start), len(commands) - 1)
        for start in self._start[:n_helpers]:
            start.release()
        try:
            self._drain()
        finally:
            for done in self._done[:n_helpers]:
                done.acquire()
        if self._error is not None:
            raise self._error

    def _settle(self) -> None:
        """Wait for the helpers, whatever interrupts: their arrays may be freed soon."""
        self._queue = iter(())  # one that only wakes up later finds nothing
        while any(self._working):
            with contextlib.suppress(BaseException):
                time.sleep(1e-3)

    def stop(self) -> None:
        """End the threads once they have nothing to do."""
        self._stopped = True
        for start in self._start:
            with contextlib.suppress(RuntimeError):  # released before, and not yet seen
                start.release()

    def _drain(self) -> None:
        for command in self._queue:
            command.launch()

    def _work(self, number: int) -> None:
        while True:
            self._start[number].acquire()
            if self._stopped:
                return
            self._working[number] = True
            try:
                self._drain()
            except BaseException as error:
                self._error = error
            finally:
                self._working[number] = False
                self._done[number].release()


_state: dict[str, Any] = {"n_threads": None, "pool": None}


def num_threads() -> int:
    """Return the number of CPU threads of a launch.

    ``NGP_NUM_THREADS``, else every core; processes that torchrun has started share the cores.
    """
    n: int | None = _state["n_threads"]
    if n is None:
        n = _threads_from_environment()
        set_num_threads(n)
    return n


def set_num_threads(n: int | None) -> None:
    """Set the number of CPU threads; None: ``NGP_NUM_THREADS``, else every core.

    Launches recorded before keep their shards and stay right.

    Raises:
        ConfigError: less than 1, or more than MAX_THREADS.
    """
    if n is None:
        n = _threads_from_environment()
    if not 1 <= n <= MAX_THREADS:
        raise ConfigError(f"threads must be at least 1 and at most {MAX_THREADS}, got {n}")
    if _state["pool"] is not None and _state["pool"].n_threads != n:
        _discard(_state["pool"])
    _state["n_threads"] = n


def _threads_from_environment() -> int:
    text = os.environ.get("NGP_NUM_THREADS", "")
    if not text:
        affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
        n_cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        return max(n_cores // place().local_size, 1)
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"NGP_NUM_THREADS must be a whole number of at least 1, got {text!r}")
    return int(text)


def pool() -> Pool:
    """Return the threads that work off launches; they are started by the first."""
    if _state["pool"] is None:
        _state["pool"] = Pool(num_threads())
    return _state["pool"]


if hasattr(os, "register_at_fork"):
    # a forked process has the pool, but none of its threads, and would wait for them
    os.register_at_fork(after_in_child=lambda: _state.update(pool=None))


def _discard(pool: Pool) -> None:
    """Stop a pool; the next launch makes another."""
    pool.stop()
    if _state["pool"] is pool:
        _state["pool"] = None
