"""Laws of `ngp fit-volume` from a volume's file to its run, in both modes."""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interruption import interrupt_after
from PIL import Image
from volume_runs import SMALL, SMALL_FLAGS, STEPS, fit, fog, make_quick

import ngp_warp
from ngp_warp import launch, trainer
from ngp_warp.cli import app
from ngp_warp.errors import ConfigError, DataError
from ngp_warp.primitives import get

MODES = ("density", "radiance")
KINDS = [("fog", "density"), ("level_set", "density"), ("scan", "density"), ("vectors", "density"),
         ("fog", "radiance"), ("scan", "radiance")]  # fmt: skip
TRAINED = {"steps", "seconds", "samples_per_second", "parameters", "device", "threads", "processes"}
KEYS = {
    "density": TRAINED
    | {"psnr", "psnr_of", "psnr_occupied", "mae_occupied", "mae_empty", "max_error", "occupied"}
    | {"shape", "channels", "grid", "bytes", "dense_bytes", "compression_ratio"},
    "radiance": TRAINED
    | {"psnr", "psnr_of", "psnr_views", "psnr_noise", "opacity_error", "reference_spp", "spp"}
    | {"density_scale", "bytes"},
}
FLOORS = {
    ("fog", "density"): 60,
    ("level_set", "density"): 42,
    ("scan", "density"): 55,
    ("vectors", "density"): 55,
    ("fog", "radiance"): 22,
    ("scan", "radiance"): 22,
}
"""In decibels, some below what was seen."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    make_quick(monkeypatch)
    yield
    launch.set_num_threads(None)


def same_arrays(a: ngp_warp.Run, b: ngp_warp.Run) -> bool:
    first, second = a.arrays(), b.arrays()
    assert first.keys() == second.keys()
    return all(np.array_equal(first[name], second[name]) for name in first)


def numbers(values: Any) -> Iterator[float]:
    """Yield all numbers in JSON values."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, dict | list):
            yield from numbers(value)
        elif isinstance(value, int | float):
            yield value


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_a_run_leaves_settings_metrics_and_pictures(kind: str, mode: str, volume_runs: Any) -> None:
    run = volume_runs.run(kind, mode)
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert metrics == run.metrics
    assert metrics.keys() == KEYS[mode]
    assert all(math.isfinite(number) for number in numbers(metrics))
    assert metrics["psnr"] > FLOORS[kind, mode]
    config = json.loads((run.path / "config.json").read_text())
    assert config["config"]["mode"] == mode
    assert None not in config["config"]["encoding"].values()
    pictures = {p.name: Image.open(p) for p in (run.path / "renders").iterdir()}
    wanted = {"result.png", "target.png", "comparison.png", "error.png", "learning_curve.png"}
    assert pictures.keys() == wanted | ({"slices.png"} if mode == "density" else set())
    for picture in pictures.values():
        assert np.asarray(picture).std() > 3
    result, target = (np.asarray(pictures[n]).astype(float) for n in ("result.png", "target.png"))
    assert result.shape == target.shape
    assert np.abs(result - target).mean() < 12


def test_the_metrics_are_those_of_the_decoded_values(volume_runs: Any) -> None:
    from ngp_warp.primitives.volume.data import load_volume
    from ngp_warp.primitives.volume.subject import Subject

    for kind in ("fog", "scan", "vectors"):
        run = volume_runs.run(kind)
        true = load_volume(run.source).values.astype(np.float64)
        decoded = Subject.of(run).values(lambda progress: None)
        error = np.abs(decoded - true)
        assert run.metrics["max_error"] == pytest.approx(error.max(), rel=1e-6)
        psnr = -10 * np.log10(np.mean(error**2) / np.ptp(true) ** 2)
        assert run.metrics["psnr"] == pytest.approx(psnr, abs=2e-3)
        # of another volume it would be another
        assert abs(-10 * np.log10(np.mean((decoded - np.roll(true, 1, 0)) ** 2)) - psnr) > 5
        ratio = run.metrics["dense_bytes"] / run.metrics["bytes"]
        assert run.metrics["compression_ratio"] == pytest.approx(ratio, abs=1e-3)
    assert volume_runs.run("scan").metrics["dense_bytes"] == true_bytes(volume_runs, "scan", 1)
    assert volume_runs.run("vectors").metrics["dense_bytes"] == true_bytes(volume_runs, "vectors")


def true_bytes(volume_runs: Any, kind: str, size: int = 4) -> int:
    metrics = volume_runs.run(kind).metrics
    return math.prod(metrics["shape"]) * metrics["channels"] * size


