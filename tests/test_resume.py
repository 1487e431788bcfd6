"""Laws of interruption: whatever stops a run, it goes on from its checkpoint, bit for bit."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from image_runs import SMALL_FLAGS, settings, write_picture

import ngp_warp
from ngp_warp import launch
from ngp_warp.cli import app
from ngp_warp.run_folder import list_checkpoints
from ngp_warp.saving import KEPT_CHECKPOINTS

ROOT = Path(__file__).resolve().parent.parent
STEPS = 4000  # two seconds or so: time to be interrupted in


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    yield
    launch.set_num_threads(None)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> ngp_warp.Run:
    """The run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("straight")
    picture = write_picture(folder / "picture.png")
    return ngp_warp.fit_image(picture, steps=STEPS, out=folder / "run", device="cpu", **settings())


def same_arrays(a: ngp_warp.Run, b: ngp_warp.Run) -> bool:
    first, second = a.arrays(), b.arrays()
    assert first.keys() == second.keys()
    assert {n.partition(".")[2] for n in first} >= {"value", "first_moment", "second_moment"}
    return all(np.array_equal(first[name], second[name]) for name in first)


def start(source: Path, out: Path, *flags: str) -> "subprocess.Popen[str]":
    """Start `ngp fit-image` and wait until it has saved a checkpoint."""
    command = [sys.executable, "-m", "ngp_warp.cli.app", "fit-image", str(source), "--quiet"]
    command += ["--out", str(out), "--checkpoint-seconds", "0.02", *SMALL_FLAGS, *flags]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list_checkpoints(out) and process.poll() is None:
        time.sleep(0.005)
    return process


