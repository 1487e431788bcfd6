"""Cameras: identities of orbits, rays that project back, splines through their key frames."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngp_warp.errors import ConfigError, DataError
from ngp_warp.rays.camera_paths import camera_at, interpolate, interpolate_poses, load_camera_path
from ngp_warp.rays.cameras import CENTRE, Camera, orbit, parse_camera, turntable

ANGLES = st.floats(-720, 720)
ELEVATIONS = st.floats(-89, 89)


@given(ANGLES, ELEVATIONS, st.floats(0.1, 10), st.sampled_from("xyz"))
def test_an_orbit_keeps_its_distance_and_looks_at_its_target(azimuth, elevation, distance, up):
    camera = orbit(azimuth, elevation, distance, up=up)
    matrix = camera.camera_to_world()
    arm = np.subtract(camera.position, CENTRE)
    assert np.linalg.norm(arm) == pytest.approx(distance, rel=1e-9)
    # OpenGL: the camera looks along -z
    assert np.allclose(matrix[:3, 2] * distance, arm, atol=1e-9 * distance)
    rotation = matrix[:3, :3]
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)
    axis = "xyz".index(up)
    assert arm[axis] == pytest.approx(distance * math.sin(math.radians(elevation)), abs=1e-9)
    # level, and the right way up
    assert rotation[axis, 0] == pytest.approx(0, abs=1e-9)
    assert rotation[axis, 1] > 0


def test_orbits_begin_in_front_and_go_counter_clockwise():
    assert np.allclose(orbit(0, 0, 2).position, [0.5, 0.5, 2.5])
    assert np.allclose(orbit(90, 0, 2).position, [2.5, 0.5, 0.5])
    assert np.allclose(orbit(0, 0, 2, up="z").position, [0.5, -1.5, 0.5])
    assert np.allclose(orbit(90, 0, 2, up="z").position, [2.5, 0.5, 0.5])
    assert np.allclose(orbit(360, 10, 2).position, orbit(0, 10, 2).position)


@given(ANGLES, ELEVATIONS)
def test_a_turn_of_an_orbit_is_an_orbit(azimuth, elevation):
    frames = turntable(orbit(azimuth, elevation, 2, width=10, height=20), 8)
    assert len(frames) == 8
    for i, frame in enumerate(frames):
        wanted = orbit(azimuth + 45 * i, elevation, 2, width=10, height=20)
        assert np.allclose(frame.position, wanted.position, atol=1e-9)
        assert (frame.look_at, frame.up, frame.width) == (wanted.look_at, wanted.up, 10)


@given(ANGLES, ELEVATIONS, st.floats(5, 120))
def test_rays_project_back_to_their_pixels(azimuth, elevation, fov):
    camera = orbit(azimuth, elevation, 2, fov=fov, width=30, height=20)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 30, 50), rng.uniform(0, 20, 50)
    rays_o, rays_d = camera.rays(x, y)
    assert rays_o.dtype == rays_d.dtype == np.float32
    assert np.allclose(np.linalg.norm(rays_d, axis=1), 1, atol=1e-6)
    world_to_camera = np.linalg.inv(camera.camera_to_world())
    p = (rays_o + 3.0 * rays_d) @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    focal = 10 / math.tan(math.radians(fov) / 2)
    # float32 directions times the focal length, at most 230 pixels
    assert np.abs(15 + focal * p[:, 0] / -p[:, 2] - x).max() < 1e-3
    assert np.abs(10 - focal * p[:, 1] / -p[:, 2] - y).max() < 1e-3


def test_the_field_of_view_is_the_vertical_one():
    camera = Camera(position=(0, 0, 0), look_at=(0, 0, -1), fov=60, width=50, height=40)
    _, rays_d = camera.rays(np.array([25, 25, 25]), np.array([0, 20, 40]))
    angles = np.degrees(np.arctan2(rays_d[:, 1], -rays_d[:, 2]))
    assert np.allclose(angles, [30, 0, -30], atol=1e-4)
    assert camera.pixel_size * 40 == pytest.approx(2 * math.tan(math.radians(30)))


def test_moving_camera_and_world_together_changes_no_direction():
    camera = orbit(30, 20, 2)
    moved = camera.moved(3.0, (1.0, -2.0, 0.5))
    x, y = np.array([10.0, 700.0]), np.array([20.0, 400.0])
    assert np.allclose(camera.rays(x, y)[1], moved.rays(x, y)[1], atol=1e-6)
    assert np.allclose(moved.position, 3 * np.array(camera.position) + [1, -2, 0.5])


def test_a_parsed_orbit_is_the_orbit():
    assert parse_camera("orbit:30,-20.5,1.8", width=9) == orbit(30, -20.5, 1.8, width=9)


@pytest.mark.parametrize(
    "text",
    ["", "orbit", "orbit:1,2", "orbit:1,2,3,4", "orbit:a,b,c", "path:1,2,3", "orbit:0,90,2",
     "orbit:0,0,0", "orbit:0,0,-1", "orbit:nan,0,1", "orbit:0,nan,1", "orbit:0,0,inf"],
)  # fmt: skip
def test_no_orbit_is_refused(text):
    with pytest.raises(ConfigError):
        parse_camera(text)


@pytest.mark.parametrize(
    "changes",
    [{"fov": 0}, {"fov": 180}, {"width": 0}, {"height": -1}, {"up": (0, 0, 1)},
     {"look_at": (0, 0, 5)}, {"position": (0, math.nan, 5)}, {"up": (0, 0, 0)}],
)  # fmt: skip
def test_no_camera_is_refused(changes):
    with pytest.raises(ConfigError):
        Camera(**{"position": (0, 0, 5), "look_at": (0, 0, 0), **changes})


def test_a_spline_passes_through_its_key_frames():
    keys = [orbit(a, 10 + a / 10, 1.5 + a / 100, fov=30 + a / 9) for a in (0, 40, 100, 130)]
    frames = interpolate(keys, 31)
    assert len(frames) == 31
    for index, key in enumerate(keys):
        frame = frames[10 * index]
        assert np.allclose(frame.position, key.position)
        assert np.allclose(frame.look_at, key.look_at)
        assert frame.fov == pytest.approx(key.fov)
    steps = np.linalg.norm(np.diff([f.position for f in frames], axis=0), axis=1)
    assert steps.max() < 3 * steps.min()


def test_a_spline_through_a_line_is_the_line():
    keys = [Camera(position=(0.5, 0.5, z)) for z in (2.0, 3.0, 4.0)]
    z = [f.position[2] for f in interpolate(keys, 9)]
    assert np.allclose(z, np.linspace(2, 4, 9))


def test_a_closed_spline_comes_back():
    keys = [orbit(a, 20, 2) for a in (0, 90, 180, 270)]
    frames = interpolate(keys, 40, closed=True)
    assert np.allclose([frames[10 * i].position for i in range(4)], [k.position for k in keys])
    steps = np.linalg.norm(np.diff([f.position for f in [*frames, frames[0]]], axis=0), axis=1)
    # also where it closes; the speed on a square of key frames varies by sqrt(3) or so
    assert steps.max() < 2 * steps.min()


def test_one_key_frame_stands_still():
    assert interpolate([orbit(0, 0, 2)], 3) == [orbit(0, 0, 2)] * 3


def write(folder, values):
    path = folder / "path.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


def test_key_frames_from_a_file(tmp_path):
    frames = [{"position": [0.5, 0.5, 3], "fov": 40}, {"position": [3, 0.5, 0.5]}]
    path = write(tmp_path, {"keyframes": frames, "fps": 10, "seconds": 2})
    film = load_camera_path(path, width=32, height=16)
    assert (len(film.cameras), film.fps) == (20, 10)
    assert film.cameras[0] == Camera(position=(0.5, 0.5, 3), fov=40, width=32, height=16)
    assert np.allclose(film.cameras[-1].position, (3, 0.5, 0.5))


def test_nerfstudio_cameras_are_kept(tmp_path):
    cameras = [orbit(a, 15, 2, fov=50) for a in (0, 10)]
    entries = [
        {"camera_to_world": c.camera_to_world().ravel().tolist(), "fov": c.fov, "aspect": 1}
        for c in cameras
    ]
    film = load_camera_path(write(tmp_path, {"camera_path": entries, "fps": 30}))
    assert film.fps == 30
    for got, wanted in zip(film.cameras, cameras, strict=True):
        assert np.allclose(got.camera_to_world(), wanted.camera_to_world())
        assert got.fov == wanted.fov


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ("{", "not JSON"),
        ([1, 2], "object"),
        ({}, "keyframes"),
        ({"keyframes": []}, "keyframes"),
        ({"keyframes": [3]}, r"keyframes\[0\]"),
        ({"keyframes": [{"look_at": [0, 0, 0]}]}, "position"),
        ({"keyframes": [{"position": [1, 2]}]}, r"keyframes\[0\].position"),
        ({"keyframes": [{"position": [1, 2, "a"]}]}, r"keyframes\[0\].position"),
        ({"keyframes": [{"position": [0.5, 0.5, 3], "fov": 200}]}, "field of view"),
        ({"keyframes": [{"position": [0.5, 0.5, 0.5]}]}, "its own position"),
        ({"keyframes": [{"position": [0.5, 0.5, 3]}], "fps": 0}, "fps"),
        ({"keyframes": [{"position": [0.5, 0.5, 3]}], "seconds": 1e9}, "at most"),
        ({"camera_path": {}}, "camera_path"),
        ({"camera_path": [{"camera_to_world": [1, 2, 3]}]}, r"camera_path\[0\]"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, values, match):
    path = write(tmp_path, values)
    with pytest.raises(DataError, match=match) as error:
        load_camera_path(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        load_camera_path(tmp_path / "none.json")


def _poses(angles, elevation=20.0):
    cameras = [orbit(a, elevation, 2.0) for a in angles]
    return np.stack([c.camera_to_world()[:3] for c in cameras])


@pytest.mark.parametrize("closed", [True, False])
def test_poses_pass_through_their_key_frames(closed):
    keys = _poses([0, 80, 200])
    n = 12 if closed else 9
    frames = interpolate_poses(keys, n, closed=closed)
    assert frames[::4] == pytest.approx(keys, abs=1e-12)
    rotations = frames[:, :, :3]
    assert rotations @ rotations.transpose(0, 2, 1) == pytest.approx(
        np.tile(np.eye(3), (n, 1, 1)), abs=1e-12
    )
    assert interpolate_poses(keys[:1], 3) == pytest.approx(keys[[0, 0, 0]])


def test_rotations_turn_evenly():
    frames = interpolate_poses(_poses([10, 100], elevation=0.0), 10)
    cosines = np.einsum("nij,nij->n", frames[1:, :, :3], frames[:-1, :, :3])
    assert np.degrees(np.arccos((cosines - 1) / 2)) == pytest.approx(np.full(9, 10.0))


def test_key_frames_may_be_matrices(tmp_path):
    keys = _poses([0, 90])
    square = [np.vstack([k, [0, 0, 0, 1]]) for k in keys]
    frames = [
        {"camera_to_world": (m * [2, 2, 2, 1]).ravel().tolist(), "fov": f}
        for m, f in zip(square, (30, 40), strict=True)
    ]
    path = tmp_path / "path.json"
    path.write_text(json.dumps({"fps": 5, "seconds": 1, "keyframes": frames}))
    cameras = load_camera_path(path, width=30, height=20).cameras
    assert len(cameras) == 5
    for camera, pose in zip((cameras[0], cameras[-1]), keys, strict=True):
        assert camera.camera_to_world()[:3] == pytest.approx(pose, abs=1e-9)
    assert [c.fov for c in cameras] == pytest.approx([30, 32.5, 35, 37.5, 40])
    turned = interpolate_poses(keys, 5)
    for camera, pose in zip(cameras, turned, strict=True):
        again = camera_at(pose, fov=camera.fov, width=30, height=20)
        assert camera.camera_to_world() == pytest.approx(again.camera_to_world(), abs=1e-9)
    for wrong, word in (
        ([frames[0], {"position": [1, 2, 3]}], r"keyframes\[0\]|keyframes\[1\]"),
        ([{"camera_to_world": [0.0] * 16}], "rotation"),
        ([{"camera_to_world": [1, 2]}], "16"),
    ):
        path.write_text(json.dumps({"keyframes": wrong}))
        with pytest.raises(DataError, match=word):
            load_camera_path(path)
