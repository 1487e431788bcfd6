"""Laws of pictures in blocks: independent jobs make one image."""

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from block_runs import BLOCK_FLAGS, HEIGHT, MARGIN, WIDTH, fit
from image_runs import SMALL_FLAGS, settings, smooth, write_picture

import ngp_warp
from ngp_warp.cli import app
from ngp_warp.primitives.image.blocks import mosaic
from ngp_warp.primitives.image.blocks.layout import Layout, make_layout, name_of
from ngp_warp.primitives.image.blocks.mosaic import block_folder
from ngp_warp.primitives.image.config import format_box, parse_box
from ngp_warp.primitives.image.data import load_image
from ngp_warp.primitives.image.render import transfer_of
from ngp_warp.primitives.image.transfer import choose
from ngp_warp.run import open_run
from ngp_warp.run_folder import read_blocks

pytest.importorskip("submitit")

ROOT = Path(__file__).resolve().parent.parent


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
def test_one_block_is_the_ordinary_run(name: str, jobs_here: list[str], tmp_path: Path) -> None:
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
    assert jobs_here == ["000_000", "whole"]


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


def test_blocks_of_high_range_share_their_transfer(jobs_here: list[str], tmp_path: Path) -> None:
    truth = smooth(3, "float32", WIDTH, HEIGHT)
    truth[: HEIGHT // 2, : WIDTH // 2] *= 500  # the other blocks have values in 0..1 alone
    picture = write_picture(tmp_path / "hdr.npy", truth)
    run = fit(picture, steps=10, out=tmp_path / "run")
    scale = choose(ngp_warp.ImageConfig(), load_image(picture))[1].transfer_scale
    for config in (run.config, *(open_run(p).config for p in (run.path / "blocks").iterdir())):
        assert (config.transfer, config.transfer_scale) == ("asinh", scale)
    assert run.header["data"]["tone_map"]
    assert "v/(1+v)" in run.metrics["psnr_of"]
    assert len(jobs_here) == 5


def test_blocks_of_a_part_are_that_part(jobs_here: list[str], tmp_path: Path) -> None:
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