def test_a_killed_run_goes_on_bit_for_bit(straight: ngp_warp.Run, tmp_path: Path) -> None:
    process = start(straight.source, tmp_path / "run", "--steps", str(STEPS))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    killed = ngp_warp.open_run(tmp_path / "run")
    assert 0 < killed.header["step"] < STEPS
    assert not killed.metrics
    resumed = ngp_warp.fit_image(resume=tmp_path / "run", device="cpu")
    assert resumed.header["step"] == STEPS
    assert same_arrays(resumed, straight)
    assert resumed.metrics["psnr"] == straight.metrics["psnr"]
    assert len(list_checkpoints(resumed.path)) <= KEPT_CHECKPOINTS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(
    number: signal.Signals, straight: ngp_warp.Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(straight.source, out, "--steps", str(STEPS))
    process.send_signal(number)
    stdout, stderr = process.communicate()
    assert process.returncode == 130
    assert stdout == ""
    found = re.fullmatch(
        rf"ngp: interrupted and saved after step (\d+) of {STEPS}; continue with --resume (.*)\n",
        stderr,
    )
    assert found
    step, advice = int(found[1]), found[2]
    assert advice == str(out)
    stopped = ngp_warp.open_run(out)
    assert stopped.header["step"] == step < STEPS
    assert stopped.arrays()
    assert app.main(["fit-image", "--resume", advice, "--quiet", "--device", "cpu"]) == 0
    assert same_arrays(ngp_warp.open_run(out), straight)


def test_an_interruption_before_the_first_step_leaves_nothing(tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "picture.png")

    def stop(progress: ngp_warp.Progress) -> None:
        if progress.stage == "compile":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ngp_warp.fit_image(picture, steps=9, out=tmp_path / "a" / "b", progress=stop, **settings())
    assert list(tmp_path.iterdir()) == [picture]


def test_an_interrupted_evaluation_is_made_up_for(straight: ngp_warp.Run, tmp_path: Path) -> None:
    def stop(progress: ngp_warp.Progress) -> None:
        if progress.stage == "evaluate":
            raise KeyboardInterrupt

    with pytest.raises(ngp_warp.Interrupted, match="--resume"):
        ngp_warp.fit_image(
            straight.source, steps=9, out=tmp_path / "run", progress=stop, **settings()
        )
    before = list_checkpoints(tmp_path / "run")[0].read_bytes()
    run = ngp_warp.fit_image(resume=tmp_path / "run")
    assert run.metrics["steps"] == 9
    assert run.checkpoint.read_bytes() == before


def test_what_a_killed_run_was_writing_is_removed(straight: ngp_warp.Run, tmp_path: Path) -> None:
    run = ngp_warp.fit_image(straight.source, steps=3, out=tmp_path / "run", **settings())
    unfinished = run.path / "checkpoints" / ".step-0000000002.safetensors.tmp-1"
    unfinished.write_bytes(b"half")
    ngp_warp.fit_image(resume=run.path, steps=5)
    assert not unfinished.exists()
    assert list_checkpoints(run.path)


def test_a_run_resumed_at_its_end_is_measured_by_its_average(
    straight: ngp_warp.Run, tmp_path: Path
) -> None:
    average = settings(optimizer={"ema_decay": 0.9})
    run = ngp_warp.fit_image(straight.source, steps=9, out=tmp_path / "run", **average)
    again = ngp_warp.fit_image(resume=run.path)
    assert again.metrics["psnr"] == run.metrics["psnr"]
    last = ngp_warp.fit_image(straight.source, steps=9, out=tmp_path / "last", **settings())
    assert last.metrics["psnr"] != run.metrics["psnr"]


def test_the_number_of_threads_does_not_matter(straight: ngp_warp.Run, tmp_path: Path) -> None:
    runs = [
        ngp_warp.fit_image(
            straight.source,
            steps=100,
            out=tmp_path / str(threads),
            device="cpu",
            threads=threads,
            **settings(batch_size=4096, encoding={"n_levels": 5, "finest_resolution": 40}),
        )
        for threads in (1, 2, 3)
    ]
    assert [run.metrics["threads"] for run in runs] == [1, 2, 3]
    assert same_arrays(runs[0], runs[1])
    assert same_arrays(runs[0], runs[2])
    assert runs[0].metrics["psnr"] == runs[2].metrics["psnr"]


def test_seconds_become_steps_that_a_resumed_run_keeps(
    straight: ngp_warp.Run, tmp_path: Path
) -> None:
    process = start(straight.source, tmp_path / "run", "--seconds", "3")
    # the number is decided after the warm-up, a third of the time
    while not ngp_warp.open_run(tmp_path / "run").header["n_steps"] and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    killed = ngp_warp.open_run(tmp_path / "run")
    assert 0 < killed.header["step"] < killed.header["n_steps"]
    resumed = ngp_warp.fit_image(resume=tmp_path / "run", device="cpu")
    assert resumed.header["step"] == resumed.header["n_steps"] == killed.header["n_steps"]


def test_a_run_killed_in_its_warm_up_decides_its_length_later(
    straight: ngp_warp.Run, tmp_path: Path
) -> None:
    process = start(straight.source, tmp_path / "run", "--seconds", "3")
    process.kill()
    process.communicate()
    killed = ngp_warp.open_run(tmp_path / "run")
    assert killed.header["n_steps"] == 0
    resumed = ngp_warp.fit_image(resume=tmp_path / "run", device="cpu")
    assert killed.header["step"] < resumed.header["step"] == resumed.header["n_steps"]


def test_a_longer_run_continues_a_finished_one(straight: ngp_warp.Run, tmp_path: Path) -> None:
    run = ngp_warp.fit_image(straight.source, steps=5, out=tmp_path / "run", **settings())
    longer = ngp_warp.fit_image(resume=run.path, steps=8)
    assert longer.header["step"] == longer.metrics["steps"] == 8
    with pytest.raises(ngp_warp.ConfigError, match="8 steps already"):
        ngp_warp.fit_image(resume=run.path, steps=3)
    with pytest.raises(ngp_warp.ConfigError, match="--steps, not --seconds"):
        ngp_warp.fit_image(resume=run.path, seconds=3)


def test_an_earlier_checkpoint_replaces_the_later_ones(
    straight: ngp_warp.Run, tmp_path: Path
) -> None:
    run = ngp_warp.fit_image(straight.source, steps=5, out=tmp_path / "run", **settings())
    early = run.checkpoint.read_bytes()
    ngp_warp.fit_image(resume=run.path, steps=9)
    (run.path / "checkpoints" / "step-0000000005.safetensors").write_bytes(early)
    again = ngp_warp.fit_image(
        resume=run.path / "checkpoints" / "step-0000000005.safetensors", steps=7
    )
    assert [int(re.sub(r"\D", "", p.stem)) for p in list_checkpoints(run.path)] == [5, 7]
    assert again.header["step"] == 7


def test_a_background_checkpoint_that_fails_is_told_and_training_goes_on(
    straight: ngp_warp.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ngp_warp import saving

    calls: list[int] = []
    save = saving.save_checkpoint

    def fail_first(*args: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ngp_warp.ResourceError("the disk is full")
        save(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(saving, "save_checkpoint", fail_first)
    messages: list[str] = []
    run = ngp_warp.fit_image(
        straight.source,
        steps=STEPS,
        out=tmp_path / "run",
        device="cpu",
        progress=lambda p: messages.append(p.message or ""),
        **settings(checkpoint_seconds=0.02),
    )
    assert len(calls) > 1
    assert any("the disk is full; training goes on" in m for m in messages)
    assert same_arrays(run, straight)


def test_the_last_checkpoint_must_be_saved(
    straight: ngp_warp.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ngp_warp import saving

    def fail(*args: object) -> None:
        raise ngp_warp.ResourceError("the disk is full")

    monkeypatch.setattr(saving, "save_checkpoint", fail)
    with pytest.raises(ngp_warp.ResourceError):
        ngp_warp.fit_image(straight.source, steps=5, out=tmp_path / "run", **settings())
    assert not list(tmp_path.iterdir())
