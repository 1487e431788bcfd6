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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import warp as wp

from ngp_warp import loading
from ngp_warp.errors import ConfigError, ResourceError, ShapeError
from ngp_warp.threads import MAX_THREADS, num_threads, pool, set_num_threads

__all__ = [
    "CPU_COMPILER_FLAGS",
    "MAX_THREADS",
    "Call",
    "Launch",
    "Stages",
    "beside",
    "check_size",
    "free_memory",
    "in_turn",
    "init",
    "launch",
    "module_options",
    "num_threads",
    "record",
    "resolve_device",
    "run_all",
    "run_stages",
    "set_num_threads",
    "spread",
]

# CPU kernels are compiled for this machine's full vectors. Clang prefers half of AVX-512's width
# and forms no fused multiply-add unless told to: together a factor of 2.8 in the network
# (measured).
CPU_COMPILER_FLAGS = "-march=native -mprefer-vector-width=512 -ffp-contract=fast"

# More shards than threads even out a core that something else is using; each costs about 4 us.
_SHARDS_PER_THREAD = 2


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
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile())
            saved = os.dup(2)
        except OSError:  # no room anywhere, or stderr is closed and nothing is printed there
            yield
            return
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
    """Return the options of every kernel module.

    Adjoints are hand-written, CPU vectors full width; on CUDA a thread has one item, not a loop.
    """
    return {
        "enable_backward": False,
        "cpu_compiler_flags": CPU_COMPILER_FLAGS,
        "default_grid_stride": False,
    }


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
    parts: "Stages" = field(default_factory=list, repr=False)
    """The stages that its command runs; see ``beside``."""

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


def spread(n_items: int, device: str, lanes: int = 1) -> int:
    """Return the threads of a CUDA block for items that take long, each another time.

    So few that every multiprocessor has four blocks, a warp for each of its schedulers, where there
    are enough items. Fewer than 32 fill no warp: its lanes would wait for each other.

    Args:
        n_items: of the launch.
        device: "cpu" or a CUDA device.
        lanes: items that work together, a power of two: their warp is not parted.
    """
    if device == "cpu":
        return 256  # means nothing there
    items = n_items // (4 * wp.get_device(device).sm_count)
    return min(max(1 << items.bit_length() >> 1, 8, lanes), 64)


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
    """Run several launches that do not depend on each other, side by side on a CPU.

    On CUDA they run one after another; in a graph side by side (``recording``).
    """
    commands = [command for item in launches for command in item.commands]
    if not commands:
        return
    if launches[0].device != "cpu" or num_threads() == 1 or len(commands) == 1:
        for command in commands:
            command.launch()
        return
    pool().run(commands)


def run_stages(stages: Stages) -> None:
    """Run stages one after another."""
    for stage in stages:
        run_all(stage)


def beside(branches: Sequence[Stages], device: str) -> Stages:
    """Return stages in which the branches may run side by side, each one stage after another.

    In a CUDA graph they do. On a CPU, where each stage has all cores, and where a graph cannot hold
    one of them, they run one after another.

    Args:
        branches: none reads or writes what another one writes.
        device: "cpu" or a CUDA device.
    """
    branches = [branch for branch in branches if branch]
    stages = [stage for branch in branches for stage in branch]
    capturable = all(i.capturable and i.device == device for stage in stages for i in stage)
    if device == "cpu" or not capturable or len(branches) < 2:
        return stages
    return [[_sequence(branch, device) for branch in branches]]


def _sequence(stages: Stages, device: str) -> Launch:
    return Launch([Call(lambda: run_stages(stages))], device, parts=stages)


def in_turn(stages: Stages) -> Stages:
    """Return the stages with those of branches after one another, as they run without a graph."""
    found: Stages = []
    for stage in stages:
        found += [[item for item in stage if not item.parts]]
        for item in stage:
            found += in_turn(item.parts)
    return [stage for stage in found if stage]


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
