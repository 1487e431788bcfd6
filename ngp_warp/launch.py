"""The one way to launch a kernel: every core of a CPU, or a CUDA device.

Warp runs a CPU kernel on one thread but releases the interpreter lock while it runs, so a launch is
split into shards that a pool of threads works off. A kernel that is launched here takes
``begin: int`` as its first argument and works on item ``begin + wp.tid()``. The law that makes
results independent of the number of threads: no two items of a launch may write one address (on a
CPU, ``wp.atomic_add`` is not atomic between shards either).
"""

import contextlib
import functools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import warp as wp

from ngp_warp import loading
from ngp_warp.errors import ConfigError, ResourceError, ShapeError
from ngp_warp.processes import place

# CPU kernels are compiled for this machine's full vectors. Clang prefers half of AVX-512's width
# and forms no fused multiply-add unless told to: together a factor of 2.8 in the network
# (measured).
CPU_COMPILER_FLAGS = "-march=native -mprefer-vector-width=512 -ffp-contract=fast"

# More shards than threads even out a core that something else is using; each costs about 4 us.
_SHARDS_PER_THREAD = 2

MAX_THREADS = 1024


@functools.cache
def init() -> None:
    """Start Warp, silently unless ``NGP_WARP_LOG`` is set: its notes would go to stdout."""
    if "NGP_WARP_LOG" in os.environ:
        wp.init()
        return
    wp.config.log_level = wp.LOG_WARNING
    with _without_line(b"Could not find or load the NVIDIA CUDA driver"):
        wp.init()


@contextlib.contextmanager
def _without_line(unwanted: bytes) -> Iterator[None]:
    """Keep lines that hold ``unwanted`` from stderr: native code that cannot be told to be quiet.

    A machine without a GPU is nothing to be warned of at every start.
    """
    try:
        saved = os.dup(2)
    except OSError:  # closed: nothing is printed there
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            for line in file:
                if unwanted not in line:
                    os.write(2, line)


def module_options() -> dict[str, Any]:
    """Return the options of every kernel module: adjoints are hand-written, vectors full width."""
    return {"enable_backward": False, "cpu_compiler_flags": CPU_COMPILER_FLAGS}


def check_size(name: str, array: wp.array | None, size: int, device: str) -> None:
    """Raise unless an array has ``size`` values on ``device``: kernels do not look.

    Raises:
        ShapeError: names the array, what is wanted and what it is.
    """
    if array is None:
        raise ShapeError(f"{name} must have {size} values, got none")
    if array.size != size:
        raise ShapeError(f"{name} must have {size} values, got {array.size}")
    if str(array.device) != device:
        raise ShapeError(f"{name} must be on {device}, got {array.device}")


@dataclass
class Launch:
    """A recorded kernel launch, split into shards on a CPU; ``run`` repeats it.

    Array arguments are read at each run; scalars are those of the recording. Everything that
    changes with the step therefore lies in arrays.
    """

    commands: list[Any] = field(repr=False)
    device: str
    capturable: bool = True
    """Whether a CUDA graph may hold it."""
    arguments: Sequence[Any] = field(default=(), repr=False)
    """Held so that no array is freed while it may be run."""

    def run(self) -> None:
        """Launch; returns when the work is done on a CPU, when it is queued on CUDA."""
        run_all([self])


Stages = list[list[Launch]]
"""Launches that may run side by side, one list after another."""


def record(
    kernel: Any,
    n_items: int,
    args: Sequence[Any],
    device: str,
    *,
    block_dim: int = 256,
    shards: int | None = None,
) -> Launch:
    """Record a launch of ``kernel`` over ``n_items`` items.

    Args:
        kernel: a Warp kernel (to type checkers a function); takes ``begin`` first, then ``args``.
        n_items: number of items; zero is allowed and does nothing.
        args: the other arguments, arrays on ``device``.
        device: "cpu" or a CUDA device.
        block_dim: threads of a CUDA block.
        shards: pieces on a CPU; by default two for each thread.
    """
    if n_items == 0:
        return Launch([], device)
    args = list(args)  # read later, where modules are loaded together
    if device != "cpu":

        def on_cuda() -> list[Any]:
            given = [0, *args]
            options = {"device": device, "record_cmd": True, "block_dim": block_dim}
            return [wp.launch(kernel, n_items, given, **options)]

        made = loading.commands(kernel.module, device, block_dim, on_cuda)
        return Launch(made, device, arguments=args)

    def on_cpu() -> list[Any]:
        wanted = shards if shards is not None else _SHARDS_PER_THREAD * num_threads()
        n_shards = 1 if num_threads() == 1 else min(n_items, wanted)
        bounds = [n_items * i // n_shards for i in range(n_shards + 1)]
        return [
            wp.launch(kernel, end - begin, [begin, *args], device="cpu", record_cmd=True)
            for begin, end in pairwise(bounds)
        ]

    made = loading.commands(kernel.module, device, None, on_cpu)
    return Launch(made, device, arguments=args)


@dataclass(frozen=True)
class Call:
    """A command that is a function: launches of its own, or a copy between devices."""

    launch: Callable[[], None]


def launch(
    kernel: Any, n_items: int, args: Sequence[Any], device: str, *, block_dim: int = 256
) -> None:
    """Launch ``kernel`` once; see ``record``."""
    record(kernel, n_items, args, device, block_dim=block_dim).run()


def run_all(launches: Sequence[Launch]) -> None:
    """Run several launches that do not depend on each other, side by side on a CPU."""
    commands = [command for item in launches for command in item.commands]
    if not commands:
        return
    if launches[0].device != "cpu" or num_threads() == 1 or len(commands) == 1:
        for command in commands:
            command.launch()
        return
    _pool().run(commands)


def run_stages(stages: Stages) -> None:
    """Run stages one after another."""
    for stage in stages:
        run_all(stage)


class _Pool:
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


def _pool() -> _Pool:
    if _state["pool"] is None:
        _state["pool"] = _Pool(num_threads())
    return _state["pool"]


if hasattr(os, "register_at_fork"):
    # a forked process has the pool, but none of its threads, and would wait for them
    os.register_at_fork(after_in_child=lambda: _state.update(pool=None))


def _discard(pool: _Pool) -> None:
    """End the threads of a pool once they have nothing to do; the next launch makes another."""
    pool.stop()
    if _state["pool"] is pool:
        _state["pool"] = None


def resolve_device(name: str | None) -> str:
    """Return "cpu" or "cuda:N" for "auto", "cpu", "cuda" or "cuda:N" (None: auto).

    Raises:
        ConfigError: another name.
        ResourceError: a CUDA device that is not there.
    """
    name = name or "auto"
    init()
    n_cuda = wp.get_cuda_device_count()
    if name == "auto":
        return "cuda:0" if n_cuda else "cpu"
    if name == "cpu":
        return name
    ordinal = name.removeprefix("cuda").removeprefix(":") or "0"
    if not name.startswith("cuda") or not ordinal.isdecimal():
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if int(ordinal) >= n_cuda:
        raise ResourceError(
            f"device {name} is not there: Warp finds {n_cuda} CUDA devices; use cpu"
        )
    return f"cuda:{ordinal}"


def free_memory(device: str) -> int:
    """Return the free memory of a CUDA device in bytes."""
    return wp.get_device(device).free_memory
