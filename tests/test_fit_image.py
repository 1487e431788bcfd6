"""Laws of fitting an image from end to end: formats, settings, metrics, the run's folder."""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_runs import SMALL_FLAGS, settings, smooth, write_picture

import ngp_warp
from ngp_warp.cli import app
from ngp_warp.primitives.image.data import load_image
from ngp_warp.run_folder import new_folder

METRICS = {
    *("psnr", "ssim", "width", "height", "channels", "steps", "seconds", "samples_per_second"),
    *("parameters", "bytes", "bits_per_pixel", "device", "threads"),
}
DEEPER = {
    "batch_size": 1024,
    "encoding": {"n_levels": 4, "n_features_per_level": 2, "log2_hashmap_size": 10},
}


def psnr(a: np.ndarray, b: np.ndarray, peak: float) -> float:
    return -10 * math.log10(np.mean(np.square(a.astype(float) - b.astype(float))) / peak**2)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> ngp_warp.Run:
    """A run that several tests read and none changes."""
    folder = tmp_path_factory.mktemp("fitted")
    picture = write_picture(folder / "picture.png")
    return ngp_warp.fit_image(
        picture, steps=60, out=folder / "run", device="cpu", **settings(**DEEPER)
    )


# --- formats


@pytest.mark.parametrize(
    ("name", "channels", "dtype"),
    [
        ("rgb.png", 3, "uint8"),
        ("rgba.png", 4, "uint8"),
        ("grey.png", 1, "uint8"),
        ("grey-alpha.png", 2, "uint8"),
        ("rgb16.png", 3, "uint16"),
        ("grey16.tif", 1, "uint16"),
        ("linear.exr", 3, "float32"),
        ("alpha.npy", 4, "float32"),
    ],
)
def test_a_smooth_picture_comes_back_in_its_format(
    name: str, channels: int, dtype: str, tmp_path: Path
) -> None:
    truth = smooth(channels, dtype)
    picture = write_picture(tmp_path / name, truth)
    run = ngp_warp.fit_image(
        picture, steps=300, out=tmp_path / "run", device="cpu", **settings(**DEEPER)
    )
    decoded = load_image(run.render(tmp_path / f"decoded-{name}"))
    assert decoded.pixels.dtype == dtype
    assert decoded.pixels.shape == truth.shape
    assert run.metrics["channels"] == channels
    peak = 1.0 if dtype == "float32" else np.iinfo(dtype).max
    # The waves are smooth over several cells of the grid: 30 dB is an error of 3%.
    assert psnr(decoded.pixels, truth, peak) > 30
    shown = [np.rint(np.clip(v, 0, 1) * 255) if peak == 1 else v for v in (decoded.pixels, truth)]
    assert run.metrics["psnr"] == pytest.approx(psnr(*shown, max(peak, 255.0)), abs=1e-3)


def test_high_dynamic_range_keeps_its_range_and_signs(tmp_path: Path) -> None:
    truth = 20 * np.square(smooth(3, "float32")) - 1.0
    truth[4:8, 4:8] = 300.0
    assert (truth < 0).mean() > 0.05
    picture = write_picture(tmp_path / "hdr.exr", truth.astype(np.float32))
    run = ngp_warp.fit_image(
        picture, steps=400, out=tmp_path / "run", device="cpu", **settings(**DEEPER)
    )
    assert run.config.transfer == "asinh"
    assert "v/(1+v)" in run.metrics["psnr_of"]
    decoded = np.asarray(load_image(run.render(tmp_path / "decoded.exr")).pixels)
    below = truth < -0.1
    assert (decoded[below] < 0).mean() > 0.95
    assert run.metrics["negative_sign_right"] > 0.9
    assert decoded.max() > 100
    # A query gives the same values as the picture, at the centres of its pixels.
    centres = (np.array([[5, 5], [20, 30], [40, 10]]) + 0.5) / [48, 32]
    values = run.query(centres)
    expected = decoded[[5, 30, 10], [5, 20, 40]]
    assert np.allclose(values, expected, rtol=1e-4, atol=1e-4)  # float32 sinh of both
    eight_bit = load_image(run.render(tmp_path / "decoded.png"))
    assert eight_bit.pixels.dtype == np.uint8


# --- settings