@pytest.mark.parametrize("mode", MODES)
def test_an_interrupted_run_goes_on_bit_for_bit(
    mode: str, volume_runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = volume_runs.run("fog", mode)
    with monkeypatch.context() as patch:
        interrupt_after(150, patch)
        with pytest.raises(trainer.Interrupted):
            fit(straight.source, mode=mode, steps=STEPS, out=tmp_path / "run")
    stopped = ngp_warp.open_run(tmp_path / "run")
    assert 0 < stopped.header["step"] < STEPS
    assert not same_arrays(stopped, straight)
    resumed = fit(None, resume=tmp_path / "run", threads=3)
    assert resumed.header["step"] == STEPS
    assert same_arrays(resumed, straight)
    assert resumed.metrics["psnr"] == straight.metrics["psnr"]


@pytest.mark.parametrize("mode", MODES)
def test_the_number_of_threads_does_not_matter(mode: str, volume_runs: Any, tmp_path: Path) -> None:
    runs = [
        fit(volume_runs.source("fog"), mode=mode, steps=60, out=tmp_path / str(n), threads=n)
        for n in (1, 2, 3)
    ]
    assert same_arrays(runs[0], runs[1])
    assert same_arrays(runs[0], runs[2])
    told = [{k: v for k, v in r.metrics.items() if k not in TRAINED} for r in runs]
    assert told[0] == told[1] == told[2]
    other = fit(volume_runs.source("fog"), mode=mode, steps=60, out=tmp_path / "seed", seed=3)
    assert not same_arrays(runs[0], other)


@pytest.mark.parametrize("mode", MODES)
def test_seconds_become_steps(mode: str, volume_runs: Any, tmp_path: Path) -> None:
    run = fit(volume_runs.source("fog"), mode=mode, seconds=0.3, out=tmp_path / "run")
    assert run.metrics["steps"] == run.header["step"] == run.header["n_steps"] > 0
    assert np.isfinite(run.metrics["psnr"])


@pytest.mark.parametrize("mode", MODES)
def test_the_settings_of_a_run_make_it_again(mode: str, volume_runs: Any, tmp_path: Path) -> None:
    run = volume_runs.run("fog", mode)
    args = ["fit-volume", str(run.source), "--config", str(run.path / "config.json"), "--quiet"]
    assert app.main([*args, "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    again = ngp_warp.open_run(tmp_path / "run")
    assert again.config == run.config
    assert same_arrays(again, run)


@pytest.mark.parametrize("kind", ["fog", "scan"])
@pytest.mark.parametrize("mode", MODES)
def test_a_compact_export_is_the_same_run(
    kind: str, mode: str, volume_runs: Any, tmp_path: Path
) -> None:
    encoding = {**SMALL["encoding"], "quantization": 0.5}
    source = volume_runs.source(kind)
    run = fit(source, mode=mode, steps=60, out=tmp_path / "run", encoding=encoding)
    made = run.export("compact", tmp_path / "a.safetensors")
    small = ngp_warp.open_run(made["output"], device="cpu")
    assert made["output"].stat().st_size < run.checkpoint.stat().st_size / 3
    from ngp_warp.primitives.volume.describe import Described

    frame = Described.of(run).frame
    points = frame.world_from_voxel(np.random.default_rng(0).uniform(-2, 12, (300, 3)))
    for a, b in zip(run.value_and_gradient(points), small.value_and_gradient(points), strict=True):
        assert np.array_equal(a, b)
        assert a.any()
    pictures = [r.render(tmp_path / f"{n}.png", width=24, spp=2).read_bytes()
                for n, r in enumerate((run, small))]  # fmt: skip
    assert pictures[0] == pictures[1]
    exports = [r.export("nvdb", tmp_path / f"{n}.nvdb")["output"].read_bytes()
               for n, r in enumerate((run, small))]  # fmt: skip
    assert exports[0] == exports[1]


@pytest.mark.parametrize("mode", MODES)
def test_eval_repeats_the_metrics(
    mode: str, volume_runs: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    run = volume_runs.run("fog", mode)
    assert app.main(["eval", str(run.path), "--json", "--device", "cpu"]) == 0
    metrics = json.loads(capfd.readouterr().out)
    assert metrics == {name: run.metrics[name] for name in metrics}
    assert KEYS[mode] - TRAINED <= metrics.keys()


def test_another_volume_is_neither_resumed_nor_measured(volume_runs: Any, tmp_path: Path) -> None:
    source = tmp_path / "a.npy"
    values = fog().values
    np.save(source, values)
    run = fit(source, steps=3, out=tmp_path / "run")
    np.save(source, np.roll(values, 1, axis=0))
    for attempt in (
        lambda: fit(None, resume=run.path, steps=5),
        lambda: run.render(tmp_path / "no.png", show="reference", width=16),
        lambda: get("volume").evaluate(run),
    ):
        with pytest.raises(DataError, match="not what the run was fitted to") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    shutil.copy(volume_runs.source("scan"), source)  # another kind of file
    with pytest.raises(DataError, match="not what the run was fitted to"):
        fit(None, resume=run.path, steps=5)
    assert not (tmp_path / "no.png").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("mode", "density"), ("sun", "none"), ("albedo", 0.5), ("up", "x")]
)
def test_a_run_is_not_resumed_to_learn_something_else(
    name: str, value: Any, volume_runs: Any
) -> None:
    run = volume_runs.run("fog", "radiance")
    before = sorted(run.path.rglob("*"))
    with pytest.raises(ConfigError, match=f"the run has {name}"):
        fit(None, resume=run.path, steps=STEPS + 1, **{name: value})
    assert sorted(run.path.rglob("*")) == before


def test_a_resumed_run_keeps_what_a_config_leaves_open(volume_runs: Any, tmp_path: Path) -> None:
    settings: Any = {"mode": "radiance", "density_scale": 0.7, "up": "z"}
    run = fit(volume_runs.source("fog"), **settings, steps=3, out=tmp_path / "run")
    given = replace(run.config, density_scale=None, up=None)
    resumed = fit(None, resume=run.path, config=given, steps=4)
    assert resumed.header["step"] == 4
    assert (resumed.config.density_scale, resumed.config.up) == (0.7, "z")


@pytest.mark.parametrize("mode", MODES)
def test_what_is_odd_is_told(mode: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    values = fog().values.copy()
    values[3, 4, 5], values[9, 9, 9], values[8, 8, 8] = np.nan, -0.25, np.inf
    values[0, 0, 1] = -0.5
    np.save(tmp_path / "odd.npy", values)
    args = ["fit-volume", str(tmp_path / "odd.npy"), "--mode", mode, "--steps", "3", *SMALL_FLAGS]
    assert app.main([*args, "--out", str(tmp_path / "run")]) == 0
    err = capfd.readouterr().err
    assert "1 voxel is NaN and taken as inactive; the first at [x, y, z] = [3, 4, 5]" in err
    assert "1 voxel is infinite and taken as inactive" in err
    assert "2 voxels are negative and kept; the first at [x, y, z] = [0, 0, 1]" in err
    run = ngp_warp.open_run(tmp_path / "run")
    assert all(math.isfinite(number) for number in numbers(run.metrics))


@pytest.mark.parametrize(
    "settings",
    [
        {"target": "trilinear"},
        {"occupied_share": 0.9},
        {"loss": "l1"},
        {"seed": 3},
        {"mode": "radiance", "albedo": 0.2},
        {"mode": "radiance", "sun": "none"},
        {"mode": "radiance", "sun": "10,80"},
        {"mode": "radiance", "density_scale": 2.0},
        {"mode": "radiance", "up": "z"},
    ],
    ids=lambda s: "-".join(map(str, s.values())),
)
def test_every_setting_counts(settings: Any, volume_runs: Any, tmp_path: Path) -> None:
    source, mode = volume_runs.source("fog"), settings.get("mode", "density")
    usual = fit(source, mode=mode, steps=20, out=tmp_path / "usual")
    other = fit(source, **settings, steps=20, out=tmp_path / "other")
    assert not np.array_equal(usual.arrays()["encoding.value"], other.arrays()["encoding.value"])
    assert np.isfinite(other.metrics["psnr"])


@pytest.mark.parametrize(
    "values",
    [
        np.full((6, 5, 4), 0.5),
        np.full((6, 5, 4), -3.0),
        np.ones((1, 1, 1)),
        np.linspace(1, 2, 40).reshape(1, 40, 1),
        fog().values * 1e-36,
        fog().values * 1e33,
        fog().values * 2.0 - 1.0,
        fog().values > 0.5,
        np.arange(60, dtype=np.int16).reshape(3, 4, 5) - 2000,
    ],
    ids=["constant", "negative", "voxel", "column", "tiny", "huge", "signs", "bool", "int16"],
)
def test_odd_volumes_are_fitted(values: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values)
    run = fit(tmp_path / "a.npy", steps=150, out=tmp_path / "run")
    assert all(math.isfinite(number) for number in numbers(run.metrics))
    assert run.metrics["psnr"] > 20
    for name in ("npy", "nii", "vdb"):
        assert run.export(name)["bytes"] > 0
    again = np.load(run.path / "exports" / "volume.npy")
    assert np.abs(again - values.astype(np.float64)).max() <= run.metrics["max_error"] * 1.00001
    for show in ("shaded", "surface", "mip", "transfer", "slices"):
        run.render(tmp_path / f"{show}.png", show=show, width=16)


@pytest.mark.parametrize("values", [fog().values * 1e-40, (fog().values - 0.5) * 3e38])
def test_a_range_that_float32_does_not_hold_is_refused(values: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(DataError, match=r"a\.npy: its values differ by"):
        fit(tmp_path / "a.npy", steps=3, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_medium_of_which_nothing_is_seen_is_measured(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", fog().values)
    run = fit(tmp_path / "a.npy", mode="radiance", density_scale=1e-20, steps=3, out=tmp_path / "r")
    assert run.metrics["psnr"] is None
    assert run.metrics["opacity_error"] == 0


@pytest.mark.parametrize(("name", "value"), [("target", "voxel"), ("occupied_share", 0.5)])
def test_settings_of_the_other_mode_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} is for density mode"):
        get("volume").config(mode="radiance", **{name: value})
