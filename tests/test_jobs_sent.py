"""Laws of jobs that are sent off: where they go, what refuses them, and how they are ended."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import slurm_stand_in
from image_runs import SMALL_FLAGS, smooth, write_picture

from ngp_warp import job, jobs, launch
from ngp_warp.errors import ConfigError, ResourceError
from ngp_warp.job_settings import JobSettings
from ngp_warp.jobs import Jobs

pytest.importorskip("submitit")


@dataclass(frozen=True)
class Named:
    """A job that is never run."""

    name: str
    place: job.Place

    def at(self, place: job.Place) -> "Named":
        return replace(self, place=place)

    def checkpoint(self) -> Any:
        raise NotImplementedError

    def __call__(self) -> Any:
        raise NotImplementedError


class Sleeping:
    """A job as submitit has it: a process that waits; nothing is known of its result."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.job_id = str(self.process.pid)

    def done(self, force_check: bool = False) -> bool:
        return self.process.poll() is not None


class Executor:
    """In place of submitit's: does what it is told instead of sending off jobs."""

    def __init__(self, do: Any):
        self.submit = self.submit_array = do


def works(jobs: Jobs, count: int) -> list[Any]:
    return [Named(str(i), jobs.place(count)) for i in range(count)]


# --- where


def test_jobs_are_spread_over_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Jobs(JobSettings(jobs=5), "cpu", 1)
    monkeypatch.setattr(here, "_n_gpus", 2)
    monkeypatch.setattr(jobs, "_executor", lambda *args: Executor(lambda work: object()))
    assert here._submit(tmp_path, works(here, 6)) != []
    devices = [work.place.device for work in here._running]
    assert devices == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]
    for work in list(here._running)[1::2]:  # those of the second end
        del here._running[work]
    assert here._least_busy() == "cuda:1"


def test_cores_are_shared_by_the_jobs_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "num_threads", lambda: 12)
    here = Jobs(JobSettings(jobs=4), "cpu", None)
    assert [here.place(n).threads for n in (1, 2, 3, 4, 100)] == [12, 6, 4, 3, 3]
    assert Jobs(JobSettings(jobs=100), "cpu", None).place(100).threads == 1
    assert Jobs(JobSettings(jobs=4), "cpu", 5).place(100).threads == 5


def test_results_of_an_earlier_command_are_not_taken_for_those_of_this_one(tmp_path: Path) -> None:
    old = tmp_path / "4711_0_result.pkl"  # the id of a process, and those come again
    old.write_bytes(b"")
    job.stop_path(tmp_path).touch()
    assert Jobs(JobSettings(), "cpu", 1).run_all(tmp_path, [], lambda ended: None) == []
    assert not old.exists()
    assert not job.stop_path(tmp_path).exists()


# --- what goes wrong


def test_what_slurm_refuses_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = slurm_stand_in.install(tmp_path / "bin")
    said = "sbatch: error: invalid partition specified: gpo"
    (tmp_path / "bin" / "sbatch").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    monkeypatch.setenv("PATH", environment["PATH"])
    there = Jobs(JobSettings(executor="slurm"), "cpu", 1)
    with pytest.raises(ConfigError, match=f"Slurm refuses the jobs: {said}"):
        there.run_all(tmp_path / "jobs", works(there, 2), lambda ended: None)
    picture = write_picture(tmp_path / "a.png", smooth(width=90, height=40))
    args = ["fit-image-blocks", str(picture), "--out", str(tmp_path / "run"), "--blocks", "2x1"]
    args += ["--margin", "4", "--executor", "slurm", "--quiet", *SMALL_FLAGS]
    done = subprocess.run(
        [sys.executable, "-m", "ngp_warp.cli.app", *args],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"ngp: error: Slurm refuses the jobs: {said}\n"


def test_a_disk_that_is_full_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(work: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jobs, "_executor", lambda *args: Executor(submit))
    here = Jobs(JobSettings(), "cpu", 1)
    with pytest.raises(ResourceError, match=r"cannot send off jobs from .*: No space left"):
        here.run_all(tmp_path, works(here, 1), lambda ended: None)


TRACE = """Job (task=0) failed during processing with trace:
----------------------
Traceback (most recent call last):
  File "a.py", line 1, in <module>
    import b
  File "b.py", line 2, in <module>
    raise Missing(why)
    ^^^^^^^^^^^^^^^^^^
{why}

----------------------
You can check full logs with 'job.stderr(0)' and 'job.stdout(0)'or at paths:
  - /logs/1_0_log.err
  - /logs/1_0_log.out"""
NO_RESULT = """Job 71_0 (task: 0) with path /logs/71_0_result.pkl
has not produced any output (state: OUT_OF_MEMORY)
Error stream produced:
----------------------------------------
memory: 40.0 GB
slurmstepd: error: Detected 1 oom_kill event in StepId=71.0"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TRACE.format(why="KeyError: 'x'"), "KeyError: 'x'"),
        (TRACE.format(why="b.Missing"), "b.Missing"),
        (TRACE.format(why="ValueError: two lines\n  of them"), "ValueError: two lines"),
        (
            NO_RESULT,
            "slurmstepd: error: Detected 1 oom_kill event in StepId=71.0 (Slurm: OUT_OF_MEMORY)",
        ),
        ("", "it failed"),
    ],
)
def test_the_line_that_says_why_a_job_failed_is_found(text: str, reason: str) -> None:
    assert jobs._reason(text) == reason


# --- how they are ended


def test_jobs_are_ended_where_the_disk_has_no_room_to_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Sleeping] = []

    def submit(work: Any) -> Sleeping:
        sent.append(Sleeping())
        return sent[-1]

    def interrupt(ended: list[Any]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "_executor", lambda *args: Executor(submit))
    here = Jobs(JobSettings(jobs=2), "cpu", 1)
    with pytest.raises(KeyboardInterrupt):
        here.run_all(tmp_path / "gone", works(here, 3), interrupt)
    assert [job.process.poll() for job in sent] == [-signal.SIGTERM] * 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("executor", ["local", "slurm"])
def test_no_interruption_parts_a_job_from_its_id(
    number: signal.Signals, executor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    def submit(works: Any) -> list[str]:
        os.kill(os.getpid(), number)  # to any thread of this process
        time.sleep(0.01)  # where Python would raise
        return ["17"] if executor == "slurm" else "17"  # type: ignore[return-value]

    monkeypatch.setenv("PATH", slurm_stand_in.install(tmp_path / "bin")["PATH"])
    monkeypatch.setattr(jobs, "_executor", lambda *args: Executor(submit))
    there = Jobs(JobSettings(executor=executor), "cpu", 1)
    before, ended = signal.signal(number, interrupt), threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            there._submit(tmp_path, works(there, 1))
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
        ended.set()
        thread.join()
    assert list(there._running.values()) == ["17"]
