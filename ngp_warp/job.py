"""The inside of a job: its environment, its signals, its lock, what it says of its progress.

Signals: SIGTERM ends training after a save. If the one who started the jobs wants them to end, the
file ``stop`` in their folder says so; otherwise the machine is wanted for something else, or the
job's time is over (SIGUSR2 is submitit's signal for that), and submitit is asked to queue the job
again.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngp_warp.errors import NgpError, ResourceError
from ngp_warp.primitive import Progress

_SECONDS_BETWEEN_REPORTS = 1.0
_SECONDS_FOR_A_LOCK = 10.0  # a job that was killed takes a moment to be gone


def stop_path(folder: Path) -> Path:
    """Return the file that tells the jobs of a folder to end for good."""
    return folder / "stop"


def state_path(folder: Path, name: str) -> Path:
    """Return the file in which a job says how far it has come."""
    return folder / f"{name}.json"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a job computes."""

    device: str | None = None
    """As in ``ngp_warp.fitting.fit``."""
    threads: int | None = None
    local: bool = True
    """Whether it runs on the machine that started it."""
    visible_devices: str | None = None
    """CUDA_VISIBLE_DEVICES there, which submitit's local executor replaces."""

    def enter(self) -> None:
        """Set the process's environment, before CUDA and Warp start."""
        if self.local:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            if self.visible_devices is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = self.visible_devices
        elif "WARP_CACHE_PATH" not in os.environ:
            # Kernels are compiled for the very CPU; the nodes of a cluster share a home.
            base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            os.environ["WARP_CACHE_PATH"] = str(Path(base, "ngp-warp", f"kernels-{_kind_of_cpu()}"))


def perform(folder: Path, name: str, do: Callable[["Reporter"], None]) -> dict[str, Any]:
    """Do a job's work, alone and interruptible.

    Args:
        folder: of the jobs.
        name: of the job.
        do: the work; can be done again at any time.

    Returns:
        "state": "done", "failed" or "interrupted"; of the second "error", one line.
    """
    stop = stop_path(folder)
    with _signals() as queue_again:
        try:
            if not stop.exists():
                with _alone(folder, name):
                    do(Reporter(state_path(folder, name)))
                return {"state": "done"}
        except NgpError as error:
            sys.stderr.write(f"{error}\n")  # the job's log
            return {"state": "failed", "error": str(error)}
        except KeyboardInterrupt as interrupt:
            sys.stderr.write(f"{str(interrupt) or 'interrupted'}\n")
            if not stop.exists():
                queue_again()
        return {"state": "interrupted"}


def _kind_of_cpu() -> str:
    """Return a name that is the same on machines that run the same kernels."""
    text = platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                text += line
                break
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Reporter:
    """Writes progress for whoever waits; messages go to the job's log."""

    def __init__(self, path: Path):
        self._path = path
        self._last = 0.0

    def __call__(self, update: Progress) -> None:
        """Take a progress report."""
        if update.message:
            sys.stderr.write(f"{update.message}\n")
        now = time.monotonic()
        if update.stage not in ("train", "evaluate") or now - self._last < _SECONDS_BETWEEN_REPORTS:
            return
        self._last = now
        names = ("stage", "step", "total", "metric", "samples_per_second")
        temporary = self._path.with_suffix(".tmp")
        with contextlib.suppress(OSError):  # a full disk ends a run elsewhere
            temporary.write_text(json.dumps({name: getattr(update, name) for name in names}))
            temporary.replace(self._path)


@contextlib.contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Hold a lock, so that no two jobs are at work on one block.

    Raises:
        ResourceError: another job is.
    """
    with (folder / f"{name}.lock").open("w") as file:
        end = time.monotonic() + _SECONDS_FOR_A_LOCK
        while not _locked(file):
            if time.monotonic() > end:
                raise ResourceError(
                    "a job of an earlier command is still at work on it; wait for it or cancel it"
                )
            time.sleep(0.1)
        yield


def _locked(file: Any) -> bool:
    """Try to take a lock, which ends with the process."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True


def _queue_again(handler: Any) -> None:
    """Call submitit's handler of SIGUSR2, which ends the process; where there is none, return."""
    if callable(handler):
        handler(signal.SIGUSR2, None)


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], None]]:
    """Turn signals into KeyboardInterrupt; yield what has submitit queue the job again.

    While training the first of them saves (``ngp_warp.trainer``). SIGUSR2 matters only then: at any
    other time there is nothing to save.
    """

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    def forward(number: int, frame: Any) -> None:
        if signal.getsignal(signal.SIGTERM) is not interrupt:
            signal.raise_signal(signal.SIGTERM)

    handlers = {signal.SIGTERM: interrupt, signal.SIGUSR2: forward}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield lambda: _queue_again(before[signal.SIGUSR2])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
