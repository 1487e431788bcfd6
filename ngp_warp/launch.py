"""The one way to launch a kernel: every core of a CPU, or a CUDA device.

Warp runs a CPU kernel on one thread but releases the interpreter lock while it runs, so a launch is
split into shards that a pool of threads works off. A kernel that is launched here takes ``begin: int``
as its first argument and works on item ``begin + wp.tid()``. The law that makes results independent
of the number of threads: no two items of a launch may write one address (on a CPU, ``wp.atomic_add``
is not atomic between shards either).
"""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import warp as wp

from ngp_warp.errors import ConfigError, ResourceError

# CPU kernels are compiled for this machine's full vectors. Clang prefers half of AVX-512's width and
# forms no fused multiply-add unless told to: together a factor of 2.8 in the network (measured).
CPU_COMPILER_FLAGS = "-march=native -mprefer-vector-width=512 -ffp-contract=fast"

# More shards than threads even out a core that something else is using; each costs about 4 us.
_SHARDS_PER_THREAD = 2


def init() -> None:
    """Start Warp, silently unless ``NGP_WARP_LOG`` is set: its notes would go to stdout."""
    if "NGP_WARP_LOG" not in os.environ:
        wp.config.log_level = wp.LOG_WARNING
    wp.init()


def module_options() -> dict[str, Any]:
    """Return the options of every kernel module: adjoints are hand-written, vectors full width."""
    return {"enable_backward": False, "cpu_compiler_flags": CPU_COMPILER_FLAGS}


@dataclass
class Launch:
    """A recorded kernel launch, split into shards on a CPU; ``run`` repeats it.

    Array arguments are read at each run; scalars are those of the recording unless ``set`` changes
    them. Everything that changes with the step therefore lies in arrays.
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

    def set(self, index: int, value: Any) -> None:
        """Change argument ``index`` (0 is the first after ``begin``)."""
        for command in self.commands:
            command.set_param_at_index(index + 1, value)


def record(
    kernel: wp.Kernel,
    n_items: int,
    args: Sequence[Any],
    device: str,
    *,
    block_dim: int = 256,
    shards: int | None = None,
) -> Launch:
    """Record a launch of ``kernel`` over ``n_items`` items.

    Args:
        kernel: takes ``begin`` first, then ``args``.
        n_items: number of items; zero is allowed and does nothing.
        args: the other arguments, arrays on ``device``.
        device: "cpu" or a CUDA device.
        block_dim: threads of a CUDA block.
        shards: pieces on a CPU; by default two for each thread.
    """
    if n_items == 0:
        return Launch([], device)
    if device != "cpu":
        command = wp.launch(
            kernel, n_items, [0, *args], device=device, record_cmd=True, block_dim=block_dim
        )
        return Launch([command], device, arguments=args)
    wanted = shards if shards is not None else _SHARDS_PER_THREAD * num_threads()
    n_shards = 1 if num_threads() == 1 else min(n_items, wanted)
    bounds = [n_items * i // n_shards for i in range(n_shards + 1)]
    commands = [
        wp.launch(kernel, end - begin, [begin, *args], device="cpu", record_cmd=True)
        for begin, end in zip(bounds[:-1], bounds[1:], strict=True)
    ]
    return Launch(commands, device, arguments=args)


@dataclass(frozen=True)
class Call:
    """A command that is a function: launches of its own, or a copy between devices."""

    launch: Callable[[], None]


def launch(
    kernel: wp.Kernel, n_items: int, args: Sequence[Any], device: str, *, block_dim: int = 256
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


class _Pool:
    """Worker threads that, with the caller, work off a list of commands.

    concurrent.futures needs about twice the time for the same (33 us against 17 us a launch).
    """

    def __init__(self, n_threads: int):
        self.n_threads = n_threads
        self._queue: Any = iter(())
        self._start = [threading.Lock() for _ in range(n_threads - 1)]
        self._done = [threading.Lock() for _ in range(n_threads - 1)]
        self._stopped = False
        self._error: BaseException | None = None
        for lock in (*self._start, *self._done):
            lock.acquire()
        for start, done in zip(self._start, self._done, strict=True):
            threading.Thread(target=self._work, args=(start, done), daemon=True).start()

    def run(self, commands: Sequence[Any]) -> None:
        self._queue = iter(commands)
        n_helpers = min(len(self._start), len(commands) - 1)
        for start in self._start[:n_helpers]:
            start.release()
        try:
            self._drain()
        finally:
            for done in self._done[:n_helpers]:
                done.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def stop(self) -> None:
        self._stopped = True
        for start in self._start:
            start.release()

    def _drain(self) -> None:
        for command in self._queue:
            command.launch()

    def _work(self, start: threading.Lock, done: threading.Lock) -> None:
        while True:
            start.acquire()
            if self._stopped:
                return
            try:
                self._drain()
            except BaseException as error:
                self._error = error
            finally:
                done.release()


_state: dict[str, Any] = {"n_threads": None, "pool": None}


def num_threads() -> int:
    """Return the number of CPU threads of a launch (``NGP_NUM_THREADS``, else every core)."""
    if _state["n_threads"] is None:
        set_num_threads(_threads_from_environment())
    return _state["n_threads"]


def set_num_threads(n: int | None) -> None:
    """Set the number of CPU threads; None: ``NGP_NUM_THREADS``, else every core.

    Launches recorded before keep their shards and stay right.

    Raises:
        ConfigError: less than 1.
    """
    if n is None:
        n = _threads_from_environment()
    if n < 1:
        raise ConfigError(f"threads must be at least 1, got {n}")
    if _state["pool"] is not None and _state["pool"].n_threads != n:
        _state["pool"].stop()
        _state["pool"] = None
    _state["n_threads"] = n


def _threads_from_environment() -> int:
    text = os.environ.get("NGP_NUM_THREADS", "")
    if not text:
        affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"NGP_NUM_THREADS must be a whole number of at least 1, got {text!r}")
    return int(text)


def _pool() -> _Pool:
    if _state["pool"] is None:
        _state["pool"] = _Pool(num_threads())
    return _state["pool"]


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
    if not name.startswith("cuda") or not ordinal.isdigit():
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if int(ordinal) >= n_cuda:
        raise ResourceError(
            f"device {name} is not there: Warp finds {n_cuda} CUDA devices; use cpu"
        )
    return f"cuda:{ordinal}"
