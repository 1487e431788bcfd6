"""Laws of `ngp view`: both meshes in the picture, colours that say the distance, no chatter."""

import ctypes
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ngp_warp.cli import app
from ngp_warp.errors import ConfigError, DataError, ResourceError
from ngp_warp.primitives.sdf import open3d_loader, view
from ngp_warp.primitives.sdf.view_scene import build_scene, camera_axes, round_up

ROOT = Path(__file__).resolve().parent.parent
SIZE = {"width": 320, "height": 200}

Mesh = tuple[np.ndarray, np.ndarray]


def cone(scale: float = 1.0) -> Mesh:
    """A cone that points upwards (y), far from the origin."""
    shape = importlib.import_module("trimesh").creation.cone(0.4, 1.0, sections=48)
    vertices = np.asarray(shape.vertices)[:, [0, 2, 1]] * [1, 1, -1]
    return vertices * scale + [1e5, 0, 0], np.asarray(shape.faces)


def moved(mesh: Mesh, distance: float) -> Mesh:
    """Move the tip alone up."""
    vertices = mesh[0].copy()
    vertices[np.argmax(vertices[:, 1]), 1] += distance
    return vertices, mesh[1]


def picture(path: Path, *args: Any, **kwargs: Any) -> np.ndarray:
    from PIL import Image

    view.show(*args, screenshot=path, **{**SIZE, **kwargs})
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def drawn(pixels: np.ndarray) -> np.ndarray:
    return pixels.min(axis=2) < 250


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


# --- the picture


def test_both_meshes_are_drawn_the_right_way_up(tmp_path: Path) -> None:
    mesh = cone()
    pixels = picture(tmp_path / "a.png", mesh, mesh)
    assert pixels.shape == (200, 320, 3)
    for half in (pixels[:, :160], pixels[:, 160:]):
        rows = drawn(half)[:140].sum(axis=1)  # without the label below
        assert rows.sum() > 1000
        used = np.flatnonzero(rows)
        upper, lower = np.array_split(rows[used[0] : used[-1] + 1], 2)
        assert lower.sum() > 2 * upper.sum()
        # Lit: not of one colour.
        assert half[drawn(half)].std() > 5
    assert pixels[drawn(pixels)].mean() > 60
    # An edge of the picture is never touched.
    assert not drawn(pixels)[[0, -1]].any()
    assert not drawn(pixels)[:, [0, -1]].any()


def test_an_upside_down_picture_would_be_noticed(tmp_path: Path) -> None:
    mesh = cone()
    lying = picture(tmp_path / "a.png", mesh, mesh, up="z")
    standing = picture(tmp_path / "b.png", (mesh[0][:, [0, 2, 1]] * [1, -1, 1], mesh[1]), mesh)
    assert np.mean(lying != standing) > 0.02


def test_wireframe_and_colours_change_the_picture_and_stay_out_of_the_next(tmp_path: Path) -> None:
    mesh = cone(100.0)
    args = mesh, moved(mesh, 10.0)
    plain = picture(tmp_path / "0.png", *args)
    wires = picture(tmp_path / "1.png", *args, wireframe=True)
    colors = picture(tmp_path / "2.png", *args, error_colors=True)
    again = picture(tmp_path / "3.png", *args)
    assert np.array_equal(plain, again)
    assert np.mean(np.any(wires != plain, axis=2)) > 0.01
    assert wires[drawn(wires)].mean() < plain[drawn(plain)].mean()

    def saturated(pixels: np.ndarray) -> int:
        return int(np.sum(np.ptp(pixels, axis=2) > 120))

    assert saturated(plain) == 0
    assert saturated(colors[:, 160:]) > 500
    # The tip is far from the original, so red; the foot is not.
    right = colors[:, 160:]
    redder = np.where(drawn(right), right[..., 0] - right[..., 2], 0)
    first = np.flatnonzero(drawn(right).any(axis=1))[0]
    tip, foot = redder[first : first + 15], redder[first + 60 : first + 90]
    assert tip.max() > 80
    assert np.mean(tip[tip != 0]) > np.mean(foot[foot != 0]) + 20


