"""Jobs through submitit: sent off, watched, told to end."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

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


@dataclass
class Jobs:
    """Runs works as jobs.

    Args:
        settings: where.
        folder: of what the jobs leave: logs, results, locks; absolute.
        device: of the jobs, as in ``fit``.
        threads: of each job.

    Raises:
        ConfigError: submitit or Slurm is not there.
    """

    settings: JobSettings
    folder: Path
    device: str | None
    threads: int | None
    _running: dict[Work, Any] = field(default_factory=dict)

    def __post_init__(self):
        check_available(self.settings)
        self._n_gpus = 0
        if self.settings.executor == "local":
            self._choose_here()
        self._checked = time.monotonic()

    def _choose_here(self) -> None:
        """Choose devices, jobs at a time and threads on this machine."""
        import warp as wp

        from ngp_warp import launch

        wanted = self.device or "auto"
        self.device = launch.resolve_device(wanted)
        if wanted in ("auto", "cuda") and self.device != "cpu":
            self._n_gpus = wp.get_cuda_device_count()
        n_jobs = self.settings.jobs or max(self._n_gpus, 1)
        self.settings = replace(self.settings, jobs=n_jobs)
        self.threads = self.threads or max(launch.num_threads() // n_jobs, 1)

    def place(self) -> Place:
        """Return where a job computes."""
        return Place(
            device=self.device,
            threads=self.threads,
            local=self.settings.executor == "local",
            visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        )

    def run_all(
        self, works: Sequence[Work], watch: Callable[[list[Outcome]], None]
    ) -> list[Outcome]:
        """Run works and return how each ended.

        Args:
            works: in the order in which they begin.
            watch: called now and then with what has ended so far.

        Raises:
            KeyboardInterrupt: after what had not begun was cancelled and the others have saved.
        """
        stop_path(self.folder).unlink(missing_ok=True)
        waiting, ended = list(works), []
        try:
            while waiting or self._running:
                waiting = self._submit(waiting)
                ended += self._collect()
                watch(ended)
                time.sleep(_POLL_SECONDS[self.settings.executor])
        except BaseException:
            self._stop()
            raise
        return ended

    def _submit(self, waiting: list[Work]) -> list[Work]:
        """Send off what may begin; return the rest."""
        if not waiting or len(self._running) == self.settings.jobs:
            return waiting
        executor = _executor(self.settings, self.folder, self.device)
        if self.settings.executor == "slurm":
            jobs = executor.submit_array(waiting)
            self._running.update(zip(waiting, jobs, strict=True))
            return []
        while waiting and len(self._running) < (self.settings.jobs or 1):
            work = waiting[0]
            if self._n_gpus:
                busy = {work.place.device for work in self._running}
                names = [f"cuda:{i}" for i in range(self._n_gpus)]
                device = next((name for name in names if name not in busy), names[0])
                work = work.at(replace(work.place, device=device))
            with _without_ctrl_c():
                self._running[work] = executor.submit(work)
            waiting = waiting[1:]
        return waiting

    def _collect(self) -> list[Outcome]:
        """Return what has ended since the last call."""
        force = time.monotonic() - self._checked > _SECONDS_BETWEEN_STATES
        if force:
            self._checked = time.monotonic()
        ended = [(work, job) for work, job in self._running.items() if job.done(force_check=force)]
        for work, _ in ended:
            del self._running[work]
        return [_outcome(work, job, self.settings.executor) for work, job in ended]

    def _stop(self) -> None:
        """Cancel what has not begun, have the others save, and wait for them."""
        if not self._running:
            return
        stop_path(self.folder).touch()
        if self.settings.executor == "slurm":
            ids = [str(job.job_id) for job in self._running.values()]
            for options in (["--state=PENDING"], ["--signal=TERM", "--state=RUNNING"]):
                subprocess.run(["scancel", *options, *ids], check=False, capture_output=True)
        else:
            for job in self._running.values():
                if not job.done():
                    os.kill(int(job.job_id), signal.SIGTERM)  # the controller hands it on
        end = time.monotonic() + _SECONDS_TO_SAVE
        while self._running and time.monotonic() < end:
            self._collect()
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


def _outcome(work: Work, job: Any, executor: str) -> Outcome:
    """Return how a job ended, from what it left."""
    log = Path(job.paths.stderr)
    if executor == "local" and not job.paths.result_pickle.exists():
        return Outcome(work, "failed", "its process ended without a result", log)
    error = job.exception()
    if error is not None:
        lines = [line for line in str(error).splitlines() if line.strip(" -")]
        inner = [line for line in lines if "Error" in line and not line.startswith((" ", "Job"))]
        return Outcome(work, "failed", (inner or lines or ["it failed"])[-1].strip(), log)
    result = job.result()
    return Outcome(work, result["state"], result.get("error", ""), log)


@contextlib.contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Hold back SIGINT: processes started meanwhile never get it, this one does afterwards.

    A terminal sends Ctrl-C to all of them; jobs shall have one signal each, and time to save.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
