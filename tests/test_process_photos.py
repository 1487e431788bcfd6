"""Laws of `ngp process-photos`: known cameras are found again, and bad input is one line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import photo_scenes
import pytest
from PIL import Image as PilImage

from ngp_warp.cli import app
from ngp_warp.errors import ConfigError, DataError, ResourceError
from ngp_warp.primitive import Progress
from ngp_warp.primitives.nerf import colmap, sfm, sfm_export, sfm_photos, sfm_scene
from ngp_warp.primitives.nerf.images import load_photos
from ngp_warp.primitives.nerf.scene import load_scene
from ngp_warp.primitives.nerf.sfm import SfmOptions, process_photos

pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed")


def poses_of(folder: Path) -> np.ndarray:
    frames = json.loads((folder / "transforms.json").read_text())["frames"]
    return np.array([frame["transform_matrix"] for frame in frames])[:, :3]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[Progress]]:
    """A scene made of photos of the corner of a room, the report, and what was said."""
    folder = tmp_path_factory.mktemp("corner")
    photo_scenes.write_photos(folder / "photos")
    (folder / "photos" / "notes.txt").write_text("no photo")
    (folder / "photos" / "zz broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    said: list[Progress] = []
    options = SfmOptions(camera_model="SIMPLE_PINHOLE", max_image_size=320)
    result = process_photos(
        folder / "photos", folder / "scene", options=options, report=said.append
    )
    return folder / "scene", result, said


def test_known_cameras_are_found_again(made: Any) -> None:
    folder, result, _ = made
    assert result["registered"] == result["photos"] == photo_scenes.N_VIEWS
    assert result["unreadable"] == ["zz broken.jpg"]
    assert result["focal"] == pytest.approx(photo_scenes.FOCAL, rel=0.03)
    assert 0 < result["reprojection_error"] < 1
    truth, got = photo_scenes.poses(), poses_of(folder)
    scale, rotation, translation = photo_scenes.similarity(got, truth)
    errors = scale * got[:, :, 3] @ rotation.T + translation - truth[:, :, 3]
    assert np.abs(errors).max() < 0.05  # of 3 units from the corner
    turned = rotation @ got[:, :, :3]
    cosines = (np.einsum("nij,nij->n", turned, truth[:, :, :3]) - 1) / 2
    assert np.degrees(np.arccos(np.clip(cosines, -1, 1))).max() < 1.0
    # Another camera's place would be noticed.
    assert np.abs(np.roll(got, 1, axis=0)[:, :, 3] - got[:, :, 3]).max() > 0.2


def test_a_cropped_photo_shows_where_its_optical_axis_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for i, pose in enumerate(photo_scenes.poses(12)):
        cropped = PilImage.fromarray(photo_scenes.picture(pose)).crop((28, 0, 320, 220))
        cropped.save(tmp_path / "photos" / f"{i}.png")
    options = SfmOptions(camera_model="SIMPLE_PINHOLE", max_image_size=320)
    result = process_photos(tmp_path / "photos", tmp_path / "scene", options=options)
    assert result["registered"] == 12
    assert capfd.readouterr() == ("", "")
    lens = load_scene(tmp_path / "scene").views[0].lens
    # The middle is (146, 110), the axis went through (132, 120).
    assert abs(lens.cx - 132) < 7
    assert abs(lens.cy - 120) < 7


def test_the_scene_is_upright_centred_and_of_the_usual_size(made: Any) -> None:
    folder, _, _ = made
    got, truth = poses_of(folder), photo_scenes.poses()
    _, rotation, _ = photo_scenes.similarity(got, truth)
    assert rotation[2, 2] > 0.999  # up stays up, though all cameras look down
    centres = got[:, :, 3]
    assert np.linalg.norm(centres, axis=1).mean() == pytest.approx(4.0)
    axes = -got[:, :, 2]
    off = centres - (centres * axes).sum(axis=1, keepdims=True) * axes
    assert np.linalg.norm(off, axis=1).max() < 0.1  # every optical axis passes the origin


def test_the_scene_is_read_and_its_points_lie_where_they_are_seen(made: Any) -> None:
    folder, result, _ = made
    scene = load_scene(folder)
    photos, _ = load_photos(scene.views, threads=1)
    assert len(photos.sizes) == photo_scenes.N_VIEWS
    assert scene.aabb_scale == result["aabb_scale"]
    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    assert scene.points is not None
    assert len(scene.points) == result["points"] == model.num_points3D()
    for view in scene.views:
        image = model.find_image_with_name(Path(view.image).name)
        seen = [p for p in image.points2D if p.has_point3D()]
        points = np.array([model.points3D[p.point3D_id].xyz for p in seen])
        local = (points - view.pose[:, 3]) @ view.pose[:, :3]
        lens = view.lens
        u = lens.cx - lens.fx * local[:, 0] / local[:, 2]
        v = lens.cy + lens.fy * local[:, 1] / local[:, 2]
        errors = np.hypot(*(np.stack([u, v]) - np.array([p.xy for p in seen]).T))
        assert errors.mean() < 1.0
        assert errors.max() < 6.0


def test_all_stages_are_told_and_nothing_else_is_left(made: Any) -> None:
    folder, _, said = made
    stages = list(dict.fromkeys(p.stage for p in said))
    assert stages == ["load", "features", "matching", "mapping"]
    for stage in ("features", "matching", "mapping"):
        steps = [p.step for p in said if p.stage == stage]
        assert steps == sorted(steps)
        assert max(p.total for p in said if p.stage == stage) >= max(steps)
    assert any("zz broken.jpg" in (p.message or "") for p in said)
    left = {path.name for path in folder.iterdir()}
    assert left == {"images", "sparse", "points.ply", "transforms.json"}
    assert {path.name for path in folder.parent.iterdir()} == {"photos", "scene"}


def test_a_photo_stays_the_same_file(made: Any, tmp_path: Path) -> None:
    folder, _, _ = made
    for path in (folder / "images").iterdir():
        assert path.read_bytes() == (folder.parent / "photos" / path.name).read_bytes()
        assert not path.is_symlink()


def test_the_command_gives_json_links_and_the_same_cameras(
    made: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, result, _ = made
    photos = folder.parent / "photos"
    args = ["process-photos", str(photos), str(tmp_path / "out"), "--link", "--json", "--quiet"]
    args += ["--camera-model", "simple_pinhole", "--max-image-size", "320", "--threads", "1"]
    assert app.main(args) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert json.loads(out)["registered"] == result["registered"]
    links = list((tmp_path / "out" / "images").iterdir())
    assert all(path.is_symlink() and path.read_bytes() for path in links)
    # Seeded; what threads change is the rounding of sums.
    assert np.abs(poses_of(tmp_path / "out") - poses_of(folder)).max() < 0.05


def test_an_interruption_leaves_nothing(made: Any, tmp_path: Path) -> None:
    photos = made[0].parent / "photos"
    for stage in ("load", "features", "matching", "mapping"):

        def stop(progress: Progress, at: str = stage) -> None:
            if progress.stage == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            process_photos(photos, tmp_path / "out", report=stop)
        assert list(tmp_path.iterdir()) == []


def test_a_video_gives_its_sharpest_frames(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    video = tmp_path / "walk.mp4"
    pose = photo_scenes.poses(4)
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=4)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for i in range(8):  # two seconds; of each, one frame is sharp
            image = photo_scenes.picture(pose[i // 2])
            if i not in (2, 5):
                small = PilImage.fromarray(image).resize((32, 24)).resize((320, 240))
                image = np.asarray(small)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    said: list[Progress] = []
    frames = sfm_photos.extract_frames(video, tmp_path, 1.0, said.append)
    assert len(frames) == 2
    for path, i in zip(frames, (2, 5), strict=True):
        got = np.asarray(PilImage.open(path), np.float64)
        assert np.abs(got - photo_scenes.picture(pose[i // 2])).mean() < 10
    assert said[-1].step == said[-1].total == 2


# --- the axes


def ring(n: int, down: float, span: float, roll: float = 0.0) -> np.ndarray:
    """Return cameras on an arc about (1, 2, 3), looking at it from ``down`` degrees above."""
    made = []
    for angle in np.radians(np.linspace(0, span, n, endpoint=span < 360)):
        tilt = np.radians(down)
        out = np.array([np.cos(angle) * np.cos(tilt), np.sin(angle) * np.cos(tilt), np.sin(tilt)])
        pose = photo_scenes.look_at(np.array([1, 2, 3]) + 5 * out, np.array([1.0, 2.0, 3.0]))
        c, s = np.cos(np.radians(roll)), np.sin(np.radians(roll))
        pose[:, :3] = pose[:, :3] @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        made.append(pose)
    return np.array(made)


def random_similarity(seed: int) -> sfm_export.Similarity:
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return sfm_export.Similarity(rng.uniform(0.1, 10), q * np.linalg.det(q), rng.normal(size=3))


@pytest.mark.parametrize(("down", "span"), [(5, 360), (40, 360), (40, 90), (-20, 60)])
def test_orienting_undoes_any_similarity(down: float, span: float) -> None:
    truth = ring(20, down, span)
    points = np.random.default_rng(1).normal(size=(50, 3))
    for seed in range(3):
        change = random_similarity(seed)
        turn = sfm_export.orient(change.poses(truth.copy()), change.points(points), [1] * 20)
        got = turn.poses(change.poses(truth.copy()))
        assert np.allclose(np.linalg.norm(got[:, :, 3], axis=1), 4.0)
        assert np.allclose(got[:, 2, 3], 4 * np.sin(np.radians(down)), atol=1e-6)
        assert np.allclose(got[:, 2, 0], 0, atol=1e-9)  # right is level
        assert np.allclose(got[:, :, :3] @ got[:, :, :3].swapaxes(1, 2), np.eye(3))
        again = turn.points(change.points(truth[:, :, 3]))
        assert np.allclose(again, got[:, :, 3])


@pytest.mark.parametrize(("orientation", "roll"), [(1, 0), (3, 180), (6, -90), (8, 90)])
def test_photos_held_upright_show_where_up_is(orientation: int, roll: float) -> None:
    # EXIF 6: to be turned a quarter to the right, so up is on the left of the stored picture.
    poses = ring(12, 30, 80, roll)
    up = sfm_export.up_direction(poses, [orientation] * 12)
    assert np.allclose(up, [0, 0, 1], atol=1e-6)
    wrong = sfm_export.up_direction(poses, [{1: 6, 3: 1, 6: 8, 8: 6}[orientation]] * 12)
    assert wrong[2] < 0.8


def test_cameras_side_by_side_are_centred_on_the_points() -> None:
    poses = np.repeat(ring(1, 10, 1), 5, axis=0)
    poses[:, :, 3] += np.linspace(-1, 1, 5)[:, None] * poses[0, :, 0]
    points = np.random.default_rng(0).normal(size=(101, 3))
    centre = sfm_export.centre_of_attention(poses, points)
    assert np.allclose(centre, np.median(points, axis=0))
    assert sfm_export.up_direction(poses, [1] * 5) @ poses[0, :, 1] == pytest.approx(1.0)


@pytest.mark.parametrize("model", sfm.get_args(sfm.CameraModel))
def test_every_camera_model_means_the_same_lens(model: str, tmp_path: Path) -> None:
    """What COLMAP projects, the lens of transforms.json, read back, projects there too."""
    camera = pycolmap.Camera.create_from_model_name(1, model, 300.0, 320, 240)
    params = np.array(camera.params)
    n_focal = len(camera.focal_length_idxs())
    params[n_focal + 2 :] = 0.01 * np.arange(1, len(params) - n_focal - 1)
    camera.params = params
    described = sfm_scene.camera_of(camera)
    local = np.random.default_rng(0).uniform([-0.5, -0.4, 1], [0.5, 0.4, 2], (50, 3))
    expected = np.array([camera.img_from_cam(p) for p in local])
    PilImage.new("RGB", (320, 240)).save(tmp_path / "a.png")
    frame = {"file_path": "a.png", "transform_matrix": np.eye(4).tolist()}
    text = json.dumps(sfm_export.describe_scene([frame], [described], 1) | {"ply_file_path": None})
    (tmp_path / "transforms.json").write_text(text.replace('"ply_file_path": null, ', ""))
    lens = load_scene(tmp_path).views[0].lens
    x, y = local[:, 0] / local[:, 2], local[:, 1] / local[:, 2]
    r2 = x * x + y * y
    if lens.fisheye:
        r, theta2 = np.sqrt(r2), np.arctan(np.sqrt(r2)) ** 2
        powers = sum(
            k * theta2 ** (i + 1) for i, k in enumerate((lens.k1, lens.k2, lens.k3, lens.k4))
        )
        q = np.sqrt(theta2) * (1 + powers) / r
        x, y = q * x, q * y
    else:
        q = (1 + lens.k1 * r2 + lens.k2 * r2**2 + lens.k3 * r2**3) / (
            1 + lens.k4 * r2 + lens.k5 * r2**2 + lens.k6 * r2**3
        )
        x, y = (
            q * x + 2 * lens.p1 * x * y + lens.p2 * (r2 + 2 * x * x),
            q * y + lens.p1 * (r2 + 2 * y * y) + 2 * lens.p2 * x * y,
        )
    got = np.stack([lens.fx * x + lens.cx, lens.fy * y + lens.cy], axis=1)
    assert np.abs(got - expected).max() < 1e-6


def test_several_cameras_get_lenses_of_their_own() -> None:
    one = sfm_export.intrinsics("PINHOLE", ["fx", "fy", "cx", "cy"], [9, 9, 5, 4], (10, 8))
    two = one | {"fl_x": 7.0}
    frames = [{"file_path": "a"}, {"file_path": "b"}]
    shared = sfm_export.describe_scene(frames, [one, one], 2)
    assert shared["fl_x"] == 9.0
    assert "fl_x" not in shared["frames"][0]
    own = sfm_export.describe_scene(frames, [one, two], 2)
    assert "fl_x" not in own
    assert [frame["fl_x"] for frame in own["frames"]] == [9.0, 7.0]


# --- choosing


def test_the_sharpest_of_each_run_is_used() -> None:
    values = [1, 5, 2, 7, 3, 3, 9]
    photos = [sfm_photos.Photo(str(i), (4, 3), 1, v, ()) for i, v in enumerate(values)]
    assert [photo.name for photo in sfm_photos.choose(photos, 3)] == ["1", "3", "6"]
    assert sfm_photos.choose(photos, 99) == photos


def test_blur_is_less_sharp_and_depth_does_not_matter() -> None:
    image = photo_scenes.picture(photo_scenes.poses()[0])
    blurred = np.asarray(PilImage.fromarray(image).reduce(4).resize((320, 240)))
    assert sfm_photos.sharpness(image) > 3 * sfm_photos.sharpness(blurred)
    assert sfm_photos.sharpness(image.astype(np.uint16) * 257) == pytest.approx(
        sfm_photos.sharpness(image), rel=1e-4
    )


@pytest.mark.parametrize("n", [2, 5, 30])
def test_pairs_are_all_or_neighbours_and_powers_of_two(n: int) -> None:
    every = [(i, j) for i in range(n) for j in range(i + 1, n)]
    assert colmap.pairs_of(n, "exhaustive") == every
    near = {(i, j) for i, j in every if j - i <= 10 or j - i in (16, 32)}
    assert set(colmap.pairs_of(n, "sequential")) == near


def test_numbers_in_names_count_by_value() -> None:
    names = ["b1", "a10", "a9", "a10b2", "a", "²"]
    assert sorted(names, key=sfm_photos.natural_key) == ["a", "a9", "a10", "a10b2", "b1", "²"]


def test_photos_of_one_camera_share_it_and_zooms_do_not(tmp_path: Path) -> None:
    for name, focal in (("a", 28), ("b", 28), ("c", 50)):
        exif = PilImage.Exif()
        exif[0x0110] = "Camera"
        exif.get_ifd(0x8769)[0xA405] = focal
        PilImage.new("RGB", (32, 24)).save(tmp_path / f"{name}.jpg", exif=exif)
    photos, _ = sfm_photos.look_at(sfm_photos.list_photos(tmp_path), 2, lambda p: None)
    a, b, c = (photo.camera for photo in photos)
    assert a == b != c


# --- what is wrong


def noise(folder: Path, n: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(n):
        PilImage.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def _bad() -> dict[str, tuple[Callable[[Path], Path], type, str]]:
    def empty(p: Path) -> Path:
        (p / "photos").mkdir()
        return p / "photos"

    def text(p: Path) -> Path:
        (p / "a.txt").write_text("hello")
        return p / "a.txt"

    def video(p: Path) -> Path:
        (p / "a.mp4").write_text("hello")
        return p / "a.mp4"

    def broken(p: Path) -> Path:
        folder = noise(p / "photos", 2)
        (folder / "x.jpg").write_bytes(b"")
        return folder

    return {
        "missing": (lambda p: p / "photos", DataError, "does not exist"),
        "empty": (empty, DataError, "holds no photos"),
        "text": (text, DataError, "neither a folder of photos nor a video"),
        "broken video": (video, DataError, "a.mp4"),
        "one": (lambda p: noise(p / "photos", 1), DataError, "at least 3"),
        "two and a broken one": (broken, DataError, "x.jpg"),
        "noise": (lambda p: noise(p / "photos", 4), DataError, "more overlap"),
    }


@pytest.mark.parametrize("kind", _bad())
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    make, error, words = _bad()[kind]
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source = make(tmp_path / "in")
    with pytest.raises(error) as caught:
        process_photos(source, tmp_path / "out" / "scene")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_exists_is_never_replaced(tmp_path: Path) -> None:
    photos = noise(tmp_path / "photos", 4)
    (photos / "transforms.json").write_text("{}")
    for output in (photos, photos / "transforms.json"):
        with pytest.raises(ResourceError, match="exists already"):
            process_photos(photos, output)
    with pytest.raises(ResourceError, match="does not exist"):
        process_photos(photos, tmp_path / "no" / "scene")


def test_without_pycolmap_the_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(ConfigError, match=r"pip install 'ngp-warp\[nerf\]'"):
        process_photos(tmp_path, tmp_path / "scene")


def test_cuda_is_refused_where_pycolmap_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pycolmap, "has_cuda", False)
    assert colmap.choose_device("auto") == "cpu"
    with pytest.raises(ResourceError, match="--device cpu"):
        colmap.choose_device("cuda:0")
    monkeypatch.setattr(pycolmap, "has_cuda", True)
    assert colmap.choose_device("auto") == colmap.choose_device("cuda:1") == "cuda"


@pytest.mark.parametrize(
    "flags",
    [["--camera-model", "LENS"], ["--matcher", "all"], ["--max-photos", "1"], ["--video-fps", "0"]],
)
def test_wrong_flags_are_one_line(
    tmp_path: Path, flags: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["process-photos", str(tmp_path), str(tmp_path / "out"), *flags]) == 2
    assert capfd.readouterr().err.count("\n") == 1
