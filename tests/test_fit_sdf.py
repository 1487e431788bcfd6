"""Laws of `ngp fit-sdf` from a mesh's file to its field, pictures and exports, in its own units."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from interruption import interrupt_after
from sdf_runs import CENTRE, RADIUS, SMALL, make_quick, write_sphere

import ngp_warp
from ngp_warp import launch, trainer
from ngp_warp.cli import app
from ngp_warp.errors import ConfigError, DataError, ResourceError, ShapeError

STEPS = 300


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        yield


@pytest.fixture(scope="module")
def run(_quick: None, tmp_path_factory: pytest.TempPathFactory) -> ngp_warp.Run:
    folder = tmp_path_factory.mktemp("sdf")
    mesh = write_sphere(folder / "sphere.obj")
    return ngp_warp.fit_sdf(mesh, steps=STEPS, out=folder / "run", device="cpu", **SMALL)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    yield
    launch.set_num_threads(None)


def directions(n: int = 200) -> np.ndarray:
    """Return unit vectors."""
    d = np.random.default_rng(0).normal(size=(n, 3))
    return d / np.linalg.norm(d, axis=1, keepdims=True)


def test_the_metrics_say_how_right_it_is(run: ngp_warp.Run) -> None:
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert metrics == run.metrics
    assert metrics["iou"] > 0.97
    assert metrics["normal_consistency"] > 0.97
    # a percent of the diameter
    assert metrics["chamfer"]["mean"] < 0.01 * 2 * RADIUS
    assert metrics["truth_share"] > 0
    assert metrics["mesh"]["sign"] == "normal"
    assert "watertight" in metrics["mesh"]["sign_reason"]
    assert metrics["mesh"]["report"]["n_bodies"] == 1
    pictures = {p.name for p in (run.path / "renders").iterdir()}
    assert pictures == {
        "result.png",
        "slices.png",
        "comparison.png",
        "error.png",
        "learning_curve.png",
    }


def test_distances_are_in_the_units_of_the_mesh(run: ngp_warp.Run) -> None:
    # within the box, inside and outside; the polyhedron is within 0.02 of the sphere
    for radius in (0.8 * RADIUS, RADIUS, 1.05 * RADIUS):
        values = run.query(CENTRE + radius * directions())
        assert np.abs(values[:, 0] - (radius - RADIUS)).max() < 0.05 * RADIUS
    # beside the box: at least the way to it, at most the way to the mesh
    far = run.query(CENTRE + np.diag([20.0, -30.0, 40.0]))[:, 0]
    assert np.all(np.abs(far - [17, 27, 37]) < 0.1)
    with pytest.raises(ShapeError, match="finite"):
        run.query(np.full((1, 3), np.nan))
    with pytest.raises(ShapeError, match=r"\[n, 3\]"):
        run.query(np.zeros((1, 2)))


def test_the_gradient_is_the_derivative_of_the_distance(run: ngp_warp.Run) -> None:
    near, beside = CENTRE + 0.9 * RADIUS * directions(), CENTRE + 4 * RADIUS * directions()
    for points in (near, beside):
        values, gradient = run.value_and_gradient(points)
        assert gradient.shape == (len(points), 1, 3)
        assert np.array_equal(values, run.query(points))
        # outward, of length 1 on the whole: a learned field's slope varies
        along = (gradient[:, 0] * directions()).sum(axis=1)
        assert abs(np.median(along) - 1) < 0.15
    # far outside it is exact: a central difference of a smooth function over 1e-3
    _, gradient = run.value_and_gradient(beside)
    for axis in range(3):
        h = 0.01 * np.eye(3)[axis]
        difference = (run.query(beside + h) - run.query(beside - h))[:, 0] / 0.02
        # a kink of the field's grid in between changes some of them
        assert np.median(np.abs(difference - gradient[:, 0, axis])) < 2e-3


def test_rays_meet_the_mesh_in_its_units(run: ngp_warp.Run) -> None:
    outward = directions()
    hits = run.sphere_trace(CENTRE + 10 * outward, -5 * outward)
    assert hits.hit.all()
    assert np.abs(hits.t - (10 - RADIUS)).max() < 0.05 * RADIUS
    side = np.cross(outward, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    missed = run.sphere_trace(CENTRE + 10 * outward, side)
    assert not missed.hit.any()
    assert np.isinf(missed.t).all()
    with pytest.raises(ShapeError, match="not zero"):
        run.sphere_trace(np.zeros((1, 3)), np.zeros((1, 3)))


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl", "glb"])
def test_an_exported_mesh_lies_where_the_original_does(
    run: ngp_warp.Run, suffix: str, tmp_path: Path
) -> None:
    made = run.export(suffix, tmp_path / f"a.{suffix}", resolution=48)
    assert made["watertight"]
    again: Any = trimesh.load(made["output"], force="mesh")
    assert np.abs(again.bounds.mean(axis=0) - CENTRE).max() < 0.1
    assert np.abs(np.ptp(again.bounds, axis=0) - 2 * RADIUS).max() < 0.2
    assert again.is_watertight
    assert abs(again.volume / (4 / 3 * np.pi * RADIUS**3) - 1) < 0.04  # outward: positive


def test_exports_of_distances(run: ngp_warp.Run, tmp_path: Path) -> None:
    made = run.export("npz", tmp_path / "a.npz", resolution=16)
    with np.load(made["output"]) as grid:
        assert grid[next(iter(grid))].size > 1
    assert run.export("nvdb", tmp_path / "a.nvdb", resolution=32)["n_voxels"] > 100
    with pytest.raises(ConfigError, match="--faces is not for --format npz"):
        run.export("npz", tmp_path / "b.npz", faces=100)
    with pytest.raises(ConfigError, match=r"\*\.obj"):
        run.export("obj", tmp_path / "a.ply")
    with pytest.raises(ResourceError, match="does not exist"):
        run.export("nvdb", tmp_path / "none" / "a.nvdb")
    with pytest.raises(ConfigError, match="one of compact, glb"):
        run.export("dzi")


def test_pictures_and_what_does_not_go_together(run: ngp_warp.Run, tmp_path: Path) -> None:
    from PIL import Image

    for show in ("shaded", "normals", "depth", "slices"):
        path = run.render(tmp_path / f"{show}.png", show=show, width=48)
        pixels = np.asarray(Image.open(path))
        assert pixels.std() > 5
        assert pixels.shape[2] == 3
    run.render(tmp_path / "depth.npy", show="depth", width=32, camera="orbit:0,0,2")
    depth = np.load(tmp_path / "depth.npy")
    # 2 sides of the cube, of which the sphere is 0.9 wide
    assert abs(depth[16, 16] - (2 / 0.9 * 2 * RADIUS - RADIUS)) < 0.3
    for options, match in (
        ({"crop": (0, 0, 1, 1)}, "--crop is not for a fitted sdf"),
        ({"frames": 3}, "--frames is not for a picture"),
        ({"show": "slices", "camera": "orbit:0,0,2"}, "--camera is not for"),
        ({"show": "x-ray"}, "--show must be"),
        ({"camera": "front"}, "orbit:"),
        ({"show": "slices", "up": "z"}, "--up is not for"),
    ):
        with pytest.raises(ConfigError, match=match):
            run.render(tmp_path / "no.png", **options)
    with pytest.raises(ConfigError, match=r"\*\.png"):
        run.render(tmp_path / "no.tiff")
    for fps in (0.0, -1.0):
        with pytest.raises(ConfigError, match="fps"):
            run.render(tmp_path / "no.mp4", fps=fps)
    with pytest.raises(ResourceError, match="does not exist"):
        run.render(tmp_path / "none" / "a.png")
    assert not list(tmp_path.glob("no.*"))


def test_up_turns_camera_and_floor(tmp_path: Path) -> None:
    from PIL import Image

    # a plate that lies flat where z is up, and stands where y is up
    plate = trimesh.creation.box((1.0, 1.0, 0.2))
    plate.export(tmp_path / "plate.ply")
    flat = ngp_warp.fit_sdf(
        tmp_path / "plate.ply", steps=STEPS, out=tmp_path / "run", device="cpu", **SMALL
    )
    pictures = {}
    for up in ("y", "z"):
        path = flat.render(tmp_path / f"{up}.png", up=up, camera="orbit:0,10,2", width=64)
        flat.render(tmp_path / "d.npy", up=up, camera="orbit:0,10,2", width=64, show="depth")
        covered = np.isfinite(np.load(tmp_path / "d.npy"))
        pictures[up] = np.asarray(Image.open(path)).astype(int), covered
    assert pictures["z"][1].sum() < 0.5 * pictures["y"][1].sum()
    # the floor lies below it: the picture differs from the one in which the plate stands
    assert np.abs(pictures["z"][0] - pictures["y"][0])[48:].mean() > 2


def test_a_resumed_run_keeps_its_sign_method(run: ngp_warp.Run) -> None:
    assert ngp_warp.open_run(run.path).header["data"]["sign"] == "normal"
    with pytest.raises(ConfigError, match="fit the mesh anew"):
        ngp_warp.fit_sdf(resume=run.path, sign="winding", device="cpu")


def test_a_film_turns(run: ngp_warp.Run, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    run.render(tmp_path / "turn.mp4", width=48, frames=4, spp=1)
    with av.open(str(tmp_path / "turn.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 4


def test_an_interrupted_run_goes_on_bit_for_bit(
    run: ngp_warp.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(120, monkeypatch)
    with pytest.raises(trainer.Interrupted):
        ngp_warp.fit_sdf(run.source, steps=STEPS, out=tmp_path / "run", device="cpu", **SMALL)
    monkeypatch.undo()
    launch.set_num_threads(3)
    resumed = ngp_warp.fit_sdf(resume=tmp_path / "run", device="cpu")
    for name, array in run.arrays().items():
        assert np.array_equal(array, resumed.arrays()[name]), name


def test_the_number_of_threads_does_not_matter(run: ngp_warp.Run, tmp_path: Path) -> None:
    one = ngp_warp.fit_sdf(
        run.source, steps=STEPS, out=tmp_path / "run", device="cpu", threads=1, **SMALL
    )
    for name, array in run.arrays().items():
        assert np.array_equal(array, one.arrays()[name]), name


@pytest.mark.parametrize(
    "settings",
    [
        {"sign": "raystab"},
        {"sign": "winding"},
        {"loss": "l1"},
        {"noise_std": 5e-3},
        {"eikonal_weight": 0.01},
        {"seed": 3},
    ],
    ids=lambda s: next(iter(s)),
)
def test_every_setting_counts(run: ngp_warp.Run, settings: Any, tmp_path: Path) -> None:
    other = ngp_warp.fit_sdf(
        run.source, steps=STEPS, out=tmp_path / "run", device="cpu", **{**SMALL, **settings}
    )
    assert other.metrics["iou"] > 0.95
    if "sign" in settings:  # of a closed mesh they agree, but for rounding
        assert other.metrics["mesh"]["sign_reason"] == "as set"
    else:
        assert not np.array_equal(other.arrays()["encoding.value"], run.arrays()["encoding.value"])


def test_eval_repeats_the_metrics(
    run: ngp_warp.Run, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert app.main(["eval", str(run.path), "--json", "--device", "cpu"]) == 0
    metrics = json.loads(capfd.readouterr().out)
    reason = run.metrics["mesh"]["sign_reason"]
    metrics["mesh"]["sign_reason"] = reason  # of the choice, which is not made again
    assert metrics == {name: run.metrics[name] for name in metrics}
    assert {"iou", "chamfer", "normal_consistency", "mean_abs_distance"} <= set(metrics)


def test_view_writes_a_picture(run: ngp_warp.Run, tmp_path: Path) -> None:
    picture = tmp_path / "view.png"
    command = ["view", str(run.path), "--screenshot", str(picture), "--error-colors", "--quiet"]
    assert app.main([*command, "--resolution", "48"]) == 0
    assert picture.stat().st_size > 1000


def test_another_mesh_is_not_measured_nor_resumed(run: ngp_warp.Run, tmp_path: Path) -> None:
    copy = write_sphere(tmp_path / "sphere.obj")
    other = ngp_warp.fit_sdf(copy, steps=2, out=tmp_path / "run", device="cpu", **SMALL)
    trimesh.creation.box().export(copy)
    with pytest.raises(DataError, match="not what the run was fitted to"):
        ngp_warp.fit_sdf(resume=other.path, device="cpu")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.obj", b"", "empty"),
        ("points.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no faces"),
        ("flat.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "flat sheet"),
        ("nan.obj", b"v 0 0 nan\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 2 3 4\n", "finite"),
        ("text.ply", b"this is no mesh\n", "ply"),
        ("mesh.xyz", b"0 0 0\n", ".obj"),
    ],
)
def test_bad_meshes_are_refused_in_one_line(
    name: str, content: bytes, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "run"
    assert app.main(["fit-sdf", str(tmp_path / name), "--out", str(out)]) == 2
    error = capfd.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("ngp: error:")]
    assert words in line.lower()
    assert name in line
    assert not out.exists()
