"""Laws of `ngp validate`: all problems at once, each with how to mend it, and a picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scene_samples import Sample

from ngp_warp.cli import app
from ngp_warp.primitives.nerf.frame import Frame, choose_frame
from ngp_warp.primitives.nerf.scene import load_scene
from ngp_warp.primitives.nerf.scene.oddities import corner_radius, sees_box, unfolded_radius
from ngp_warp.primitives.nerf.validate import summary_of, validate
from ngp_warp.rays.lenses import Lens


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Sample(n=12).write_transforms(tmp_path / "scene", aabb_scale=8)


def edit(folder: Path, change: Any) -> None:
    file = folder / "transforms.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def lines_of(folder: Path, **values: Any) -> list[str]:
    return [problem.line for problem in validate(folder, **values).problems]


def test_a_sound_scene_has_no_problems(folder: Path) -> None:
    result = validate(folder)
    assert result.problems == ()
    assert result.scene is not None
    assert result.frame == choose_frame(load_scene(folder))
    summary = summary_of(result)
    assert summary["views"] == summary["train_views"] == 12
    assert summary["sizes"] == "24x16 (12)"
    assert summary["lenses"] == "pinhole (12)"
    assert summary["box_side"] == pytest.approx(8 / 0.33)
    assert (summary["errors"], summary["warnings"]) == (0, 0)


def test_all_errors_are_named_at_once(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def change(values: dict[str, Any]) -> None:
        values["frames"][1]["transform_matrix"][0][0] = float("nan")
        values["frames"][2]["fl_x"] = 0
        values["frames"][3]["mask_path"] = "nowhere.png"
        values["frames"][4].pop("file_path")

    edit(folder, change)
    photo = folder / "images" / "05.png"
    photo.write_bytes(photo.read_bytes()[:60])
    assert app.main(["validate", str(folder), "--quiet"]) == 2
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("ngp: error: ") for line in lines)
    for words in ("frame 1 ", "frame 2 ", "frame 3 ", "frame 4", "05.png"):
        assert sum(words in line for line in lines) == 1, words
    assert "errors" in out

    assert app.main(["validate", str(folder), "--json"]) == 2
    values = json.loads(capfd.readouterr().out)
    assert values["error"] == f"5 errors in {folder}"
    assert [problem["severity"] for problem in values["problems"]] == ["error"] * 5
    assert all(problem["what"] for problem in values["problems"])
    assert values["views"] == 7


def test_warnings_do_not_fail(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "images" / "03.png").unlink()
    assert app.main(["validate", str(folder)]) == 0
    assert "warning: " in capfd.readouterr().err
    assert app.main(["validate", str(folder), "--json"]) == 0
    values = json.loads(capfd.readouterr().out)
    assert "error" not in values
    assert values["warnings"] == 1


def test_a_scene_that_cannot_be_read_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for args in ([str(tmp_path)], [str(tmp_path / "nowhere")], [str(tmp_path), "--format", "x"]):
        assert app.main(["validate", *args]) == 2
        err = capfd.readouterr().err
        assert [line for line in err.splitlines() if line.startswith("ngp: error: ")]
        assert len(err.splitlines()) == 1
    assert app.main(["validate", str(tmp_path), "--aabb-scale", "3"]) == 2
    assert "aabb_scale" in capfd.readouterr().err
    assert app.main(["validate", str(tmp_path), "-o", "picture.bmp"]) == 2
    assert ".png" in capfd.readouterr().err


def test_the_picture_shows_cameras_and_box(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "cameras.png"
    for scene in (folder, Sample().write_colmap_binary(tmp_path / "colmap")):
        assert app.main(["validate", str(scene), "-o", str(path), "--quiet"]) == 0
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        blue = (pixels[..., 2] - pixels[..., 0] > 60).sum()
        assert blue > 500  # training cameras
        assert ((pixels.sum(axis=2) < 150).sum()) > 500  # the box, and the words


# --- oddities


def test_photos_that_are_not_used_are_named(folder: Path) -> None:
    (folder / "images" / "99.png").write_bytes((folder / "images" / "01.png").read_bytes())
    (folder / "images" / "01_depth_0001.png").write_bytes(b"")
    (line,) = lines_of(folder)
    assert "99.png" in line


def test_equal_poses_are_named(folder: Path) -> None:
    def change(values: dict[str, Any]) -> None:
        frames = values["frames"]
        frames[4]["transform_matrix"] = frames[2]["transform_matrix"]

    edit(folder, change)
    (line,) = lines_of(folder)
    assert "02.png" in line
    assert "04.png" in line


def test_a_camera_that_looks_past_the_box_is_named(folder: Path) -> None:
    def change(values: dict[str, Any]) -> None:
        matrix = np.array(values["frames"][3]["transform_matrix"])
        matrix[:3, 3] = [0, 0, 200.0]
        matrix[:3, :3] = np.eye(3)  # looks along -z, at the box
        values["frames"][3]["transform_matrix"] = matrix.tolist()

    edit(folder, change)
    lines = lines_of(folder)
    assert [
        ("looks past" in line, "are outside" in line, "far away" in line) for line in lines
    ] == [
        (False, False, True),
        (False, True, False),
    ]
    edit(folder, lambda v: v["frames"][3]["transform_matrix"][2].__setitem__(3, -200.0))
    assert "looks past the box" in lines_of(folder)[0]


def test_a_view_sees_the_box_if_any_ray_does(folder: Path) -> None:
    view = load_scene(folder).views[0]
    target = np.array(Sample().target)
    assert sees_box(view, Frame.from_inner(1.0, (0.5, 0.5, 0.5) - target, 1))
    behind = view.pose[:, 3] + 4 * view.pose[:, 2]
    assert not sees_box(view, Frame.from_inner(1.0, tuple(0.5 - behind), 1))
    assert sees_box(view, Frame.from_inner(1.0, tuple(0.5 - view.pose[:, 3]), 1))  # from within


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cx": -3}, "principal point"),
        ({"fl_y": 300}, "oblong"),
        ({"fl_x": 0.5, "fl_y": 0.5}, "field of view"),
        ({"k1": -2.0}, "folds"),
        ({"aabb_scal": 4}, "did you mean 'aabb_scale'"),
        ({"k1": 0.1, "k2": -0.05}, None),
    ],
)
def test_odd_lenses_and_keys_are_named(values: dict, words: str | None, folder: Path) -> None:
    if "aabb_scal" in values:
        edit(folder, lambda v: v.pop("aabb_scale") and v.update(scale=0.05))
    edit(folder, lambda v: v.update(values))
    lines = lines_of(folder)
    assert any(words in line for line in lines) if words else not lines


def test_few_views_and_points_outside_are_named(tmp_path: Path) -> None:
    sample = Sample(n=3)
    sample.points = sample.points + np.array([[100.0, 0, 0]])
    lines = lines_of(sample.write_colmap_text(tmp_path), aabb_scale=4)
    assert "3 views" in lines[0]
    assert "100% of the sparse points" in lines[1]


def test_distortion_folds_where_its_derivative_is_zero() -> None:
    lens = Lens(width=100, height=100, fx=50.0, fy=50.0, cx=50.0, cy=50.0, k1=-0.5)
    # r (1 - r^2 / 2) is largest at r^2 = 2 / 3
    assert unfolded_radius(lens) == pytest.approx(np.sqrt(2 / 3) * 2 / 3, rel=1e-3)
    assert corner_radius(lens) == pytest.approx(np.sqrt(2))
    plain = Lens(width=100, height=100, fx=50.0, fy=50.0, cx=50.0, cy=50.0)
    assert unfolded_radius(plain) == float("inf")
    fisheye = Lens(width=9, height=9, fx=5.0, fy=5.0, cx=4.5, cy=4.5, fisheye=True)
    assert unfolded_radius(fisheye) == pytest.approx(np.pi)
