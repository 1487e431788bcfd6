"""Laws of jobs: how they end is known, whatever ends them; what Slurm is asked for."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slurm_stand_in
from image_runs import SMALL_FLAGS, smooth, write_picture

from ngp_warp import job, pace, trainer
from ngp_warp.cli import app
from ngp_warp.errors import ConfigError, DataError
from ngp_warp.job_settings import JobSettings, slurm_parameters
from ngp_warp.jobs import Jobs, Outcome
from ngp_warp.run import open_run

submitit = pytest.importorskip("submitit")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# --- the inside of a job


def test_a_job_says_how_it_ended(tmp_path: Path) -> None:
    def fail(report: Any) -> None:
        raise DataError("no such pixels")

    assert job.perform(tmp_path, "a", lambda report: None) == {"state": "done"}
    assert job.perform(tmp_path, "a", fail) == {"state": "failed", "error": "no such pixels"}
    job.stop_path(tmp_path).touch()
    assert job.perform(tmp_path, "a", fail) == {"state": "interrupted"}


def test_no_two_jobs_are_at_work_on_one_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_SECONDS_FOR_A_LOCK", 0.2)
    with (tmp_path / "a.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        found = job.perform(tmp_path, "a", lambda report: None)
        assert found["state"] == "failed"
        assert "still at work" in found["error"]
        assert job.perform(tmp_path, "b", lambda report: None) == {"state": "done"}
    assert job.perform(tmp_path, "a", lambda report: None) == {"state": "done"}


@pytest.mark.parametrize("numbers", [["SIGTERM"], ["SIGUSR2"], ["SIGTERM", "SIGUSR2"]])
@pytest.mark.parametrize("stop", [False, True])
def test_training_saves_once_and_is_queued_again_unless_it_shall_stop(
    numbers: list[str], stop: bool, tmp_path: Path
) -> None:
    queued, saved = [], []
    signal.signal(signal.SIGUSR2, lambda number, frame: queued.append(number))

    def train(report: Any) -> None:
        with pace.interruptible() as stopped:
            signal.raise_signal(signal.Signals[numbers[0]])
            assert stopped()
        for name in numbers[1:]:  # while it saves
            signal.raise_signal(signal.Signals[name])
        saved.append(True)
        if stop:
            job.stop_path(tmp_path).touch()
        raise trainer.Interrupted("saved")

    assert job.perform(tmp_path, "a", train) == {"state": "interrupted"}
    assert saved == [True]
    assert queued == ([] if stop else [signal.SIGUSR2])


def test_a_job_sees_the_devices_of_whoever_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    job.Place(visible_devices="2,3").enter()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
    job.Place().enter()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.delenv("WARP_CACHE_PATH", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    job.Place(local=False).enter()
    assert os.environ["WARP_CACHE_PATH"].startswith("/cache/ngp-warp/kernels-")
    monkeypatch.delenv("WARP_CACHE_PATH")


# --- from outside


@dataclass(frozen=True)
class Doing:
    """A job that calls a function."""

    name: str
    do: Callable[[], Any]
    place: job.Place

    def at(self, place: job.Place) -> "Doing":
        return replace(self, place=place)

    def checkpoint(self) -> Any:
        return submitit.helpers.DelayedSubmission(self)

    def __call__(self) -> Any:
        return self.do()


def test_jobs_that_die_are_told_from_those_that_are_done(tmp_path: Path) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # jobs cannot import it
    ways = {
        "done": lambda: {"state": "done"},
        "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "raises": [].pop,
    }
    jobs = Jobs(JobSettings(jobs=3), "cpu", 1)
    works = [Doing(name, do, jobs.place(3)) for name, do in ways.items()]
    ended: list[Outcome] = jobs.run_all(tmp_path, works, lambda ended: None)
    found = {outcome.work.name: outcome for outcome in ended}
    assert found["done"].state == "done"
    assert found["killed"].error == "its process ended without a result"
    assert found["raises"].error == "IndexError: pop from empty list"
    assert "IndexError" in (found["raises"].log or tmp_path).read_text()


def test_no_more_jobs_run_than_are_asked_for(tmp_path: Path) -> None:
    class Job:
        def __init__(self) -> None:
            self.asked = 0

        def done(self, force_check: bool) -> bool:
            self.asked += 1
            return self.asked > 2

    jobs = Jobs(JobSettings(jobs=2), "cpu", 1)
    works = [Doing(str(i), lambda: None, jobs.place(5)) for i in range(5)]
    waiting, most, patch = list(works), 0, pytest.MonkeyPatch()
    executor = type("E", (), {"submit": lambda self, work: Job()})()
    patch.setattr("ngp_warp.jobs._executor", lambda *args: executor)
    ended: list[Any] = []
    with patch.context():
        while waiting or jobs._running:
            waiting = jobs._submit(tmp_path, waiting)
            most = max(most, len(jobs._running))
            ended += [work.name for work, _ in jobs._take_ended()]
    patch.undo()
    assert most == 2
    assert ended == ["0", "1", "2", "3", "4"]


# --- Slurm


def test_slurm_gets_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = JobSettings(
        executor="slurm",
        jobs=3,
        slurm_partition="gpu",
        slurm_time=90,
        slurm_mem="64GB",
        slurm_cpus_per_task=8,
        slurm_setup=("module load cuda",),
        slurm_additional_parameters=("account=physics",),
    )
    assert slurm_parameters(settings, "cpu").get("gpus_per_node") is None
    environment = slurm_stand_in.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", environment["PATH"])
    executor = submitit.SlurmExecutor(folder=tmp_path / "jobs")
    executor.update_parameters(**slurm_parameters(settings, None))
    text = executor._make_submission_file_text("command", "id")
    for line in (
        "#SBATCH --partition=gpu",
        "#SBATCH --time=90",
        "#SBATCH --mem=64GB",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --account=physics",
        "#SBATCH --signal=USR2@90",
        "module load cuda",
    ):
        assert line in text.splitlines()
    flags = settings.flags()
    assert "--executor slurm --jobs 3 --slurm-partition gpu --slurm-time 90" in flags
    assert "--slurm-setup 'module load cuda' --slurm-additional-parameters account=physics" in flags


def command(folder: Path, *flags: str) -> list[str]:
    picture = write_picture(folder / "a.png", smooth(width=90, height=40))
    args = ["fit-image-blocks", str(picture), "--out", str(folder / "run"), "--blocks", "2x1"]
    args += ["--margin", "4", "--executor", "slurm", "--slurm-partition", "gpu", *SMALL_FLAGS]
    return [sys.executable, "-m", "ngp_warp.cli.app", *args, *flags]


@pytest.mark.slow
def test_blocks_are_a_job_array(tmp_path: Path) -> None:
    environment = slurm_stand_in.install(tmp_path / "bin")
    done = subprocess.run(
        [*command(tmp_path, "--steps", "20", "--json", "--quiet")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [block["name"] for block in told["blocks"]] == ["000_000", "000_001"]
    scripts = [path.read_text() for path in (tmp_path / "bin").glob("script-*")]
    assert len(scripts) == 2  # an array of blocks, and the measuring
    assert sum("--array=0-1%" in script for script in scripts) == 1
    values = open_run(tmp_path / "run", device="cpu").query(np.array([[0.5, 0.5]]))
    assert np.isfinite(values).all()


def test_an_interrupted_command_cancels_what_waits_and_lets_the_rest_save(tmp_path: Path) -> None:
    environment = slurm_stand_in.install(tmp_path / "bin")
    flags = ("--steps", "1000000", "--checkpoint-seconds", "0.05", "--quiet")
    process = subprocess.Popen(
        command(tmp_path, *flags), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    blocks = tmp_path / "run" / "blocks"
    while len({p.parent for p in blocks.glob("*/checkpoints/step-*")}) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert stderr.strip().endswith("--executor slurm --slurm-partition gpu")
    asked = (tmp_path / "bin" / "cancelled").read_text().splitlines()
    assert [line.rsplit(" ", 2)[0] for line in asked] == [
        "--state=PENDING",
        "--signal=TERM --state=RUNNING",
    ]
    logs = (tmp_path / "bin" / "out").read_text()
    assert logs.count("interrupted and saved after step") == 2


# --- errors


def test_what_is_missing_is_said(
    refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "a.png")
    args = ("fit-image-blocks", "a.png", "--blocks", "2x1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no sbatch here" in refused(*args, "--executor", "slurm")
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert 'pip install "ngp-warp[slurm]"' in refused(*args)


def test_settings_that_cannot_be_are_refused(refused: Any, tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    args = ("fit-image-blocks", "a.png")
    assert "--slurm-mem is for --executor slurm" in refused(*args, "--slurm-mem", "8GB")
    assert "must be KEY=VALUE" in refused(
        *args, "--executor", "slurm", "--slurm-additional-parameters", "account"
    )
    assert "--blocks COLUMNSxROWS or --block-size" in refused(*args)
    assert "two margins of 16" in refused(*args, "--blocks", "2x2")
    assert "reaches outside" in refused(*args, "--blocks", "1x1", "--crop", "40,0,20,10")
    assert "there is no run" in refused("fit-image-blocks", "--resume", "none")
    with pytest.raises(ConfigError, match="executor must be one of"):
        JobSettings(executor="pbs")  # type: ignore[arg-type]
    assert app.main(["fit-image-blocks", "a.png", "--executor", "pbs", "--quiet"]) == 2
