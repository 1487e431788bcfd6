"""Laws of pictures in blocks: independent jobs make one image, whatever stops some of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_runs import SMALL_FLAGS, settings, smooth, write_picture

import ngp_warp
from ngp_warp import jobs as jobs_module
from ngp_warp.cli import app
from ngp_warp.errors import CheckpointError, ConfigError
from ngp_warp.primitives.image.blocks import mosaic
from ngp_warp.primitives.image.blocks.layout import Layout, make_layout, name_of, weights
from ngp_warp.primitives.image.blocks.mosaic import block_folder
from ngp_warp.primitives.image.config import format_box, parse_box
from ngp_warp.primitives.image.data import load_image
from ngp_warp.primitives.image.render import transfer_of
from ngp_warp.primitives.image.transfer import choose
from ngp_warp.run import describe, list_checkpoints, open_run, read_blocks

pytest.importorskip("submitit")

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT, MARGIN = 90, 61, 6
BLOCK_FLAGS = ["--blocks", "2x2", "--margin", str(MARGIN), "--jobs", "2"]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the jobs in this process; returns the names of those that ran."""
    ran: list[str] = []

    def run_all(self: Any, works: list[Any], watch: Any) -> list[jobs_module.Outcome]:
        ended = []
        for work in works:
            ran.append(work.name)
            result = work()
            log = self.folder / "log"
            outcome = jobs_module.Outcome(work, result["state"], result.get("error", ""), log)
            ended.append(outcome)
            watch(ended)
        return ended

    monkeypatch.setattr(jobs_module.Jobs, "run_all", run_all)
    return ran


def fit(source: Path | None, **options: Any) -> ngp_warp.Run:
    options = {"device": "cpu", "margin": MARGIN, "blocks": "2x2", **options}
    return ngp_warp.fit_image_blocks(source, **settings(**options))