def test_keys_do_what_the_flags_do_and_undo_it() -> None:
    o3d = open3d_loader.load_open3d()
    mesh = cone(100.0)
    with open3d_loader.without_chatter():
        scene = build_scene(mesh, moved(mesh, 10.0), "y")
        vis = o3d.visualization.Visualizer()
        shown = view._View(vis, scene, 320, 200, visible=False)
        shown.aim(True)
        seen = [shown.pixels()]
        for key in (*(shown.switch_wireframe,) * 2, *(shown.switch_error_colors,) * 2):
            key()
            seen.append(shown.pixels())
        vis.destroy_window()
    assert not np.array_equal(seen[0], seen[1])
    # The result itself, above the scale
    assert np.mean(seen[0][:100, 160:] != seen[3][:100, 160:]) > 0.02
    assert np.array_equal(seen[0], seen[2])
    assert np.array_equal(seen[0], seen[4])


def test_an_interrupt_ends_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = []

    def sleep(seconds: float) -> None:
        frames.append(seconds)
        if len(frames) == 3:
            raise KeyboardInterrupt

    # Without a display Open3D draws the same window to memory.
    monkeypatch.setattr(view.time, "sleep", sleep)
    mesh = cone()
    with open3d_loader.without_chatter():
        scene = build_scene(mesh, mesh, "y")
    with pytest.raises(KeyboardInterrupt):
        view._window(scene, True, True, 320, 200)
    assert len(frames) == 3


# --- the scene


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_errors_and_their_scale_are_in_input_units(scale: float) -> None:
    box = importlib.import_module("trimesh").creation.box((1, 1, 1))
    mesh = np.asarray(box.vertices) * scale, np.asarray(box.faces)
    larger = mesh[0] * 1.1, mesh[1]
    found = build_scene(mesh, larger, "y")
    # A corner moves by 0.05 along each axis.
    np.testing.assert_allclose(found.errors, 0.05 * 3**0.5 * scale, rtol=1e-4)
    colors = np.asarray(found.colors)
    assert colors.shape == (8, 3)
    assert (np.ptp(colors, axis=0) < 0.01).all()


def test_the_meshes_stand_side_by_side_in_the_plane_of_the_picture() -> None:
    mesh = cone(7.0)
    scene = build_scene(mesh, mesh, "y")
    axes = camera_axes()
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    left, right = (np.asarray(m.vertices) @ axes.T for m in scene.meshes)
    assert left[:, 0].max() < right[:, 0].min()
    np.testing.assert_allclose(left[:, 1:], right[:, 1:], atol=1e-9)
    small, large = (np.ptp(scene.bounds(legend), axis=0) for legend in (False, True))
    assert large[1] > small[1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0011, 0.002), (0.02, 0.02), (0.021, 0.05), (6.0, 10.0), (1.0, 1.0), (0.0, 1e-12)],
)
def test_a_scale_ends_at_one_two_or_five(value: float, expected: float) -> None:
    assert round_up(value) == pytest.approx(expected)


def test_a_mesh_without_faces_or_extent_is_an_error() -> None:
    mesh = cone()
    nothing = np.zeros((3, 3)), np.zeros((0, 3), np.int64)
    point = np.zeros((3, 3)), np.array([[0, 1, 2]])
    for pair, says in (((nothing, mesh), "original"), ((mesh, nothing), "result has no faces")):
        with pytest.raises(DataError, match=says):
            build_scene(*pair, "y")
    with pytest.raises(DataError, match="no extent"):
        build_scene(point, mesh, "y")


# --- the command


