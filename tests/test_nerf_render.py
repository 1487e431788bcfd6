"""Pictures of a radiance field against closed forms, and the options of ``ngp render``."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ngp_warp.errors import ConfigError, ResourceError
from ngp_warp.primitives.nerf import shots
from ngp_warp.primitives.nerf.colors import parse_background
from ngp_warp.primitives.nerf.output import render
from ngp_warp.primitives.nerf.passes import density_normals
from ngp_warp.primitives.nerf.render import DepthRange, depth_picture
from ngp_warp.primitives.nerf.sequence import CAMERAS_FILE
from ngp_warp.primitives.nerf.subject import Subject
from ngp_warp.primitives.nerf.traced import Shot
from ngp_warp.primitives.nerf.types import View
from ngp_warp.rays.cameras import orbit
from ngp_warp.rays.lenses import Lens
from tests.nerf_views import ring
from tests.radiance_stand_in import StandIn, odd_frame, settings

RADIUS = 0.2
"""Of the ball in the middle of the box, in sides of the box."""
LENS = Lens(width=60, height=44, fx=80, fy=80, cx=30, cy=22, k1=-0.05)


def subject(n=6, n_test=2, n_steps=128, **more):
    frame = odd_frame()
    views = ring(frame, LENS, n, n_test=n_test)
    field = StandIn(n_steps=n_steps, **more)
    lenses = [LENS] * len(views)
    return Subject(field=field, frame=frame, views=views, lenses=lenses, background=(1, 1, 1))


def hard(**more):
    return subject(n_steps=512, peak=50_000.0, softness=2e-4, **more)


def exact(a, shot):
    """Depth of the ball along the optical axis, infinite beside it; how near rays come to it."""
    rows, columns = np.indices((shot.height, shot.width)) + 0.5
    o, d = shot.rays(columns.ravel(), rows.ravel())
    o = o - a.frame.to_scene(np.full((1, 3), 0.5))[0]
    radius = RADIUS / a.frame.scale
    b = d @ o
    nearest = np.sqrt(np.maximum(o @ o - b * b, 0))
    t = -b - np.sqrt(np.maximum(radius**2 - nearest**2, 0))
    z = np.where(nearest < radius, t * -(d @ shot.pose[:, 2]), np.inf)
    return z.reshape(rows.shape), nearest.reshape(rows.shape) / radius


def test_depth_is_in_scene_units_along_the_axis():
    a = hard()
    shot = a.shot(1)
    made = a.renderer().buffers(shot)
    wanted, nearest = exact(a, shot)
    within, beside = nearest < 0.95, nearest > 1.02
    # a step of the quadrature, and as much again for what passes into the ball
    step = 1.8 / 512 / a.frame.scale
    assert np.abs(made.depth[within] - wanted[within]).max() < 3 * step
    assert within.sum() > 200
    assert np.all(np.isinf(made.depth[beside]))
    assert np.all(made.opacity[within] > 0.999)
    assert np.all(made.opacity[beside] < 1e-3)


@pytest.mark.parametrize(("softness", "least"), [(0.002, 0.999), (2e-4, 0.98)])
def test_normals_are_the_balls(softness, least):
    a = subject(n_steps=512, peak=20_000.0, softness=softness)
    shot = a.shot(0)
    made = a.renderer().buffers(shot, normals=True)
    _, nearest = exact(a, shot)
    rows, columns = np.nonzero(nearest < 0.9)
    o, d = shot.rays(columns + 0.5, rows + 0.5)
    t = made.depth[rows, columns] / -(d @ shot.pose[:, 2])
    wanted = o + t[:, None] * d - a.frame.to_scene(np.full((1, 3), 0.5))[0]
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert made.normals is not None
    cosine = np.einsum("ij,ij->i", wanted, made.normals[rows, columns])
    assert cosine.min() > least
    assert not np.any(made.normals[nearest > 1.3])


def test_normals_point_out_of_density():
    slope = np.array([3.0, -5.0, 2.0])
    points = np.random.default_rng(0).random((50, 3))
    found = density_normals(lambda p: np.exp(p @ slope), points, 0.01)
    np.testing.assert_allclose(found, np.tile(-slope / np.linalg.norm(slope), (50, 1)), atol=1e-4)
    assert not np.any(density_normals(lambda p: np.ones(len(p)), points, 0.01))


def test_rays_without_an_inverse_of_the_lens_show_nothing():
    a = subject(n_steps=32)
    lens = Lens(width=40, height=40, fx=20, fy=20, cx=20, cy=20, k1=-0.4)
    shot = Shot(lens=lens, pose=a.views[0].pose)
    rows, columns = np.indices((40, 40)) + 0.5
    missing = np.isnan(shot.rays(columns.ravel(), rows.ravel())[1]).any(axis=1).reshape(40, 40)
    assert 0 < missing.sum() < 1500
    made = a.renderer().buffers(shot, normals=True)
    for values in (made.color, made.opacity, made.normals):
        assert np.all(np.isfinite(values))
    assert not np.any(made.color[missing])
    assert np.all(np.isinf(made.depth[missing]))


def test_backgrounds(tmp_path):
    a = subject()
    for text, wanted in (("white", 255), ("black", 0), ("0.2,0.4,1", (51, 102, 255))):
        render(a, tmp_path / "a.png", view="0", background=text)
        picture = np.asarray(Image.open(tmp_path / "a.png"))
        assert np.all(picture[0, 0] == wanted)
    render(a, tmp_path / "b.png", view="0", background="transparent")
    straight = np.asarray(Image.open(tmp_path / "b.png")).astype(float) / 255
    assert straight.shape == (44, 60, 4)
    assert straight[0, 0, 3] == 0
    over = straight[..., :3] * straight[..., 3:] + np.array([0.2, 0.4, 1]) * (1 - straight[..., 3:])
    assert np.abs(over - picture / 255).max() < 2.5 / 255
    render(a, tmp_path / "c.png", view="0")
    assert np.all(np.asarray(Image.open(tmp_path / "c.png"))[0, 0] == 255)  # of the photos


def test_an_environment_is_behind_unless_a_background_is_told(tmp_path):
    def sky(directions):
        return 0.5 + 0.5 * directions

    a = replace(subject(), environment=sky)
    shot = a.shot(0)
    made = a.renderer().buffers(shot)
    direction = shot.rays(np.array([0.5]), np.array([0.5]))[1]
    np.testing.assert_allclose(made.color[0, 0], sky(direction)[0], atol=1e-6)
    assert np.all(a.renderer((0, 0, 0)).buffers(shot).color[0, 0] == 0)
    assert np.all(a.renderer(transparent=True).buffers(shot).color[0, 0] == 0)


def test_colours_of_linear_fields_are_encoded(tmp_path):
    picture = {}
    for space in ("srgb", "linear"):
        a = subject(settings=settings(color_space=space))
        render(a, tmp_path / "a.png", view="0", background="0.5,0.5,0.5")
        picture[space] = np.asarray(Image.open(tmp_path / "a.png")).astype(int)
    assert np.all(picture["linear"][0, 0] == 128)
    assert np.all(picture["linear"][22, 30] > picture["srgb"][22, 30] + 10)


def test_depth_files(tmp_path):
    import OpenEXR

    a = subject()
    wanted = a.renderer().buffers(a.shot(0)).depth
    render(a, tmp_path / "d.npy", view="0", show="depth")
    np.testing.assert_array_equal(np.load(tmp_path / "d.npy"), wanted)
    render(a, tmp_path / "d.exr", view="0", show="depth")
    with OpenEXR.File(str(tmp_path / "d.exr")) as file:
        np.testing.assert_array_equal(file.channels()["Z"].pixels, wanted)
    render(a, tmp_path / "d.png", view="0", show="depth")
    assert np.asarray(Image.open(tmp_path / "d.png")).shape == (44, 60, 3)


def test_depth_colours_follow_the_range():
    depth = np.array([[1.0, 2.0, 4.0, np.inf]])
    picture = depth_picture(depth, DepthRange(1.0, 4.0))
    assert picture[0, 0, 0] > picture[0, 0, 2]  # near is red
    assert picture[0, 2, 2] > picture[0, 2, 0]  # far is blue
    assert not np.any(picture[0, 3])
    assert DepthRange.of(np.full((3, 3), np.inf)).near > 0
    np.testing.assert_array_equal(depth_picture(np.full((2, 2), 5.0)).min(axis=(0, 1)) >= 0, True)


def test_samples_smooth_edges_alone(tmp_path):
    a = subject(n_steps=64, softness=5e-4)
    one = a.renderer().buffers(a.shot(0))
    many = a.renderer().buffers(a.shot(0), spp=8)
    _, nearest = exact(a, a.shot(0))
    edge = np.abs(nearest - 1) < 0.03
    assert np.any((many.opacity[edge] > 0.2) & (many.opacity[edge] < 0.8))
    far = nearest > 1.3
    np.testing.assert_array_equal(one.color[far], many.color[far])
    np.testing.assert_array_equal(one.depth, many.depth)
    with pytest.raises(ConfigError, match="spp"):
        a.renderer().buffers(a.shot(0), spp=0)


def test_views_by_number_and_by_name():
    views = subject().views
    assert shots.find_view(views, "3") == 3
    for name in ("test/r_5.png", "test/r_5", "r_5.png", "r_5"):
        assert shots.find_view(views, name) == 5
    for wrong in ("6", "-1", "r_9", "test"):
        with pytest.raises(ConfigError, match="--view"):
            shots.find_view(views, wrong)
    twice = [views[0], replace(views[0], name="other/r_0.png")]
    with pytest.raises(ConfigError, match="could be"):
        shots.find_view(twice, "r_0")


def test_sizes_keep_pixels_square():
    half = shots.sized(LENS, (30, None))
    assert (half.width, half.height, half.fx, half.cy) == (30, 22, 40, 11)
    assert shots.sized(LENS, (None, 22)) == half
    wide = shots.sized(LENS, (50, 22))
    assert (wide.fx, wide.fy, wide.cx, wide.cy) == (40, 40, 25, 11)
    assert shots.sized(LENS, (None, None)) is LENS


def test_orbits_are_about_the_inner_cube():
    frame = odd_frame(4)
    middle, side = shots.inner_cube(frame, 4)
    assert side == pytest.approx(1 / 0.037 / 4)
    for axis, name in enumerate("xyz"):
        camera = shots.orbit_camera("orbit:30,20,2", frame, 4, np.eye(3)[axis], width=8, height=6)
        wanted = orbit(30, 20, 2, up=name)
        arm = np.subtract(camera.position, middle) / side
        np.testing.assert_allclose(arm, np.subtract(wanted.position, 0.5), atol=1e-9)
        np.testing.assert_allclose(camera.look_at, middle)
    down = shots.orbit_camera(
        "orbit:0,90e-6,2", frame, 4, np.array([0, -1.0, 0]), width=8, height=6
    )
    np.testing.assert_allclose(shots.shot_of(down).pose[:, 1], [0, -1, 0], atol=1e-5)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_up_and_focus_come_from_the_views(axis):
    frame = odd_frame()
    views = ring(frame, LENS, 7, up=axis)
    np.testing.assert_array_equal(shots.scene_up(views), np.eye(3)["xyz".index(axis)])
    middle = frame.to_scene(np.full((1, 3), 0.5))[0]
    np.testing.assert_allclose(shots.focus(views), middle, atol=1e-6)


def test_photo_orbit_is_as_high_and_as_far_as_the_photos():
    frame = odd_frame()
    views = ring(frame, LENS, 8, distance=1.4, elevation=25.0)
    cameras = shots.photo_orbit(views, np.array([0, 0, 1.0]), 12, LENS)
    middle = frame.to_scene(np.full((1, 3), 0.5))[0]
    arms = np.array([c.position for c in cameras]) - middle
    np.testing.assert_allclose(np.linalg.norm(arms, axis=1), 1.4 / frame.scale, rtol=1e-6)
    np.testing.assert_allclose(arms[:, 2], arms[0, 2])
    np.testing.assert_allclose(arms.sum(axis=0)[:2], 0, atol=1e-6)
    assert cameras[0].fov == pytest.approx(2 * np.degrees(np.arctan(22 / 80)))
    pose = np.eye(4)[:3].copy()
    pose[2, 3] = 3.0
    above = [replace(view, pose=pose) for view in views]
    with pytest.raises(ConfigError, match="above"):
        shots.photo_orbit(above, np.array([0, 0, 1.0]), 4, LENS)


def test_a_spiral_stays_near_photos_that_face_one_way():
    views = []
    for x in (-1.0, 0.0, 1.0):
        for y in (-0.5, 0.5):
            pose = np.eye(4)[:3].copy()
            pose[:, 3] = (x, y, 5)
            back = pose[:, 3] / np.linalg.norm(pose[:, 3])
            right = np.cross([0, 1, 0], back)
            right /= np.linalg.norm(right)
            pose[:, :3] = np.stack([right, np.cross(back, right), back], axis=1)
            views.append(View(name="a", image=Path("a"), lens=LENS, pose=pose))
    cameras = shots.photo_spiral(views, np.array([0, 1.0, 0]), 40, LENS)
    found = np.array([c.position for c in cameras])
    assert np.abs(found[:, 0]).max() == pytest.approx(1, abs=0.1)
    assert np.abs(found[:, 1]).max() == pytest.approx(0.5, abs=0.1)
    np.testing.assert_allclose(cameras[7].look_at, [0, 0, 0], atol=1e-6)
    # it closes: from the last to the first is as far as between others
    steps = np.linalg.norm(np.diff(np.concatenate([found, found[:1]]), axis=0), axis=1)
    assert steps[-1] < 1.5 * steps[:-1].max()


def test_folders_hold_pictures_and_cameras(tmp_path):
    a = subject(n_steps=32)
    render(a, tmp_path / "test", test=True, width=30)
    assert sorted(p.name for p in (tmp_path / "test").iterdir()) == [
        CAMERAS_FILE,
        "test_r_4.png",
        "test_r_5.png",
    ]
    cameras = json.loads((tmp_path / "test" / CAMERAS_FILE).read_text())
    np.testing.assert_allclose(cameras[1]["pose"], a.views[5].pose)
    assert cameras[1]["lens"]["width"] == 30
    render(a, tmp_path / "test", path="orbit", frames=3, width=16, show="depth")  # replaces
    names = {p.name for p in (tmp_path / "test").iterdir()}
    assert names == {CAMERAS_FILE, *(f"000{i}.{s}" for i in range(3) for s in ("png", "npy"))}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ResourceError, match="something else"):
        render(a, tmp_path / "mine", test=True, width=16)


def test_films_follow_paths(tmp_path):
    av = pytest.importorskip("av")
    a = subject(n_steps=32)
    pose = np.eye(4)
    pose[:3] = a.views[0].pose
    path = {"camera_path": [{"camera_to_world": pose.ravel().tolist(), "fov": 40}] * 3, "fps": 7}
    (tmp_path / "path.json").write_text(json.dumps(path))
    render(a, tmp_path / "a.mp4", camera_path=tmp_path / "path.json", width=32, height=24)
    render(a, tmp_path / "b.mp4", frames=4, fps=5, width=30, show="normals")
    render(a, tmp_path / "c.mkv", camera="orbit:0,20,2", frames=2, width=20, show="depth")
    for name, n, rate, size in (("a.mp4", 3, 7, (32, 24)), ("b.mp4", 4, 5, (30, 22))):
        with av.open(str(tmp_path / name)) as film:
            frames = list(film.decode(video=0))
            assert len(frames) == n
            assert film.streams.video[0].average_rate == rate
            assert (frames[0].width, frames[0].height) == size


def test_key_frames_look_at_the_middle_of_the_inner_cube(tmp_path):
    a = subject(n_steps=64)
    middle = a.frame.to_scene(np.full((1, 3), 0.5))[0]
    position = np.add(middle, (0, -60, 5)).tolist()
    keys = {"keyframes": [{"position": position, "up": [0, 0, 1]}]}
    (tmp_path / "keys.json").write_text(json.dumps({**keys, "seconds": 0.05}))
    render(a, tmp_path / "out", camera_path=tmp_path / "keys.json", width=32, show="opacity")
    picture = np.asarray(Image.open(tmp_path / "out" / "0000.png"))[..., 0] / 255
    rows, columns = np.indices(picture.shape)
    assert picture.sum() > 50
    assert (picture * rows).sum() / picture.sum() == pytest.approx(15.5, abs=0.2)
    assert (picture * columns).sum() / picture.sum() == pytest.approx(15.5, abs=0.2)


def test_interrupted_work_leaves_nothing(tmp_path):
    class Stop(Exception):
        pass

    def stop(progress):
        raise Stop

    a = subject(n_steps=16)
    for name, options in (
        ("a.png", {"view": "0"}),
        ("b.mp4", {"frames": 3, "width": 16}),
        ("c", {"test": True, "width": 16}),
    ):
        with pytest.raises(Stop):
            render(a, tmp_path / name, progress=stop, **options)
    assert not list(tmp_path.iterdir())


def test_latents_are_those_of_trained_views(tmp_path):
    a = subject(n_steps=8, settings=settings(n_latent_dims=4, n_views=4))
    render(a, tmp_path / "a.png", view="2")
    assert set(a.field.latents) == {2}
    a.field.latents.clear()
    render(a, tmp_path / "a.png", view="5")
    assert set(a.field.latents) == {None}
    a.field.latents.clear()
    render(a, tmp_path / "a.png", view="5", appearance="r_1")
    assert set(a.field.latents) == {1}
    with pytest.raises(ConfigError, match="not trained"):
        render(a, tmp_path / "a.png", appearance="r_5")
    with pytest.raises(ConfigError, match="--appearance"):
        render(subject(n_steps=8), tmp_path / "a.png", appearance="r_1")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.jpg", {}, "is named"),
        ("a.npy", {}, "is named"),
        ("a.png", {"show": "shaded"}, "--show must be"),
        ("a.png", {"view": "0", "camera": "orbit:0,0,2"}, "not both"),
        ("a.png", {"test": True}, "--test is not for"),
        ("a.png", {"frames": 3}, "--frames is not for"),
        ("a.png", {"up": "z"}, "--up is not for"),
        ("a.png", {"show": "depth", "spp": 4}, "--spp is not for"),
        ("a.png", {"show": "depth", "background": "white"}, "--background is not for"),
        ("a.png", {"background": "mauve"}, "--background must be"),
        ("a.png", {"camera": "left"}, "orbit:AZIMUTH"),
        ("a.mp4", {"background": "transparent"}, "no transparency"),
        ("a.mp4", {"test": True}, "folder of pictures"),
        ("a.mp4", {"view": "1"}, "--view is not for"),
        ("a.mp4", {"path": "line"}, "--path must be"),
        ("a.mp4", {"path": "spiral", "camera": "orbit:0,0,2"}, "--camera is for"),
        ("a.mp4", {"fps": -1.0}, "fps"),
        ("folder", {}, "needs --test"),
        ("folder", {"path": "orbit", "fps": 3.0}, "--fps is not for"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, name, options, message):
    with pytest.raises(ConfigError, match=message):
        render(subject(n_steps=4), tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_backgrounds_by_name():
    assert parse_background("0,0.5,1") == (0.0, 0.5, 1.0)
    assert parse_background("transparent") is None
    for wrong in ("", "1,2", "0,0,1.5", "0,0,nan"):
        with pytest.raises(ConfigError, match="--background"):
            parse_background(wrong)
