"""Laws of `ngp nerf` from a folder of photos to its field, pictures and exports, in scene units."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interruption import interrupt_after
from nerf_runs import SMALL
from nerf_scenes import RADIUS, poses, write_scene

import ngp_warp
from ngp_warp import launch, trainer
from ngp_warp.cli import app
from ngp_warp.config import GridEncodingConfig
from ngp_warp.errors import ConfigError, DataError, ShapeError
from ngp_warp.primitives.nerf.config import NerfConfig, resolve
from ngp_warp.primitives.nerf.data import load
from ngp_warp.primitives.nerf.task import estimate

STEPS = 600
SHORT = 60


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def run(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> ngp_warp.Run:
    folder = tmp_path_factory.mktemp("nerf")
    return ngp_warp.fit_nerf(scene, steps=STEPS, out=folder / "run", device="cpu", **SMALL)


@pytest.fixture(scope="module")
def short(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> ngp_warp.Run:
    folder = tmp_path_factory.mktemp("nerf")
    return ngp_warp.fit_nerf(scene, steps=SHORT, out=folder / "run", device="cpu", **SMALL)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    yield
    launch.set_num_threads(None)


def test_the_views_held_back_are_measured(run: ngp_warp.Run) -> None:
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert metrics == run.metrics
    assert metrics["psnr"] > 27
    assert metrics["held_back"]
    assert (metrics["n_views"], metrics["width"], metrics["height"]) == (3, 32, 32)
    assert metrics["background"] == [1.0, 1.0, 1.0]
    assert metrics["samples_per_second"] > 0
    assert len(metrics["views"]) == 3
    pictures = {p.name for p in (run.path / "renders").iterdir()}
    assert pictures == {"best.png", "median.png", "worst.png", "depth.png", "learning_curve.png"}


def test_densities_are_in_the_units_of_the_scene(run: ngp_warp.Run) -> None:
    directions = np.random.default_rng(0).normal(size=(500, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    near, far = (run.query(r * RADIUS * directions)[:, 0] for r in (0.93, 1.3))
    assert np.median(near) > 20 * np.median(far)
    assert not run.query(100 * directions)[:, 0].any()  # beyond the box
    # the box is 3 scene units wide: what a ray crosses is the same in any unit
    inner = run.query(0.93 * RADIUS * directions)
    model = run.fitted
    box = (model.frame.to_box(0.93 * RADIUS * directions)).astype(np.float32)
    assert np.allclose(inner[:, 0] * 3, model.radiance.density(box), rtol=1e-5)
    with pytest.raises(ShapeError, match=r"\[n, 3\]"):
        run.query(np.zeros((1, 2)))


def test_rays_see_the_ball_at_its_distance(run: ngp_warp.Run) -> None:
    cameras = poses(16, seed=5)
    # three times as long: directions need not be unit vectors
    seen = run.render_rays(cameras[:, :, 3], -3 * cameras[:, :, 2])
    assert np.all(seen.opacity > 0.9)
    assert np.abs(np.median(seen.depth) - 3.0) < 0.1
    beside = run.render_rays(cameras[:, :, 3], cameras[:, :, 2])
    assert np.all(beside.opacity == 0)
    assert np.all(np.isinf(beside.depth))
    assert np.all(beside.color == 1)  # the white that was measured over


def test_resumed_runs_repeat_bit_for_bit(
    short: ngp_warp.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(25, monkeypatch)
    with pytest.raises(trainer.Interrupted):
        ngp_warp.fit_nerf(short.source, steps=SHORT, out=tmp_path / "run", device="cpu", **SMALL)
    monkeypatch.undo()
    launch.set_num_threads(3)
    resumed = ngp_warp.fit_nerf(resume=tmp_path / "run", device="cpu")
    stored = resumed.arrays()
    assert {"state.n_rays", "state.occupancy_values", "state.occupancy_bits"} <= stored.keys()
    for name, array in short.arrays().items():
        assert np.array_equal(array, stored[name]), name
    assert resumed.metrics["views"] == short.metrics["views"]


def test_the_number_of_threads_does_not_matter(short: ngp_warp.Run, tmp_path: Path) -> None:
    one = ngp_warp.fit_nerf(
        short.source, steps=SHORT, out=tmp_path / "run", device="cpu", threads=1, **SMALL
    )
    for name, array in short.arrays().items():
        assert np.array_equal(array, one.arrays()[name]), name


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "l2"},
        {"background": "black"},
        {"appearance": 4},
        {"exposure": True},
        {"environment": True},
        {"distortion_weight": 0.1},
        {"train_poses": True},
        {"train_lenses": True},
        {"downscale": 2.0},
        {"aabb_scale": 2},
        {"near": 2.5},
        {"march_steps": 48},
        {"crop_steps": 30},
        {"seed": 3},
        {"eval_every": 9},
        {"color_network": {"n_neurons": 32, "n_hidden_layers": 1, "bias": True}},
    ],
    ids=lambda s: next(iter(s)),
)
def test_every_setting_counts(short: ngp_warp.Run, settings: Any, tmp_path: Path) -> None:
    other = ngp_warp.fit_nerf(
        short.source, steps=SHORT, out=tmp_path / "run", device="cpu", **{**SMALL, **settings}
    )
    first, second = (r.arrays()["encoding.value"] for r in (other, short))
    assert first.shape != second.shape or not np.array_equal(first, second)
    assert np.isfinite(other.metrics["psnr"])
    # and comes back from the checkpoint
    again = ngp_warp.open_run(other.path, device="cpu")
    picture = tmp_path / "view.png"
    again.render(picture, view="0")
    assert picture.stat().st_size > 100


def test_steps_of_pictures_count_in_pictures_alone(short: ngp_warp.Run, tmp_path: Path) -> None:
    assert short.config.render_steps == 2 * short.config.march_steps
    other = ngp_warp.fit_nerf(
        short.source, steps=SHORT, out=tmp_path / "run", device="cpu", render_steps=48, **SMALL
    )
    for name, array in short.arrays().items():
        assert np.array_equal(array, other.arrays()[name]), name
    assert short.metrics["views"] != other.metrics["views"]


def test_opacities_decide_how_much_light_is_drawn_together(short: ngp_warp.Run) -> None:
    assert short.config.distortion_weight == 0.2
    given = NerfConfig(distortion_weight=0.0)
    for has_alpha, weight in ((False, 0.02), (True, 0.2)):
        options: dict[str, Any] = {"aabb_scale": 1, "has_alpha": has_alpha, "has_depth": False}
        assert resolve(NerfConfig(), "cpu", **options).distortion_weight == weight
        assert resolve(given, "cpu", **options).distortion_weight == 0.0


def test_the_finest_detail_follows_the_photos_until_the_devices_most(scene: Path) -> None:
    def finest(device: str, **settings: Any) -> int | None:
        config = NerfConfig(**settings)
        data = load(scene, config, lambda progress: None)
        return estimate(data, config, device)[0].encoding.finest_resolution

    pixels = load(scene, NerfConfig(), lambda progress: None).pixels_across()
    smaller = load(scene, NerfConfig(downscale=2), lambda progress: None).pixels_across()
    assert smaller == pytest.approx(pixels / 2)
    assert finest("cpu") == finest("cuda:0") == max(round(1.25 * pixels / 16), 4) * 16
    fixed = GridEncodingConfig(finest_resolution=300)
    assert finest("cpu", encoding=fixed) == 300
    known: Any = {"aabb_scale": 4, "has_alpha": False, "has_depth": False}
    for device, most in (("cpu", 1024), ("cuda:0", 2048)):
        large = resolve(NerfConfig(), device, pixels_across=5000.0, **known)
        assert large.encoding.finest_resolution == 4 * most
    least = resolve(NerfConfig(), "cpu", pixels_across=1.0, **known)
    assert least.encoding.finest_resolution == 4 * 64


def test_a_step_has_at_most_the_rays_that_are_allowed(scene: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {**SMALL, "max_rays": 32}
    run = ngp_warp.fit_nerf(scene, steps=200, out=tmp_path / "run", device="cpu", **options)
    arrays = run.arrays()
    assert arrays["state.n_rays"] == 32
    assert arrays["state.totals"][0] <= 200 * 32


def test_the_original_nerf_trains(scene: Path, tmp_path: Path) -> None:
    run = ngp_warp.fit_nerf(
        scene,
        steps=3,
        out=tmp_path / "run",
        device="cpu",
        method="vanilla",
        max_rays=32,
        downscale=4,
    )
    assert np.isfinite(run.metrics["psnr"])
    assert run.metrics["parameters"] > 1_000_000
    with pytest.raises(ConfigError, match="appearance"):
        ngp_warp.fit_nerf(scene, steps=3, method="vanilla", appearance=2)


def test_views_are_held_back_as_asked(scene: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": 2, "device": "cpu", **SMALL}
    named = json.loads((scene / "transforms_train.json").read_text())
    folder = tmp_path / "unsplit"
    shutil.copytree(scene / "train", folder / "train")
    (folder / "transforms.json").write_text(json.dumps(named))
    run = ngp_warp.fit_nerf(folder, out=tmp_path / "a", eval_every=6, **options)
    assert run.metrics["n_views"] == 4
    all_ = ngp_warp.fit_nerf(folder, out=tmp_path / "b", eval_every=0, **options)
    assert (all_.metrics["n_views"], all_.metrics["held_back"]) == (24, False)
    with pytest.raises(ConfigError, match="no view left"):
        ngp_warp.fit_nerf(folder, eval_every=1, **options)
    with pytest.raises(ConfigError, match="no splits"):
        ngp_warp.fit_nerf(folder, eval_split="test", **options)


def test_eval_repeats_the_metrics(
    short: ngp_warp.Run, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert app.main(["eval", str(short.path), "--json", "--device", "cpu"]) == 0
    metrics = json.loads(capfd.readouterr().out)
    assert metrics == {name: short.metrics[name] for name in metrics}
    assert {"psnr", "ssim", "views"} <= set(metrics)


def test_exports_are_in_the_units_of_the_scene(run: ngp_warp.Run, tmp_path: Path) -> None:
    import trimesh

    made = run.export("ply", tmp_path / "ball.ply", resolution=64, largest_only=True)
    mesh: Any = trimesh.load(made["output"])
    radius = np.linalg.norm(mesh.vertices, axis=1)
    # photos do not say what is inside: only the outermost vertices are the ball's surface
    assert abs(np.quantile(radius, 0.9) - RADIUS) < 0.1
    assert len(mesh.visual.vertex_colors) == len(mesh.vertices)
    points = run.export("points", tmp_path / "points.ply", points=500)
    cloud: Any = trimesh.load(points["output"])
    assert abs(np.median(np.linalg.norm(cloud.vertices, axis=1)) - RADIUS) < 0.1
    for name in ("nvdb", "npz", "occupancy"):
        assert Path(run.export(name)["output"]).stat().st_size > 0


def test_another_scene_is_not_resumed(short: ngp_warp.Run, tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    shutil.copytree(short.source, folder)
    other = ngp_warp.fit_nerf(folder, steps=2, out=tmp_path / "run", device="cpu", **SMALL)
    frames = json.loads((folder / "transforms_train.json").read_text())
    frames["frames"][0]["transform_matrix"][0][3] += 0.1
    (folder / "transforms_train.json").write_text(json.dumps(frames))
    with pytest.raises(DataError, match="not what the run was fitted to") as caught:
        ngp_warp.fit_nerf(resume=other.path, device="cpu")
    assert len(str(caught.value)) < 400


def test_bad_scenes_are_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty"):
        out = tmp_path / "run"
        assert app.main(["nerf", str(tmp_path / name), "--out", str(out)]) == 2
        error = capfd.readouterr().err
        (line,) = [line for line in error.splitlines() if line.startswith("ngp: error:")]
        assert name in line
        assert not out.exists()