@pytest.fixture
def fake_run(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Put a run of two cones in place of a fitted one."""
    fake = SimpleNamespace(primitive="sdf", asked=[])

    def meshes(run: Any, *, resolution: int, progress: Any) -> tuple[Mesh, Mesh]:
        fake.asked.append(resolution)
        return cone(), moved(cone(), 0.1)

    kinds = {
        "sdf": SimpleNamespace(name="sdf", meshes=meshes),
        "image": SimpleNamespace(name="image", meshes=None),
    }
    monkeypatch.setattr("ngp_warp.primitives.get", kinds.__getitem__)
    monkeypatch.setattr("ngp_warp.run.open_run", lambda path, *, device=None: fake)
    return fake


def test_the_command_writes_a_picture_and_nothing_on_stdout(
    fake_run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.png"
    size = ["--width", "320", "--height", "200", "--resolution", "64", "--device", "cpu"]
    assert app.main(["view", "run", "--screenshot", str(path), *size]) == 0
    out, err = capfd.readouterr()
    assert (out, err) == ("", f"picture {path}\n")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert fake_run.asked == [64]
    args = ["--error-colors", "--wireframe", "--quiet", "--json"]
    assert app.main(["view", "run", "--screenshot", str(path), *size, *args]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    found = json.loads(out)
    assert found["screenshot"] == str(path)
    assert 0 <= found["mean_error"] < found["max_error"] == pytest.approx(0.1, rel=0.02)


WRONG = {
    "there is no display": [],
    "must end in .png": ["--screenshot", "a.jpg"],
    "up must be y or z": ["--screenshot", "a.png", "--up", "x"],
    "--width": ["--screenshot", "a.png", "--width", "10"],
    "--height": ["--screenshot", "a.png", "--height", "100000"],
    "--resolution": ["--screenshot", "a.png", "--resolution", "1"],
    "does not exist": ["--screenshot", "no/such/folder/a.png"],
}


@pytest.mark.parametrize("says", WRONG)
def test_what_cannot_be_shown_is_one_line_and_status_2(
    says: str, fake_run: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["view", "run", "--quiet", "--device", "cpu", *WRONG[says]]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("ngp: error: ")
    assert says in err
    if says != "does not exist":
        assert err.count("\n") == 1
        assert fake_run.asked == []


def test_an_image_has_no_mesh(fake_run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    fake_run.primitive = "image"
    assert app.main(["view", "r", "--screenshot", "a.png", "--device", "cpu"]) == 2
    assert "r is a fitted image" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has sessions without a display")
def test_a_display_that_does_not_answer_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DISPLAY", ":4711")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-4711")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(ResourceError, match="no display"):
        view.check(None, 640, 480, "y")


@pytest.mark.parametrize(("width", "height"), [(63, 100), (100, 5000)])
def test_sizes_are_checked(width: int, height: int) -> None:
    with pytest.raises(ConfigError, match="must be 64 to 4096"):
        view.check(Path("a.png"), width, height, "y")


# --- the import


def test_open3d_is_imported_by_its_own_loader_alone() -> None:
    code = (
        "import sys, ngp_warp.cli.view, ngp_warp.primitives.sdf.view, "
        "ngp_warp.primitives.sdf.metrics; print('open3d' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.skipif(sys.platform != "linux", reason="libusb comes with Open3D elsewhere")
def test_libusb_comes_from_its_wheel_where_the_system_has_none() -> None:
    code = """
import ctypes, pathlib
real = ctypes.CDLL
def without_system(name, *args, **kwargs):
    if name == "libusb-1.0.so.0":
        raise OSError("not here")
    return real(name, *args, **kwargs)
ctypes.CDLL = without_system
from ngp_warp.primitives.sdf.open3d_loader import load_open3d
load_open3d()
maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
print(*{line.split()[-1] for line in maps if "libusb" in line})
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (library,) = done.stdout.split()
    assert "libusb_package" in library


def test_a_missing_open3d_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError("libEGL.so.1: cannot open shared object file\nmore")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ResourceError, match=r"libEGL.*pip install.*apt install") as caught:
        open3d_loader.load_open3d()
    assert "\n" not in str(caught.value)


def test_chatter_is_swallowed_unless_it_explains_an_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def chatter() -> None:
        print("from Python")
        os.write(1, b"native\n")
        os.write(2, b"native warning\n")
        ctypes.CDLL(None).puts(b"from C")
        ctypes.CDLL(None).fflush(None)

    with open3d_loader.without_chatter():
        chatter()
    print("after")
    assert capfd.readouterr() == ("after\n", "")

    def fail() -> None:
        with open3d_loader.without_chatter():
            chatter()
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    out, err = capfd.readouterr()
    assert out == ""
    assert {"from Python", "native", "native warning", "from C"} == set(err.splitlines())
