"""Laws of the frame: there and back again, and where the box of a scene lies."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scene_samples import look_at

from ngp_warp.errors import ConfigError, DataError
from ngp_warp.primitives.nerf.frame import CAMERA_DISTANCE, Frame, choose_frame
from ngp_warp.primitives.nerf.layout import find_layout, nearest_to_axes
from ngp_warp.primitives.nerf.types import Scene, View
from ngp_warp.radiance.settings import AABB_SCALES
from ngp_warp.rays.lenses import Lens

LENS = Lens(width=64, height=48, fx=50.0, fy=50.0, cx=32.0, cy=24.0)
UP = np.array([0.0, 0.0, 1.0])
OFFSETS = st.tuples(*[st.floats(-100, 100)] * 3)


def scene_of(poses: list[np.ndarray], **values) -> Scene:
    views = tuple(
        View(name=f"{i}.png", image=Path(f"{i}.png"), lens=LENS, pose=pose)
        for i, pose in enumerate(poses)
    )
    return Scene(path=Path("scene"), format="colmap", views=views, **values)


def around(target: np.ndarray, radius: float, n: int = 24) -> list[np.ndarray]:
    """Cameras on a ring of two heights, looking at the target."""
    angles = np.arange(n) * 2 * np.pi / n
    height = np.where(np.arange(n) % 2, 0.2, 0.6)
    ring = np.stack([np.cos(angles), np.sin(angles), height], axis=1)
    ring *= radius / np.linalg.norm(ring, axis=1, keepdims=True)
    return [look_at(target + r, target, UP) for r in ring]


# --- the map


@given(st.floats(1e-6, 1e6), OFFSETS, st.sampled_from(AABB_SCALES))
def test_there_and_back_again(scale, offset, aabb_scale) -> None:
    frame = Frame(scale, offset, aabb_scale)
    points = np.random.default_rng(0).normal(0, 1 / scale, (9, 3))
    tolerance = 1e-12 * (1 + np.abs(offset).max()) / scale
    back = frame.to_scene(frame.to_box(points))
    np.testing.assert_allclose(back, points, atol=tolerance)
    assert frame.distance_from_box(frame.distance_to_box(3.0)) == pytest.approx(3.0)
    pose = around(np.zeros(3), 2.0)[3]
    np.testing.assert_allclose(
        frame.poses_from_box(frame.poses_to_box(pose)), pose, atol=tolerance + 1e-12
    )
    np.testing.assert_array_equal(frame.poses_to_box(pose)[:, :3], pose[:, :3])
    np.testing.assert_allclose(frame.to_box(frame.centre), 0.5, atol=1e-9)
    assert Frame.from_dict(frame.to_dict()) == frame


def test_distances_are_those_between_points() -> None:
    frame = Frame(0.25, (0.5, 0.1, -2.0), 2)
    a, b = frame.to_box(np.array([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]]))
    assert np.linalg.norm(b - a) == pytest.approx(frame.distance_to_box(5.0))


@pytest.mark.parametrize("aabb_scale", AABB_SCALES)
def test_the_inner_cube_is_that_of_instant_ngp(aabb_scale: int) -> None:
    offset = (0.5, 0.2, 0.9)
    frame = Frame.from_inner(0.33, offset, aabb_scale)
    point = np.array([0.7, -0.3, 1.1])
    inner = 0.33 * point + offset  # the unit cube there is the inner cube
    np.testing.assert_allclose(frame.to_box(point), (inner - 0.5) / aabb_scale + 0.5)
    assert frame.n_cascades == np.log2(aabb_scale) + 1


def test_a_wrong_frame_is_refused() -> None:
    for aabb_scale in (0, 3, 256):
        with pytest.raises(ConfigError):
            Frame(1.0, (0, 0, 0), aabb_scale)
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(DataError):
            Frame(scale, (0, 0, 0))
    for values in ({}, {"scale": 1}, {"scale": "x", "offset": [0] * 3, "aabb_scale": 1}):
        with pytest.raises(DataError):
            Frame.from_dict(values)


# --- the point nearest to all axes


@given(OFFSETS, st.floats(0.01, 1000.0))
def test_axes_that_meet_give_their_point(target, radius) -> None:
    poses = np.stack(around(np.array(target), radius))
    point, spread = nearest_to_axes(poses[:, :, 3], -poses[:, :, 2])
    np.testing.assert_allclose(point, target, atol=1e-6 * (radius + 100))
    assert 0.3 < spread <= 2 / 3 + 1e-9


def test_a_few_cameras_that_look_away_count_little() -> None:
    target = np.array([1.0, 2.0, 3.0])
    poses = around(target, 4.0)
    poses[5] = look_at(poses[5][:, 3], np.array([9.0, 9.0, -9.0]), UP)
    stack = np.stack(poses)
    point, _ = nearest_to_axes(stack[:, :, 3], -stack[:, :, 2])
    assert np.linalg.norm(point - target) < 0.05


# --- the box


@pytest.mark.parametrize("radius", [0.01, 1.0, 300.0])
def test_around_something_it_is_the_middle(radius: float) -> None:
    target = np.array([10.0, -7.0, 2.0]) * radius
    scene = scene_of(around(target, radius))
    assert find_layout(scene).capture == "around"
    frame = choose_frame(scene)
    np.testing.assert_allclose(frame.centre, target, atol=1e-6 * radius)
    # cameras at 4/3 sides of the inner cube, and what is behind the object is in the box
    poses = frame.poses_to_box(np.stack([view.pose for view in scene.views]))
    distance = np.linalg.norm(poses[:, :, 3] - 0.5, axis=1) * frame.aabb_scale
    np.testing.assert_allclose(distance, CAMERA_DISTANCE, rtol=1e-9)
    assert ((poses[:, :, 3] > 0) & (poses[:, :, 3] < 1)).all()


def test_the_box_does_not_depend_on_units_or_place() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(0, 1.0, (500, 3))
    base = choose_frame(scene_of(around(np.zeros(3), 4.0), points=points))
    for factor, shift in ((0.01, 3.0), (50.0, -900.0)):
        poses = around(np.full(3, shift), 4.0 * factor)
        frame = choose_frame(scene_of(poses, points=points * factor + shift))
        np.testing.assert_allclose(
            frame.to_box(points * factor + shift), base.to_box(points), atol=1e-6
        )


def test_far_points_make_the_box_larger_up_to_16() -> None:
    rng = np.random.default_rng(1)
    unit = rng.normal(0, 1, (500, 3))
    sizes = []
    for extent in (0.5, 8.0, 20.0, 1000.0):
        scene = scene_of(around(np.zeros(3), 4.0), points=unit * extent)
        frame = choose_frame(scene)
        sizes.append(frame.aabb_scale)
        inside = np.abs(frame.to_box(unit * extent) - 0.5).max(axis=1) <= 0.5
        assert inside.mean() >= 0.95 or frame.aabb_scale == 16
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (4, 16)
    assert choose_frame(scene_of(around(np.zeros(3), 4.0)), 128).aabb_scale == 128


def forwards(n: int = 12) -> list[np.ndarray]:
    """Cameras on a small plane, all looking along -y."""
    rng = np.random.default_rng(2)
    return [look_at(p, p - [0, 9.0, 0], UP) for p in rng.uniform(-0.5, 0.5, (n, 3)) * [1, 0.1, 1]]


def test_forwards_the_middle_is_that_of_the_points_or_ahead() -> None:
    points = np.random.default_rng(3).normal(0, 0.3, (99, 3)) - [0, 6.0, 0]
    scene = scene_of(forwards(), points=points)
    assert find_layout(scene).capture == "forwards"
    np.testing.assert_allclose(choose_frame(scene).centre, np.median(points, axis=0), atol=1e-9)
    bounded = choose_frame(scene_of(forwards(), near=2.0, far=20.0))
    assert -20 < bounded.centre[1] < -2
    alone = choose_frame(scene_of(forwards()))
    assert alone.centre[1] < -0.5
    for frame in (bounded, alone):
        box = frame.poses_to_box(np.stack(forwards()))[:, :, 3]
        assert ((box > 0) & (box < 1)).all()


def test_outwards_the_middle_is_that_of_the_cameras() -> None:
    out = [look_at(p[:, 3], 9 * p[:, 3], UP) for p in around(np.zeros(3), 0.5)]
    walls = np.random.default_rng(4).normal(0, 1, (400, 3))
    walls *= 5 / np.linalg.norm(walls, axis=1, keepdims=True)
    for points in (None, walls):
        scene = scene_of(out, points=points)
        assert find_layout(scene).capture == "outwards"
        frame = choose_frame(scene)
        assert np.linalg.norm(frame.centre) < 0.3
        box = frame.poses_to_box(np.stack(out))[:, :, 3]
        assert ((box > 0) & (box < 1)).all()
    assert (np.abs(frame.to_box(walls) - 0.5) < 0.5).all()


def test_one_camera_has_a_box() -> None:
    (pose, *_) = around(np.zeros(3), 4.0)
    for poses in ([pose], [pose, pose, pose]):
        frame = choose_frame(scene_of(poses))
        assert np.isfinite(frame.centre).all()
        assert ((frame.poses_to_box(pose)[:, 3] > 0) & (frame.poses_to_box(pose)[:, 3] < 1)).all()


def test_what_the_file_fixes_is_kept() -> None:
    scene = scene_of(around(np.zeros(3), 4.0), scale=0.33, offset=(0.5, 0.5, 0.4), aabb_scale=4)
    assert choose_frame(scene) == Frame.from_inner(0.33, (0.5, 0.5, 0.4), 4)
    assert choose_frame(scene, 16) == Frame.from_inner(0.33, (0.5, 0.5, 0.4), 16)
    plain = dataclasses.replace(scene, aabb_scale=None)
    assert choose_frame(plain) == Frame.from_inner(0.33, (0.5, 0.5, 0.4), 1)
    with pytest.raises(ConfigError, match="3"):
        choose_frame(scene, 3)
