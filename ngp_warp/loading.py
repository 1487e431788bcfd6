"""Compiling and loading the modules of many recorded launches at once, for CUDA on every core.

Warp compiles a kernel's module where it is first recorded, one after another: a scene's step has
two dozen. Inside ``together`` launches are noted, and their modules are loaded side by side when
the first of them runs, or by ``load``.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import warp as wp

_local = threading.local()


class _Noted:
    """Modules that are wanted, and what makes the commands that need them."""

    def __init__(self, n_threads: int):
        self.n_threads = n_threads
        # in the order in which they were noted
        self._modules: dict[tuple[str, int | None], dict[Any, None]] = {}
        self._made: list[tuple[list[Any], Callable[[], list[Any]]]] = []
        self._lock = threading.RLock()

    def want(self, module: Any, device: str, block_dim: int | None) -> None:
        self._modules.setdefault((device, block_dim), {})[module] = None

    def note(self, commands: list[Any], make: Callable[[], list[Any]]) -> None:
        self._made.append((commands, make))

    def load(self) -> None:
        with self._lock:
            modules, self._modules = self._modules, {}
            for (device, block_dim), wanted in modules.items():
                # Two threads in LLVM take 1.6 times the time of one for the same (each makes a
                # precompiled header, and they wait for each other); two in NVRTC 1.1 times.
                n_threads = 1 if device == "cpu" else self.n_threads
                wp.force_load(device, list(wanted), block_dim=block_dim, max_workers=n_threads)
            made, self._made = self._made, []
            for commands, make in made:
                commands[:] = make()


class _Later:
    """Stands for the commands of a launch that is noted; running it loads all."""

    def __init__(self, noted: _Noted, commands: list[Any]):
        self._noted, self._commands = noted, commands

    def launch(self) -> None:
        self._noted.load()
        for command in self._commands:
            command.launch()


@contextlib.contextmanager
def together(n_threads: int) -> Iterator[None]:
    """Note what this thread records, and load the modules at the end, for CUDA on all threads."""
    if noted() is not None:
        yield
        return
    _local.noted = _Noted(n_threads)
    try:
        yield
        _local.noted.load()
    finally:
        _local.noted = None


def noted() -> _Noted | None:
    """Return what this thread has noted; None outside of ``together``."""
    return getattr(_local, "noted", None)


def load() -> None:
    """Load what this thread has noted so far; without it the first run does."""
    found = noted()
    if found is not None:
        found.load()


def want(module: Any, device: str, block_dim: int | None) -> None:
    """Load a module: now, or with the others that are noted.

    Args:
        module: Warp's.
        device: "cpu" or a CUDA device.
        block_dim: threads of a block; None: the device's default.
    """
    found = noted()
    if found is None:
        wp.force_load(device, [module], block_dim=block_dim)
    else:
        found.want(module, device, block_dim)


def commands(
    module: Any, device: str, block_dim: int | None, make: Callable[[], list[Any]]
) -> list[Any]:
    """Return the commands that ``make`` returns: now, or in their place what makes them later.

    Args:
        module: Warp's, which they need.
        device: "cpu" or a CUDA device.
        block_dim: threads of a block; None: the device's default.
        make: records them.
    """
    found = noted()
    if found is None:
        return make()
    found.want(module, device, block_dim)
    later: list[Any] = []
    later.append(_Later(found, later))
    found.note(later, make)
    return later
