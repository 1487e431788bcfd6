"""Jobs through submitit: sent off, watched, told to end."""

import contextlib
import io
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ngp_warp.errors import ConfigError, ResourceError
from ngp_warp.job import Place, stop_path
from ngp_warp.job_settings import JobSettings, check_available, slurm_parameters

_FOREVER_MINUTES = 10**6  # submitit ends local jobs after 2 minutes if not told otherwise
_POLL_SECONDS = {"local": 0.1, "slurm": 2.0}
_SECONDS_BETWEEN_STATES = 30.0  # of Slurm's accounting, for jobs that died without a word
_SECONDS_TO_SAVE = 300.0


class Work(Protocol):
    """A job: it is called without arguments and can be pickled."""

    @property
    def name(self) -> str:
        """Tells it from the others."""
        ...

    @property
    def place(self) -> Place:
        """Where it computes."""
        ...

    def at(self, place: Place) -> "Work":
        """Return the same job at another place."""
        ...

    def checkpoint(self) -> Any:
        """Return what submitit queues again: a DelayedSubmission."""
        ...

    def __call__(self) -> dict[str, Any]:
        """Do the work; see ``ngp_warp.job.perform``."""
        ...


@dataclass
class Outcome:
    """How a job ended."""

    work: Work
    state: str
    """done, failed or interrupted."""
    error: str = ""
    log: Path | None = None