CHANGES: dict[str, dict[str, Any]] = {
    **{f"loss {v}": {"loss": v} for v in ("l1", "relative_l2", "mape", "smape", "huber", "log_l1")},
    **{f"sampler {v}": {"sampler": v} for v in ("uniform", "halton", "sobol")},
    "target": {"target": "bilinear"},
    **{f"grid {v}": {"encoding": {"grid_type": v}} for v in ("dense", "tiled")},
    **{f"interpolation {v}": {"encoding": {"interpolation": v}} for v in ("smoothstep", "nearest")},
    "half": {"encoding": {"dtype": "float16"}},
    "levels": {"encoding": {"n_levels": 3}},
    "features": {"encoding": {"n_features_per_level": 1}},
    "table": {"encoding": {"log2_hashmap_size": 7}},
    "base": {"encoding": {"base_resolution": 8}},
    "finest": {"encoding": {"finest_resolution": 24}},
    "scale": {"encoding": {"per_level_scale": 1.3}},
    "bias": {"network": {"bias": True}},
    "skip": {"network": {"n_hidden_layers": 2, "skip_layer": 1}},
    "width": {"network": {"n_neurons": 32}},
    "depth": {"network": {"n_hidden_layers": 2}},
    "activation": {"network": {"activation": "tanh"}},
    "output": {"network": {"output_activation": "sigmoid"}},
    "rate": {"optimizer": {"learning_rate": 0.02}},
    "beta1": {"optimizer": {"beta1": 0.5}},
    "beta2": {"optimizer": {"beta2": 0.9}},
    "epsilon": {"optimizer": {"epsilon": 1e-3}},
    "regularization": {"optimizer": {"l2_regularization": 0.1}},
    "decay start": {"optimizer": {"decay_start": 0.0}},
    "decay": {"optimizer": {"final_learning_rate": 0.5}},
    "average": {"optimizer": {"ema_decay": 0.9}},
    "batch": {"batch_size": 512},
    "seed": {"seed": 1},
}