@pytest.fixture(scope="module")
def by_jobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A run by submitit's local executor; the folder, what --json printed, and stderr."""
    folder = tmp_path_factory.mktemp("by-jobs")
    write_picture(folder / "a.png", smooth(width=WIDTH, height=HEIGHT))
    command = [sys.executable, "-m", "ngp_warp.cli.app", "fit-image-blocks", str(folder / "a.png")]
    command += ["--out", str(folder / "run"), "--steps", "60", "--json", *BLOCK_FLAGS]
    done = subprocess.run(
        [*command, *SMALL_FLAGS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return folder / "run", json.loads(line), done.stderr


# --- layout


@given(
    length=st.integers(1, 5000),
    count=st.integers(1, 12),
    margin=st.integers(0, 40),
    share=st.floats(0, 1),
)
def test_weights_sum_to_one(length: int, count: int, margin: int, share: float) -> None:
    try:
        layout = make_layout(length, length, blocks=f"{count}x{count}", margin=margin)
    except ConfigError:
        return
    positions = np.append(np.arange(length) + 0.5, [0.0, share * length, length])
    parts = [weights(positions, layout.edges_x, margin, i) for i in range(count)]
    total = np.sum([w for w, _ in parts], axis=0)
    assert np.allclose(total, 1, rtol=0, atol=1e-15 * count)
    assert all((w >= 0).all() and (w <= 1).all() for w, _ in parts)
    assert np.allclose(np.sum([s for _, s in parts], axis=0), 0, atol=1e-12)
    for i, (weight, _) in enumerate(parts):
        first, last = layout.span_x(i)
        assert (weight[(positions < first) | (positions > last)] == 0).all()
        inner = (positions >= first + 2 * margin) & (positions < last - 2 * margin)
        assert (weight[inner] == 1).all()


def test_cores_tile_the_image_and_boxes_have_the_margin_around_them() -> None:
    layout = make_layout(103, 57, blocks="4x2", margin=5)
    seen = np.zeros((57, 103), int)
    for at in layout.cells():
        left, top, width, height = layout.core(*at)
        seen[top : top + height, left : left + width] += 1
        box = layout.box(*at)
        assert box[0] == max(left - 5, 0)
        assert box[0] + box[2] == min(left + width + 5, 103)
        assert box[1] == max(top - 5, 0)
        assert box[1] + box[3] == min(top + height + 5, 57)
    assert (seen == 1).all()
    assert Layout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout
    sized = make_layout(103, 57, block_size=30, margin=5)
    assert (sized.columns, sized.rows) == (4, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--blocks COLUMNSxROWS or --block-size"),
        ({"blocks": "2x2", "block_size": 9}, "not both"),
        ({"blocks": "2"}, "COLUMNSxROWS"),
        ({"blocks": "0x2"}, "COLUMNSxROWS"),
        ({"blocks": "200x1", "margin": 0}, "have a side of 0"),
        ({"blocks": "4x4"}, "less than two margins of 16"),
        ({"blocks": "1x1", "margin": -1}, "at least 0"),
    ],
)
def test_blocks_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_layout(100, 100, **options)


# --- by submitit's local executor


def test_jobs_make_one_image(by_jobs: tuple[Path, dict[str, Any], str]) -> None:
    folder, told, stderr = by_jobs
    run = open_run(folder, device="cpu")
    assert told["run"] == str(folder)
    assert {b["name"] for b in told["blocks"]} == {"000_000", "000_001", "001_000", "001_001"}
    assert told["steps"] == 4 * 60
    assert told["psnr"] == run.metrics["psnr"]
    assert {Path(p).name for p in told["pictures"]} >= {"result.png", "comparison.png", "error.png"}
    assert "block 001_001: " in stderr
    assert not list((folder / "blocks").glob("*/exports/*"))
    for name in ("000_000", "001_001"):
        part = open_run(folder / "blocks" / name)
        assert part.metrics["steps"] == 60
        assert part.config.crop


def test_the_picture_is_that_of_the_blocks(
    by_jobs: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    run = open_run(by_jobs[0], device="cpu")
    whole = load_image(run.render(tmp_path / "whole.npy")).pixels
    assert whole.shape == (HEIGHT, WIDTH, 3)
    assert whole.dtype == np.uint8
    layout = Layout.from_dict(read_blocks(run.path))
    for at in layout.cells():
        part = open_run(block_folder(run.path, *at), device="cpu")
        alone = load_image(part.render(tmp_path / f"{name_of(*at)}.npy")).pixels
        left, top, width, height = layout.core(*at)
        first_x = left + (MARGIN if left else 0)
        first_y = top + (MARGIN if top else 0)
        last_x = left + width - (MARGIN if left + width < WIDTH else 0)
        last_y = top + height - (MARGIN if top + height < HEIGHT else 0)
        x, y = layout.box(*at)[:2]
        inside = alone[first_y - y : last_y - y, first_x - x : last_x - x]
        assert np.array_equal(whole[first_y:last_y, first_x:last_x], inside)


def test_a_crop_and_a_scaled_picture_are_those_of_the_whole(
    by_jobs: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    run = open_run(by_jobs[0], device="cpu")
    whole = load_image(run.render(tmp_path / "whole.png")).pixels
    box = (WIDTH // 2 - 9, HEIGHT // 2 - 7, 20, 15)  # over all four blocks
    part = load_image(run.render(tmp_path / "part.png", crop=box)).pixels
    assert np.array_equal(part, whole[box[1] : box[1] + 15, box[0] : box[0] + 20])
    for width, height in ((9, 6), (200, 136)):
        scaled = load_image(run.render(tmp_path / f"{width}.npy", width=width)).pixels
        assert scaled.shape == (height, width, 3)
        x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
        points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
        expected = np.clip(np.rint(255 * run.query(points)), 0, 255).reshape(scaled.shape)
        # the two round a position's last bit differently
        assert np.abs(scaled - expected).max() <= 1


def test_queries_agree_with_the_picture_and_with_their_gradients(
    by_jobs: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    run = open_run(by_jobs[0], device="cpu")
    whole = load_image(run.render(tmp_path / "whole.npy")).pixels
    y, x = (a.reshape(-1) for a in np.mgrid[0:HEIGHT, 0:WIDTH])
    points = (np.stack([x, y], 1) + 0.5) / [WIDTH, HEIGHT]
    values, jacobian = run.value_and_gradient(points)
    assert np.array_equal(values, run.query(points))
    decoded = np.clip(np.rint(255 * values), 0, 255).reshape(whole.shape)
    assert np.abs(decoded - whole).max() <= 1
    # central differences; points where a cell of a grid or a fade begins differ
    step = 1e-3 / WIDTH
    for axis in (0, 1):
        shift = step * np.eye(2)[axis]
        slope = (run.query(points + shift) - run.query(points - shift)) / (2 * step)
        error = np.abs(slope - jacobian[..., axis])
        assert np.median(error) < 0.02 * np.abs(slope).max()
        assert (error > 0.1 * np.abs(slope).max()).mean() < 0.05
    assert np.isfinite(run.query(np.array([[0.0, 1.0], [1.0, 0.0], [-3.0, np.nan]]))).all()


def test_metrics_are_those_of_the_stitched_picture(
    by_jobs: tuple[Path, dict[str, Any], str], tmp_path: Path, capfd: Any
) -> None:
    folder, told, _ = by_jobs
    run = open_run(folder, device="cpu")
    truth = load_image(run.source).pixels.astype(float)
    whole = load_image(run.render(tmp_path / "whole.npy")).pixels
    error = np.square(whole - truth) / 255**2
    assert told["psnr"] == pytest.approx(-10 * np.log10(error.mean()), abs=1e-3)
    layout = Layout.from_dict(read_blocks(folder))
    for block, at in zip(told["blocks"], layout.cells(), strict=True):
        left, top, width, height = layout.core(*at)
        mean = error[top : top + height, left : left + width].mean()
        assert block["psnr"] == pytest.approx(-10 * np.log10(mean), abs=1e-3)
    assert app.main(["eval", str(folder), "--device", "cpu", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["psnr"] == told["psnr"]


def test_every_command_takes_it_as_one_run(
    by_jobs: tuple[Path, dict[str, Any], str], tmp_path: Path, capfd: Any
) -> None:
    folder = str(by_jobs[0])
    assert app.main(["info", folder, "--json"]) == 0
    info = json.loads(capfd.readouterr().out)
    assert (info["blocks"], info["finished"], info["step"]) == ("2x2", 4, 240)
    assert info["parameters"] == by_jobs[1]["parameters"]
    for name in ("tif", "dzi"):
        args = ["export", folder, "--format", name, "-o", str(tmp_path / f"a.{name}")]
        assert app.main([*args, "--device", "cpu", "--quiet"]) == 0
    assert (tmp_path / "a.dzi" / "image.html").is_file()
    assert app.main(["export", folder, "--format", "compact", "--quiet"]) == 2
    assert "export each of them" in capfd.readouterr().err
    assert app.main(["fit-image", "--resume", folder, "--quiet"]) == 2
    assert "ngp fit-image-blocks --resume" in capfd.readouterr().err
    assert app.main(["fit-image", "x.png", "--out", folder, "--quiet"]) == 2
    assert "already holds a run" in capfd.readouterr().err


# --- laws of one image


@pytest.mark.parametrize("name", ["a.png", "hdr.exr"])
def test_one_block_is_the_ordinary_run(name: str, here: list[str], tmp_path: Path) -> None:
    truth = smooth(width=WIDTH, height=HEIGHT)
    if name == "hdr.exr":
        truth = 20 * np.square(smooth(3, "float32", WIDTH, HEIGHT)) - 1
    picture = write_picture(tmp_path / name, truth)
    ordinary = ngp_warp.fit_image(
        picture, steps=40, out=tmp_path / "ordinary", device="cpu", **settings()
    )
    run = fit(picture, steps=40, blocks="1x1", out=tmp_path / "run")
    first, second = ordinary.arrays(), open_run(run.path / "blocks" / "000_000").arrays()
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)
    pictures = [r.render(tmp_path / f"{i}.npy") for i, r in enumerate((ordinary, run))]
    assert np.array_equal(*(np.load(path) for path in pictures))
    scaled = [r.render(tmp_path / f"s{i}.npy", scale=1.7) for i, r in enumerate((ordinary, run))]
    assert np.array_equal(*(np.load(path) for path in scaled))
    same = ("psnr", "ssim", "bytes", "bits_per_pixel", "parameters", "steps")
    assert {k: run.metrics[k] for k in same} == {k: ordinary.metrics[k] for k in same}
    assert here == ["000_000", "whole"]


class Plane:
    """In place of a block's ``Raster``: x, y and a constant, in pixels of the whole image."""

    def __init__(self, field: Any, transfer: Any, width: float, height: float, box: Any):
        self.field = types.SimpleNamespace(device="cpu", n_params=1)
        left, top, block_width, block_height = parse_box(field)
        x = left + (box[0] + np.arange(box[2]) + 0.5) * (block_width / width)
        y = top + (box[1] + np.arange(box[3]) + 0.5) * (block_height / height)
        self.values = np.empty((box[3], box[2], 3), np.float32)
        self.values[..., 0], self.values[..., 1] = x[None, :], y[:, None]
        self.values[..., 2] = 77.3

    def rows(self, first: int, n_rows: int) -> np.ndarray:
        assert 0 <= first <= first + n_rows <= len(self.values)
        return self.values[first : first + n_rows]


@pytest.mark.parametrize("layout", ["2x2", "3x1", "1x1"])
@pytest.mark.parametrize("size", [(90, 61), (180, 122), (13, 9), (301, 204)])
@pytest.mark.parametrize("margin", [0, 6])
def test_blocks_that_agree_make_that_very_picture(
    layout: str,
    size: tuple[int, int],
    margin: int,
    by_jobs: tuple[Path, dict[str, Any], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = open_run(by_jobs[0], device="cpu").fitted
    whole.layout = make_layout(WIDTH, HEIGHT, blocks=layout, margin=margin)
    monkeypatch.setattr(whole, "block", lambda *at: format_box(whole.layout.box(*at)))
    monkeypatch.setattr(mosaic, "load_field", lambda block: block)
    monkeypatch.setattr(mosaic, "Raster", Plane)
    monkeypatch.setattr(mosaic, "_BAND_VALUES", 7 * size[0] * 3)
    for box in ((0, 0, *size), (size[0] // 3, size[1] // 4, size[0] // 2, size[1] // 2)):
        bands = [band for _, band in whole.raster(None, *size, box).bands()]
        found = np.concatenate(bands)
        assert found.shape == (box[3], box[2], 3)
        x = (box[0] + np.arange(box[2]) + 0.5) * WIDTH / size[0]
        y = (box[1] + np.arange(box[3]) + 0.5) * HEIGHT / size[1]
        assert np.allclose(found[..., 0], x[None, :], rtol=0, atol=1e-4)  # float32 of 90
        assert np.allclose(found[..., 1], y[:, None], rtol=0, atol=1e-4)
        assert (found[..., 2] == np.float32(77.3)).all()


def test_blocks_of_high_dynamic_range_share_their_transfer(here: list[str], tmp_path: Path) -> None:
    truth = smooth(3, "float32", WIDTH, HEIGHT)
    truth[: HEIGHT // 2, : WIDTH // 2] *= 500  # the other blocks have values in 0..1 alone
    picture = write_picture(tmp_path / "hdr.npy", truth)
    run = fit(picture, steps=10, out=tmp_path / "run")
    scale = choose(ngp_warp.ImageConfig(), load_image(picture))[1].transfer_scale
    for config in (run.config, *(open_run(p).config for p in (run.path / "blocks").iterdir())):
        assert (config.transfer, config.transfer_scale) == ("asinh", scale)
    assert run.header["data"]["tone_map"]
    assert "v/(1+v)" in run.metrics["psnr_of"]
    assert len(here) == 5


def test_blocks_of_a_part_are_that_part(here: list[str], tmp_path: Path) -> None:
    truth = smooth(width=WIDTH, height=HEIGHT)
    write_picture(tmp_path / "part.png", truth[7:57, 5:65])
    whole = write_picture(tmp_path / "whole.png", truth)
    one = fit(tmp_path / "part.png", steps=20, blocks="1x2", out=tmp_path / "one")
    other = fit(whole, steps=20, blocks="1x2", crop="5,7,60,50", out=tmp_path / "other")
    assert open_run(other.path / "blocks" / "001_000").config.crop == "5,26,60,31"
    pictures = [run.render(tmp_path / f"{run.path.name}.npy") for run in (one, other)]
    assert np.array_equal(*(np.load(path) for path in pictures))


def test_memory_for_one_block_is_enough(
    by_jobs: tuple[Path, dict[str, Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(by_jobs[0], device="cpu")
    plenty = np.load(run.render(tmp_path / "plenty.npy"))
    monkeypatch.setattr(mosaic, "_is_short", lambda field: True)
    monkeypatch.setattr(mosaic, "_BAND_VALUES", 5 * WIDTH * 3)
    short = open_run(by_jobs[0], device="cpu")
    raster = short.fitted.raster(transfer_of(run.config), WIDTH, HEIGHT)
    bands = []
    for _, band in raster.bands():
        assert not raster._open
        bands.append(band)
    assert np.array_equal(np.clip(np.rint(np.concatenate(bands)), 0, 255), plenty)
    points = np.random.default_rng(0).random((50, 2))
    assert np.array_equal(short.query(points), run.query(points))


# --- repeated commands


def test_only_what_is_missing_is_fitted_again(here: list[str], tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "a.png", smooth(width=WIDTH, height=HEIGHT))
    out = tmp_path / "run"
    first = fit(picture, steps=20, out=out)
    assert sorted(here) == ["000_000", "000_001", "001_000", "001_001", "whole"]
    here.clear()
    again = fit(picture, steps=20, out=out)
    assert here == []
    assert again.metrics == first.metrics
    shutil.rmtree(out / "blocks" / "001_000")
    before = open_run(out / "blocks" / "000_000").checkpoint.stat().st_mtime_ns
    resumed = ngp_warp.fit_image_blocks(resume=out, device="cpu")
    assert here == ["001_000", "whole"]
    assert open_run(out / "blocks" / "000_000").checkpoint.stat().st_mtime_ns == before
    assert resumed.metrics["psnr"] == first.metrics["psnr"]
    for changes, message in (
        ({"steps": 30}, "steps 20, not 30"),
        ({"blocks": "3x2"}, "edges_x"),
        ({"margin": 3}, "margin 6, not 3"),
        ({"loss": "l1"}, "loss l2, not l1"),
    ):
        with pytest.raises(ConfigError, match=message):
            fit(picture, out=out, **{"steps": 20, **changes})


def test_a_broken_block_is_named_and_the_others_go_on(
    here: list[str], tmp_path: Path, capfd: Any
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
    assert here == ["000_000", "000_001", "001_000", "001_001"]
    with pytest.raises(CheckpointError, match="the first is 000_001"):
        open_run(out).render(tmp_path / "a.png")
    (out / "blocks" / "000_001").unlink()
    here.clear()
    assert app.main([*repeat.split()[1:], "--device", "cpu", "--quiet"]) == 0
    assert here == ["000_001", "whole"]


def test_what_cannot_be_read_fails_before_any_job(here: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ngp_warp.DataError, match="not an image"):
        fit(tmp_path / "a.png", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="nothing to fit"):
        ngp_warp.fit_image_blocks(blocks="2x2")
    assert here == []


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


def test_a_killed_run_goes_on_bit_for_bit(here: list[str], tmp_path: Path) -> None:
    steps = 4000
    process = start(tmp_path, steps)
    os.killpg(process.pid, signal.SIGKILL)  # the command, its jobs, and theirs
    process.communicate()
    run = tmp_path / "run"
    assert not (run / "jobs" / "stop").exists()
    then = [open_run(block_folder(run, 0, i)).header["step"] for i in range(2)]
    assert 0 < min(then) < steps
    resumed = ngp_warp.fit_image_blocks(resume=run, device="cpu")
    assert here[-1] == "whole"
    assert resumed.metrics["steps"] == 2 * steps
    part = open_run(block_folder(run, 0, 1))
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
