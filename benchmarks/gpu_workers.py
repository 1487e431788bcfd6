"""Processes that work off a part of the GPU benchmark: watched, ended, followed by others."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu_parts import ANSWERED, Context, as_job

_ROOT = Path(__file__).resolve().parent.parent
_POLL_S = 0.1
_TELL_S = 1.0
"""Time between reports of what has been found: so much is lost at most, whatever ends the run."""
_GRACE_S = 3.0
"""A process begins no job when its time is over; after so much more it is ended."""


def process_command(job: str) -> list[str]:
    """Return the command of a process that runs a part."""
    return [sys.executable, "-m", "benchmarks.gpu_parts", job]


class Worker:
    """Works off jobs in a process of its own, and the others in a further one where it has died.

    Args:
        part: name of the part.
        context: what it is told.
        seconds: after which its process is ended.
        stall: a job that takes longer has failed, and the others follow; None: any time.

    Attributes:
        found: results by the job's name.
        died: why a job's process has ended, by the job's name.
        names: of all jobs, as soon as they are known.
        cut: the job that was under way when the time was over.
        error: why nothing more will come, where that is another reason than the time.
    """

    def __init__(self, part: str, context: Context, seconds: float, stall: float | None = None):
        self.part, self.context, self.stall = part, context, stall
        self.found: dict[str, Any] = {}
        self.died: dict[str, str] = {}
        self.names: list[str] = []
        self.cut: str | None = None
        self.error: str | None = None
        self._end = time.perf_counter() + seconds
        self._over = False
        self._start()

    def _start(self) -> None:
        skip = (*self.found, *self.died)
        context = replace(self.context, skip=skip)
        name = f"{self.part}_{context.worker[0]}_{len(skip)}"
        self._out = Path(context.folder) / f"{name}.json"
        self._log = Path(context.folder) / f"{name}.log"
        left = max(self._end - time.perf_counter(), 0.0)
        environment = dict(os.environ)
        paths = [str(_ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        with self._log.open("w") as log:
            # a session of its own, so that what it starts can be ended with it
            self._process = subprocess.Popen(
                process_command(as_job(self.part, context, left, self._out)),
                cwd=_ROOT, env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def poll(self) -> bool:
        """Take over what has been written; return whether nothing more will come."""
        if self._over:
            return True
        status = self._process.poll()  # before reading: what it wrote before it ended counts
        begun = self._take()
        if status is None:
            late = time.perf_counter() > self._end + _GRACE_S
            stuck = begun is not None and self._is_stuck()
            if not (late or stuck):
                return False
            self._kill()
            begun = self._take()
            if late:
                self.cut, self._over = begun, True
                return True
        if status == ANSWERED:
            self._over = True
            return True
        self._go_on(begun, status)
        return self._over

    def end(self) -> None:
        """End its process and take over what it has written."""
        if not self._over:
            self._kill()
            self.cut, self._over = self._take(), True

    def _go_on(self, begun: str | None, status: int | None) -> None:
        """Start another process for the jobs that one has left."""
        self._kill()  # what it has started may outlive it
        if status is None:
            why = f"took longer than {self.stall:.0f} s, and was ended"
        else:
            last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
            why = f"its process ended with status {status}: {''.join(last)[:300]}"
        if begun is not None:
            self.died[begun] = why
        elif not self._new:
            self.error, self._over = why, True
            return
        if time.perf_counter() < self._end:
            self._start()
        else:
            self._over = True

    def _take(self) -> str | None:
        """Take over what the process has written; return the job that it has begun."""
        written = json.loads(self._out.read_text()) if self._out.exists() else {}
        self._new = written.get("found", {})
        self.found |= self._new
        self.names = written.get("names", self.names)
        return written.get("begun")

    def _is_stuck(self) -> bool:
        if self.stall is None:
            return False
        return time.time() - self._out.stat().st_mtime > self.stall

    def _kill(self) -> None:
        """End the process and those that it has started."""
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()


def work_off(workers: Sequence[Worker], tell: Callable[[], None]) -> None:
    """Wait for workers side by side; whatever ends the wait ends them too.

    Args:
        workers: already at work.
        tell: called when there is something new, once a second at most, and at the end.
    """
    told, count = time.perf_counter(), 0
    try:
        while not all([worker.poll() for worker in workers]):  # noqa: C419 - polls every one
            time.sleep(_POLL_S)
            now, new = time.perf_counter(), sum(len(w.found) + len(w.died) for w in workers)
            if new != count and now - told > _TELL_S:
                told, count = now, new
                tell()
    finally:
        for worker in workers:
            worker.end()
        tell()


@contextlib.contextmanager
def terminated() -> Iterator[None]:
    """Turn SIGTERM, which ``timeout`` sends, into SystemExit, so that all is ended and written."""

    def leave(number: int, frame: Any) -> None:
        sys.exit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread: whoever started it sees to signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
