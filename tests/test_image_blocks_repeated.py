"""Laws of pictures in blocks whose command is repeated, killed, interrupted, or fails."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from block_runs import BLOCK_FLAGS, HEIGHT, WIDTH, fit
from image_runs import SMALL_FLAGS, settings, smooth, write_picture

import ngp_warp
from ngp_warp.cli import app
from ngp_warp.errors import CheckpointError, ConfigError
from ngp_warp.primitives.image.blocks.mosaic import block_folder
from ngp_warp.run import describe, open_run
from ngp_warp.run_folder import list_checkpoints

pytest.importorskip("submitit")

ROOT = Path(__file__).resolve().parent.parent


# --- repeated commands


def test_only_what_is_missing_is_fitted_again(jobs_here: list[str], tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "a.png", smooth(width=WIDTH, height=HEIGHT))
    out = tmp_path / "run"
    first = fit(picture, steps=20, out=out)
    assert sorted(jobs_here) == ["000_000", "000_001", "001_000", "001_001", "whole"]
    jobs_here.clear()
    again = fit(picture, steps=20, out=out)
    assert jobs_here == []
    assert again.metrics == first.metrics
    shutil.rmtree(out / "blocks" / "001_000")
    before = open_run(out / "blocks" / "000_000").checkpoint.stat().st_mtime_ns
    resumed = ngp_warp.fit_image_blocks(resume=out, device="cpu")
    assert jobs_here == ["001_000", "whole"]
    assert open_run(out / "blocks" / "000_000").checkpoint.stat().st_mtime_ns == before
    assert resumed.metrics["psnr"] == first.metrics["psnr"]
    for changes, message in (
        ({"steps": 30}, "steps 20, not 30"),
        ({"blocks": "3x2"}, "blocks 2x2, not 3x2"),
        ({"margin": 3}, "margin 6, not 3"),
        ({"loss": "l1"}, "loss l2, not l1"),
        ({"crop": "0,0,50,40"}, "crop None, not 0,0,50,40"),
    ):
        with pytest.raises(ConfigError, match=message):
            fit(picture, out=out, **{"steps": 20, **changes})


def test_a_broken_block_is_named_and_the_others_go_on(
    jobs_here: list[str], tmp_path: Path, capfd: Any
) -> None:
    picture = write_picture(tmp_path / "a.png", smooth(width=WIDTH, height=HEIGHT))
    out = tmp_path / "run"
    (out / "blocks").mkdir(parents=True)
    (out / "blocks" / "000_001").write_text("no folder can be made here")
    args = ["fit-image-blocks", str(picture), "--out", str(out), "--steps", "20", *BLOCK_FLAGS]
    assert app.main([*args, *SMALL_FLAGS, "--json", "--quiet"]) == 2
    printed, err = capfd.readouterr()
    failed = json.loads(printed)
    assert [item["name"] for item in failed["failed"]] == ["000_001"]
    assert "a file of that name is there" in failed["failed"][0]["error"]
    *_, block, last = err.splitlines()
    assert block.startswith("ngp: error: block 000_001: cannot make")
    assert str(out / "jobs") in block
    repeat = f"ngp fit-image-blocks --resume {out} --jobs 2"
    assert last == f"ngp: error: 1 of 4 blocks are not fitted; continue with {repeat}"
    assert jobs_here == ["000_000", "000_001", "001_000", "001_001"]
    with pytest.raises(CheckpointError, match="the first is 000_001"):
        open_run(out).render(tmp_path / "a.png")
    (out / "blocks" / "000_001").unlink()
    jobs_here.clear()
    assert app.main([*repeat.split()[1:], "--device", "cpu", "--quiet"]) == 0
    assert jobs_here == ["000_001", "whole"]


def test_what_cannot_be_read_fails_before_any_job(jobs_here: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ngp_warp.DataError, match="not an image"):
        fit(tmp_path / "a.png", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="nothing to fit"):
        ngp_warp.fit_image_blocks(blocks="2x2")
    assert jobs_here == []


def test_what_cannot_begin_leaves_nothing(refused: Any, tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", smooth(width=WIDTH, height=HEIGHT))
    args = ("fit-image-blocks", "a.png", "--steps", "20", "--blocks", "1x1")
    assert "cuda:99 is not there" in refused(*args, "--out", "run", "--device", "cuda:99")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "blocks").write_text("no folder")
    assert "cannot make the folder full" in refused(*args, "--out", "full", *SMALL_FLAGS)


def test_a_full_disk_leaves_nothing(refused: Any, tmp_path: Path, small_disk: Path) -> None:
    write_picture(tmp_path / "a.png", smooth(width=WIDTH, height=HEIGHT))
    (small_disk / "fill").write_bytes(bytes(1 << 16))
    args = ("fit-image-blocks", "a.png", "--steps", "20", "--blocks", "1x1")
    assert "No space left" in refused(*args, "--out", "disk/run", *SMALL_FLAGS)


def test_blocks_of_nobody_knows_what_are_not_taken(jobs_here: list[str], tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "a.png", smooth(width=WIDTH, height=HEIGHT))
    run = fit(picture, steps=5, out=tmp_path / "run").path
    (run / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"holds blocks of a run whose config\.json is gone"):
        fit(picture, steps=10, out=run)
    assert not (run / "config.json").exists()


def test_a_run_of_another_kind_is_named(tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "a.png")
    ngp_warp.fit_image(picture, steps=2, out=tmp_path / "run", device="cpu", **settings())
    with pytest.raises(CheckpointError, match="not in blocks; continue with ngp fit-image --resu"):
        ngp_warp.fit_image_blocks(resume=tmp_path / "run", device="cpu")


def test_settings_may_change_before_any_block_has_begun(
    jobs_here: list[str], tmp_path: Path, capfd: Any
) -> None:
    picture = write_picture(tmp_path / "a.png", smooth(width=WIDTH, height=HEIGHT))
    out = tmp_path / "a folder"
    (out / "blocks").mkdir(parents=True)
    in_the_way = [out / "blocks" / name for name in ("000_000", "000_001", "001_000", "001_001")]
    for path in in_the_way:
        path.write_text("no folder can be made here")
    args = ["fit-image-blocks", str(picture), "--out", str(out), "--steps", "20", *BLOCK_FLAGS]
    assert app.main([*args, *SMALL_FLAGS, "--quiet"]) == 2
    _, _, repeat = capfd.readouterr().err.strip().partition("continue with ngp ")
    assert shlex.split(repeat) == ["fit-image-blocks", "--resume", str(out), "--jobs", "2"]
    for path in in_the_way:
        path.unlink()
    changes = ["--loss", "l1", "--blocks", "2x1", "--device", "cpu"]
    assert app.main([*shlex.split(repeat), *changes, "--quiet"]) == 0
    assert describe(out)["blocks"] == "2x1"
    with pytest.raises(ConfigError, match="was begun with loss l1, not l2"):
        ngp_warp.fit_image_blocks(resume=out, device="cpu", loss="l2")


def test_a_setting_that_was_not_there_then_has_its_default(
    jobs_here: list[str], tmp_path: Path
) -> None:
    picture = write_picture(tmp_path / "a.png", smooth(width=WIDTH, height=HEIGHT))
    run = fit(picture, steps=5, out=tmp_path / "run").path
    header = json.loads((run / "config.json").read_text())
    del header["config"]["sampler"]
    (run / "config.json").write_text(json.dumps(header))
    jobs_here.clear()
    ngp_warp.fit_image_blocks(resume=run, device="cpu")
    assert jobs_here == []


# --- killed and interrupted


def start(folder: Path, steps: int) -> "subprocess.Popen[str]":
    """Start two blocks, and wait until both have a checkpoint."""
    picture = write_picture(folder / "a.png", smooth(width=WIDTH, height=HEIGHT))
    command = [sys.executable, "-m", "ngp_warp.cli.app", "fit-image-blocks", str(picture)]
    command += ["--out", str(folder / "run"), "--blocks", "2x1", "--margin", "4", "--jobs", "2"]
    command += ["--steps", str(steps), "--checkpoint-seconds", "0.05", "--quiet", *SMALL_FLAGS]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    blocks = [block_folder(folder / "run", 0, i) for i in range(2)]
    while not all(map(list_checkpoints, blocks)) and process.poll() is None:
        time.sleep(0.02)
    return process


def test_a_killed_run_goes_on_bit_for_bit(jobs_here: list[str], tmp_path: Path) -> None:
    steps = 4000
    process = start(tmp_path, steps)
    os.killpg(process.pid, signal.SIGKILL)  # the command, its jobs, and theirs
    process.communicate()
    run = tmp_path / "run"
    assert not (run / "jobs" / "stop").exists()
    then = [open_run(block_folder(run, 0, i)).header["step"] for i in range(2)]
    assert 0 < min(then) < steps
    cache = tmp_path / "other cache"
    resumed = ngp_warp.fit_image_blocks(
        resume=run, device="cpu", cache_dir=cache, checkpoint_seconds=7.0
    )
    assert jobs_here[-1] == "whole"
    assert resumed.metrics["steps"] == 2 * steps
    part = open_run(block_folder(run, 0, 1))
    assert part.config.cache_dir == str(cache)
    assert part.config.training.checkpoint_seconds == 7.0
    straight = ngp_warp.fit_image(
        tmp_path / "a.png", config=part.config, out=tmp_path / "straight", device="cpu"
    )
    first, second = part.arrays(), straight.arrays()
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_an_interrupted_command_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = start(tmp_path, 1_000_000)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C reaches all of them
    stdout, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert stdout == ""
    run = tmp_path / "run"
    (line,) = stderr.splitlines()
    assert line.endswith(f"continue with ngp fit-image-blocks --resume {run} --jobs 2")
    logs = "".join(path.read_text() for path in (run / "jobs").glob("*_log.err"))
    for column in range(2):
        step = open_run(block_folder(run, 0, column)).header["step"]
        assert f"interrupted and saved after step {step} of 1000000" in logs
    with pytest.raises(CheckpointError, match="2 of 2 blocks"):
        open_run(run).query(np.zeros((1, 2)))
    info = describe(run)
    assert (info["finished"], info["begun"]) == (0, 2)