def decoded(run: ngp_warp.Run) -> np.ndarray:
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9)), -1).reshape(-1, 2)
    return run.query(grid)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp("plain")
    picture = write_picture(folder / "picture.png")
    run = ngp_warp.fit_image(picture, steps=4, out=folder / "run", device="cpu", **settings())
    return picture, decoded(run)


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_the_result(
    name: str, plain: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    picture, before = plain
    run = ngp_warp.fit_image(
        picture, steps=4, out=tmp_path / "run", device="cpu", **settings(**CHANGES[name])
    )
    values = decoded(run)
    assert np.isfinite(values).all()
    assert not np.array_equal(values, before)


def test_no_change_changes_nothing(plain: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    picture, before = plain
    run = ngp_warp.fit_image(picture, steps=4, out=tmp_path / "run", device="cpu", **settings())
    assert np.array_equal(decoded(run), before)


def test_the_unfused_network_computes_the_same(
    plain: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    picture, before = plain
    run = ngp_warp.fit_image(
        picture,
        steps=4,
        out=tmp_path / "r",
        device="cpu",
        **settings(network={"backend": "unfused"}),
    )
    assert np.allclose(decoded(run), before, atol=1e-4)  # other order of float32 sums, 4 steps


def test_values_of_any_size_can_be_fitted(tmp_path: Path) -> None:
    truth = 1e9 * smooth(3, "float32")
    truth[:8] = 1e-40  # noise below all that matters, not even a normal float
    picture = write_picture(tmp_path / "wide.npy", truth)
    run = ngp_warp.fit_image(picture, steps=9, out=tmp_path / "run", device="cpu", **settings())
    assert np.isfinite(decoded(run)).all()


def test_transfers_differ_where_there_is_a_choice(tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "linear.exr", smooth(3, "float32"))
    results = []
    for number, change in enumerate(
        [{}, {"transfer": "asinh"}, {"transfer": "asinh", "transfer_scale": 0.01}]
    ):
        out = tmp_path / str(number)
        run = ngp_warp.fit_image(picture, steps=4, out=out, device="cpu", **settings(**change))
        results.append(decoded(run))
    assert not np.array_equal(results[0], results[1])
    assert not np.array_equal(results[1], results[2])


def test_the_steps_of_the_default_size_reach_every_level(tmp_path: Path) -> None:
    photo = Path(__file__).parent.parent / "examples" / "seeding.jpg"
    image = load_image(photo)
    from ngp_warp.encodings.grid import grid_levels
    from ngp_warp.primitives.image.config import ImageConfig
    from ngp_warp.primitives.image.task import ImageTask, estimate

    task = ImageTask(image, estimate(image, ImageConfig(), "cpu")[0], "cpu")
    before = {name: p.value.numpy().copy() for name, p in task.field.parameters().items()}
    stages = task.stages()
    from ngp_warp import launch

    for _ in range(3):
        for stage in stages:
            launch.run_all(stage)
    for name, p in task.field.parameters().items():
        value = p.value.numpy()
        assert np.isfinite(value).all()
        assert not np.array_equal(value, before[name])
    encoding = task.field.encoding.config
    n_features = encoding.n_features_per_level
    table = p.value.numpy().reshape(-1, n_features)
    for level in grid_levels(encoding, 2):
        part = slice(level.offset, level.offset + level.size)
        moved = (table[part] != before["encoding"].reshape(-1, n_features)[part]).any(axis=1)
        assert moved.any(), level


# --- the run's folder


def test_metrics_and_config_say_all(fitted: ngp_warp.Run) -> None:
    metrics = json.loads((fitted.path / "metrics.json").read_text())
    assert set(metrics) >= METRICS
    assert metrics == fitted.metrics
    config = json.loads((fitted.path / "config.json").read_text())
    assert config["config"] == fitted.header["config"]
    assert None not in [*config["config"]["encoding"].values()]
    names = {path.name for path in (fitted.path / "renders").iterdir()}
    assert names == {f"{n}.png" for n in ("result", "target", "comparison", "error")} | {
        "learning_curve.png"
    }


def test_the_time_to_make_tables_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ngp_warp.primitives.image import task

    class SlowTask(task.ImageTask):
        def __init__(self, *args: Any):
            super().__init__(*args)
            time.sleep(0.3)

    monkeypatch.setattr(task, "ImageTask", SlowTask)
    picture = write_picture(tmp_path / "picture.png")
    run = ngp_warp.fit_image(picture, steps=1, out=tmp_path / "run", device="cpu", **settings())
    assert run.metrics["seconds"] >= 0.3


@pytest.mark.parametrize(("dtype", "entry_bytes"), [("float32", 4), ("float16", 2)])
def test_the_size_is_that_of_the_values_that_the_psnr_is_of(
    dtype: str, entry_bytes: int, tmp_path: Path
) -> None:
    picture = write_picture(tmp_path / "picture.png")
    small = settings(encoding={"dtype": dtype})
    run = ngp_warp.fit_image(picture, steps=2, out=tmp_path / "run", device="cpu", **small)
    arrays = run.arrays()
    n_bytes = 4 * arrays["network.value"].size + entry_bytes * arrays["encoding.value"].size
    assert run.metrics["bytes"] == n_bytes
    assert run.metrics["bits_per_pixel"] == pytest.approx(8 * n_bytes / (48 * 32), abs=1e-4)


def test_a_config_file_repeats_a_run(
    fitted: ngp_warp.Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    args = ["fit-image", str(fitted.source), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert app.main([*args, "--config", str(fitted.path / "config.json"), "--quiet"]) == 0
    again = ngp_warp.open_run(tmp_path / "run")
    assert again.config == fitted.config
    for name, array in fitted.arrays().items():
        assert np.array_equal(array, again.arrays()[name]), name


def test_a_flag_over_a_config_file_is_not_lost(fitted: ngp_warp.Run, tmp_path: Path) -> None:
    args = ["fit-image", str(fitted.source), "--out", str(tmp_path / "run"), "--device", "cpu"]
    args += ["--config", str(fitted.path / "config.json"), "--quiet", "--steps", "2"]
    assert app.main([*args, "--encoding.finest-resolution", "20"]) == 0
    assert ngp_warp.open_run(tmp_path / "run").config.encoding.finest_resolution == 20


def test_other_levels_keep_the_finest_resolution_of_a_config_file(
    fitted: ngp_warp.Run, tmp_path: Path
) -> None:
    args = ["fit-image", str(fitted.source), "--out", str(tmp_path / "run"), "--device", "cpu"]
    args += ["--config", str(fitted.path / "config.json"), "--quiet", "--steps", "2"]
    assert app.main([*args, "--encoding.n-levels", "7"]) == 0
    encoding = ngp_warp.open_run(tmp_path / "run").config.encoding
    assert encoding.n_levels == 7
    assert encoding.finest_resolution == fitted.config.encoding.finest_resolution


def test_eval_repeats_the_metrics(fitted: ngp_warp.Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert app.main(["eval", str(fitted.path), "--json", "--threads", "1"]) == 0
    measured = json.loads(capfd.readouterr().out)
    assert measured == {name: fitted.metrics[name] for name in measured}
    assert set(measured) >= {"psnr", "ssim", "bits_per_pixel"}


def test_a_large_image_has_its_similarity_measured_in_stripes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skimage.metrics import structural_similarity

    truth = smooth(height=256)
    monkeypatch.setattr("ngp_warp.primitives.image.evaluate.SSIM_PIXELS", truth.size // 6)
    # As many rows as a picture of 65536 pixels a row has: fewer than a window of 11.
    monkeypatch.setattr("ngp_warp.primitives.image.raster._BAND_POINTS", 4 * 48)
    picture = write_picture(tmp_path / "picture.png", truth)
    run = ngp_warp.fit_image(picture, steps=20, out=tmp_path / "run", device="cpu", **settings())
    decoded = load_image(run.render(tmp_path / "decoded.png")).pixels
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    stripes = [
        structural_similarity(decoded[y : y + 64], truth[y : y + 64], channel_axis=2, **window)
        for y in (0, 128)
    ]
    assert run.metrics["ssim"] == pytest.approx(np.mean(stripes), abs=1e-4)


def test_info_describes_a_run_and_a_checkpoint(
    fitted: ngp_warp.Run, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in (fitted.path, fitted.checkpoint):
        assert app.main(["info", str(path), "--json"]) == 0
        values = json.loads(capfd.readouterr().out)
        assert values["step"] == values["steps"] == 60
        assert values["parameters"] == fitted.metrics["parameters"]


def test_a_crop_is_that_part_of_the_picture(fitted: ngp_warp.Run, tmp_path: Path) -> None:
    whole = load_image(fitted.render(tmp_path / "whole.png")).pixels
    part = load_image(fitted.render(tmp_path / "part.png", crop=(5, 7, 20, 10))).pixels
    assert np.array_equal(part, whole[7:17, 5:25])
    twice = load_image(fitted.render(tmp_path / "twice.png", scale=2)).pixels
    assert twice.shape == (64, 96, 3)
    detail = load_image(fitted.render(tmp_path / "detail.png", scale=2, crop=(5, 7, 20, 10))).pixels
    assert np.array_equal(detail, twice[14:34, 10:50])
    wide = load_image(fitted.render(tmp_path / "wide.png", width=24)).pixels
    assert wide.shape == (16, 24, 3)
    truth = load_image(fitted.source).pixels
    assert psnr(whole, truth, 255) == pytest.approx(fitted.metrics["psnr"], abs=1e-3)


def test_a_picture_beyond_bounds_is_refused(
    fitted: ngp_warp.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ngp_warp.memory.available_bytes", lambda: 1 << 30)
    with pytest.raises(ngp_warp.ResourceError, match="a row of 2147483647 pixels"):
        fitted.render(tmp_path / "huge.png", width=2**31 - 1)
    with pytest.raises(ngp_warp.ConfigError, match="at most 65535 pixels") as caught:
        fitted.render(tmp_path / "wide.jpg", width=65536)
    assert ".jpg," not in str(caught.value).partition("use ")[2]
    assert list(tmp_path.iterdir()) == []


def test_queries_are_in_shares_of_full_scale(fitted: ngp_warp.Run, tmp_path: Path) -> None:
    whole = load_image(fitted.render(tmp_path / "whole.png")).pixels
    centres = (np.array([[5, 5], [40, 10]]) + 0.5) / [48, 32]
    values, jacobian = fitted.value_and_gradient(centres)
    assert np.allclose(values * 255, whole[[5, 10], [5, 40]], atol=0.51)  # rounded to 8 bit
    assert jacobian.shape == (2, 3, 2)
    step = np.array([[1e-4, 0.0]])
    slope = (fitted.query(centres + step) - fitted.query(centres - step)) / 2e-4
    assert np.allclose(jacobian[..., 0], slope, atol=0.05)  # float32 differences over 2e-4


def test_two_runs_of_one_second_do_not_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda *a: "2030-01-01_000000")
    paths = []
    for _ in range(3):
        with new_folder(None, Path("a.png"), "fit-image") as folder:
            (folder / "checkpoints" / "step-0000000001.safetensors").write_bytes(b"")
            paths.append(folder)
    assert len(set(paths)) == 3
    assert Path("outputs/a/fit-image/latest").readlink() == Path(paths[-1].name)
    with pytest.raises(ZeroDivisionError), new_folder(None, Path("a.png"), "fit-image"):
        raise ZeroDivisionError
    assert Path("outputs/a/fit-image/latest").readlink() == Path(paths[-1].name)
    assert len(list(paths[0].parent.iterdir())) == 4


def test_latest_is_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "a.png")
    assert app.main(["fit-image", "a.png", "--steps", "2", "--quiet", *SMALL_FLAGS]) == 0
    run = ngp_warp.open_run("outputs/a/fit-image/latest")
    assert run.metrics["steps"] == 2
    latest = "outputs/a/fit-image/latest"
    assert app.main(["fit-image", "--resume", latest, "--steps", "3", "--quiet"]) == 0
    assert ngp_warp.open_run(latest).header["step"] == 3


def test_nothing_heavy_is_loaded_before_training(tmp_path: Path) -> None:
    import subprocess
    import sys

    picture = write_picture(tmp_path / "a.png")
    code = (
        "import sys; from ngp_warp.trainer import Trainer\n"
        "def train(self): print(*sys.modules); raise SystemExit\n"
        "Trainer.train = train\n"
        "from ngp_warp.cli.app import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "fit-image", str(picture), "--quiet", "--steps", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run"), *SMALL_FLAGS],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    loaded = set(done.stdout.split())
    assert "warp" in loaded
    assert not loaded & {"torch", "skimage", "matplotlib", "scipy", "tifffile", "OpenEXR"}
    assert "driver" not in done.stderr  # a machine without a GPU is nothing to be warned of