class Jobs:
    """Runs works as jobs.

    Args:
        settings: where.
        device: of the jobs, as in ``fit``.
        threads: of each job; None: here the cores are shared out.

    Raises:
        ConfigError: submitit, Slurm or the device is not there.
    """

    def __init__(self, settings: JobSettings, device: str | None, threads: int | None):
        check_available(settings)
        self.settings = settings
        self._local = settings.executor == "local"
        self._device, self._threads = device, threads
        self._at_a_time = settings.jobs
        self._n_gpus = 0
        if self._local:
            self._choose_here()
        self._running: dict[Work, Any] = {}
        self._checked = time.monotonic()

    def _choose_here(self) -> None:
        """Choose devices and jobs at a time on this machine."""
        import warp as wp

        from ngp_warp import launch

        wanted = self._device or "auto"
        self._device = launch.resolve_device(wanted)
        if wanted in ("auto", "cuda") and self._device != "cpu":
            self._n_gpus = wp.get_cuda_device_count()
        self._at_a_time = self.settings.jobs or max(self._n_gpus, 1)

    def place(self, n_works: int) -> Place:
        """Return where a job of so many computes."""
        threads = self._threads
        if self._local and threads is None:
            from ngp_warp import launch

            threads = max(launch.num_threads() // min(self._at_a_time or 1, n_works), 1)
        return Place(
            device=self._device,
            threads=threads,
            local=self._local,
            visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        )

    def run_all(
        self, folder: Path, works: Sequence[Work], watch: Callable[[list[Outcome]], None]
    ) -> list[Outcome]:
        """Run works and return how each ended.

        Args:
            folder: of what the jobs leave: logs, results, locks; absolute.
            works: in the order in which they begin.
            watch: called now and then with what has ended so far.

        Raises:
            KeyboardInterrupt: after what had not begun was cancelled and the others have saved.
            ConfigError: Slurm refuses the jobs.
            ResourceError: the folder cannot be written.
        """
        self._clear(folder)
        waiting, ended = list(works), []
        try:
            while waiting or self._running:
                with _said(folder):
                    waiting = self._submit(folder, waiting)
                ended += [_outcome(*at, self._local) for at in self._take_ended()]
                watch(ended)
                time.sleep(_POLL_SECONDS[self.settings.executor])
        except BaseException:
            self._stop(folder)
            raise
        return ended

    def _clear(self, folder: Path) -> None:
        """Take away what an earlier command has left that could be mistaken for this one's."""
        stop_path(folder).unlink(missing_ok=True)
        if self._local:  # results bear the ids of processes, and those come again
            for result in folder.glob("*_result.pkl"):
                result.unlink(missing_ok=True)

    def _submit(self, folder: Path, waiting: list[Work]) -> list[Work]:
        """Send off what may begin; return the rest."""
        if not waiting or (self._local and len(self._running) == self._at_a_time):
            return waiting
        executor = _executor(self.settings, folder, self._device)
        if not self._local:
            with _interrupted_later():
                jobs = executor.submit_array(waiting)
                self._running.update(zip(waiting, jobs, strict=True))
            return []
        while waiting and len(self._running) < (self._at_a_time or 1):
            work = waiting[0]
            if self._n_gpus:
                work = work.at(replace(work.place, device=self._least_busy()))
            with _interrupted_later():
                self._running[work] = executor.submit(work)
            waiting = waiting[1:]
        return waiting

    def _least_busy(self) -> str:
        """Return the GPU with the fewest jobs."""
        busy = Counter(work.place.device for work in self._running)
        return min((f"cuda:{i}" for i in range(self._n_gpus)), key=lambda name: busy[name])

    def _take_ended(self) -> list[tuple[Work, Any]]:
        """Return the works, with their jobs, that have ended since the last call."""
        force = time.monotonic() - self._checked > _SECONDS_BETWEEN_STATES
        if force:
            self._checked = time.monotonic()
        ended = [(work, job) for work, job in self._running.items() if job.done(force_check=force)]
        for work, _ in ended:
            del self._running[work]
        return ended

    def _stop(self, folder: Path) -> None:
        """Cancel what has not begun, have the others save, and wait for them."""
        if not self._running:
            return
        with contextlib.suppress(OSError):  # on a full disk jobs must end all the same
            stop_path(folder).touch()
        if self._local:
            for job in self._running.values():
                if not job.done():
                    os.kill(int(job.job_id), signal.SIGTERM)  # the controller hands it on
        else:
            ids = [str(job.job_id) for job in self._running.values()]
            for options in (["--state=PENDING"], ["--signal=TERM", "--state=RUNNING"]):
                subprocess.run(["scancel", *options, *ids], check=False, capture_output=True)
        end = time.monotonic() + _SECONDS_TO_SAVE
        while self._running and time.monotonic() < end:
            self._take_ended()
            time.sleep(_POLL_SECONDS[self.settings.executor])


def _executor(settings: JobSettings, folder: Path, device: str | None) -> Any:
    import submitit

    if settings.executor == "local":
        local = submitit.LocalExecutor(folder=folder)
        local.update_parameters(timeout_min=_FOREVER_MINUTES)
        return local
    slurm = submitit.SlurmExecutor(folder=folder, max_num_timeout=100)
    slurm.update_parameters(**slurm_parameters(settings, device))
    return slurm


@contextlib.contextmanager
def _said(folder: Path) -> Iterator[None]:
    """Turn what can go wrong while jobs are sent off into errors that say it."""
    from submitit.core.utils import FailedJobError

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
            yield
    except FailedJobError as error:
        raise ConfigError(f"Slurm refuses the jobs: {error}") from error
    except OSError as error:
        raise ResourceError(
            f"cannot send off jobs from {folder}: {error.strerror or error}"
        ) from error


def _outcome(work: Work, job: Any, local: bool) -> Outcome:
    """Return how a job ended, from what it left."""
    log = Path(job.paths.stderr)
    if local and not job.paths.result_pickle.exists():
        return Outcome(work, "failed", "its process ended without a result", log)
    error = job.exception()
    if error is not None:
        return Outcome(work, "failed", _reason(str(error)), log)
    result = job.result()
    return Outcome(work, result["state"], result.get("error", ""), log)


def _reason(text: str) -> str:
    """Return the line that says why, of what submitit says of a job that failed.

    That is some lines of its own and, below dashes, the traceback or the end of the job's log.
    """
    state = re.search(r"\(state: (\w+)\)", text)
    inner = re.sub(r"\A.*?\n-{20,}\n", "", text, count=1, flags=re.DOTALL)
    inner = re.sub(r"\n-{20,}\nYou can check full logs.*", "", inner, flags=re.DOTALL)
    lines = [line for line in inner.splitlines() if line.strip()] or ["it failed"]
    reason = lines[-1]
    if "Traceback (most recent call last):" in lines:
        # below the last frame: a message may have several lines
        below = max((i for i, line in enumerate(lines) if line.startswith("  File ")), default=0)
        reason = next((line for line in lines[below:] if not line.startswith(" ")), reason)
    return reason.strip() + (f" (Slurm: {state[1]})" if state else "")


@contextlib.contextmanager
def _interrupted_later() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM, so that no job is sent off that nobody knows of.

    Processes that are started meanwhile never get SIGINT: a terminal sends Ctrl-C to all of them,
    and jobs shall have one signal each, and time to save. The mask does that, but does not protect
    this process, of which any other thread may take the signal.
    """
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        received.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        numbers = ()  # signals interrupt the main thread alone
    handlers = {number: signal.signal(number, note) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in received[:1]:
            signal.raise_signal(number)
