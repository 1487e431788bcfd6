"""Slices through volumes: their orientation, proportions, colours, and comparisons."""

import math

import numpy as np
import pytest

from ngp_warp.errors import ConfigError, DataError, ShapeError
from ngp_warp.primitives.contours import draw_slice
from ngp_warp.primitives.volume.planes import middle_planes
from ngp_warp.primitives.volume.slices import compare_slices, render_slices, value_window

SHAPE = (9, 11, 7)
GAP = 12


def pictures(sheet, planes, size):
    """The three pictures of a sheet, without gaps and texts."""
    pixel = max(side for plane in planes for side in plane.size) / size
    sizes = [plane.pixels(pixel) for plane in planes]
    left, bottom, result = GAP, GAP + max(h for h, _ in sizes), []
    for height, width in sizes:
        result.append(sheet[bottom - height : bottom, left : left + width].astype(int))
        left += width + GAP
    return result


def ramp(axis, shape=SHAPE):
    return np.moveaxis(np.indices(shape), 0, -1)[..., axis].astype(np.float32)


@pytest.mark.parametrize(
    ("up", "wanted"),
    [
        ("y", ((2, 1), (0, 2), (0, 1))),
        ("z", ((1, 2), (0, 2), (0, 1))),
        ("x", ((2, 1), (2, 0), (1, 0))),
    ],
)
def test_right_and_up_are_as_said(up, wanted):
    for plane, axes in zip(middle_planes(SHAPE, up=up), wanted, strict=True):
        assert (plane.right, plane.up) == axes
        for axis in range(3):
            picture = plane.picture(plane.section(ramp(axis)), 0.25)
            n = SHAPE[axis]
            assert picture.shape == (SHAPE[plane.up] * 4, SHAPE[plane.right] * 4)
            # pixels of a quarter of a voxel, constant in the outer half of the outermost
            along = np.clip((np.arange(4 * n) + 0.5) / 4 - 0.5, 0, n - 1)
            expected = np.full(picture.shape, plane.position)
            if axis == plane.right:
                expected[:] = along
            elif axis == plane.up:
                expected[:] = along[::-1, None]
            np.testing.assert_allclose(picture, expected, atol=1e-5)


def test_the_picture_follows_the_world_where_the_index_runs_against_it():
    flips = np.diag([-1.0, 1, -2, 1])
    plain, flipped = middle_planes(SHAPE, up="z"), middle_planes(SHAPE, flips, up="z")
    values = np.random.default_rng(0).uniform(size=SHAPE)
    for one, other in zip(plain, flipped, strict=True):
        got = other.picture(other.section(values), 1.0)
        expected = one.picture(one.section(values), 1.0)
        expected = expected[:, ::-1] if one.right == 0 else expected
        if one.up == 2:
            # twice as high in the world: each voxel is two pixels
            assert got.shape == (2 * expected.shape[0], expected.shape[1])
            expected = expected[::-1]
            np.testing.assert_allclose(
                (got[::2] + got[1::2])[1:-1] / 2,
                (expected[:-2] + 6 * expected[1:-1] + expected[2:]) / 8,
                atol=1e-5,
            )
        else:
            np.testing.assert_allclose(got, expected, atol=1e-6)


def test_voxels_have_their_proportions():
    matrix = np.array([[0, 0.5, 0, 0], [2.0, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
    planes = middle_planes((10, 20, 5), matrix)
    assert [plane.size for plane in planes] == [(15, 10), (20, 15), (20, 10)]
    sheet = render_slices(np.ones((10, 20, 5)), matrix, size=200)
    assert sheet.shape[1] == 4 * GAP + 150 + 200 + 200


def test_planes_go_through_a_place():
    values = np.random.default_rng(0).uniform(size=SHAPE)
    first = (5, -3, 2)
    planes = middle_planes(SHAPE, None, first, at=(6, 1.5, 8))
    np.testing.assert_allclose([p.position for p in planes], [1, 4.5, 6])
    np.testing.assert_array_equal(planes[0].section(values), values[1])
    np.testing.assert_allclose(planes[1].section(values).T, values[:, 4:6].mean(axis=1))
    np.testing.assert_array_equal(planes[2].section(values).T, values[:, :, 6])
    assert [p.position for p in middle_planes(SHAPE)] == [4, 5, 3]
    for at in ((4.9, 0, 3), (5, 0, 9), (math.nan, 0, 3)):
        with pytest.raises(ConfigError, match="slice's"):
            middle_planes(SHAPE, None, first, at=at)
    with pytest.raises(ConfigError, match="up axis"):
        middle_planes(SHAPE, up="w")


def test_a_window_sets_black_and_white():
    values = ramp(0) * 10
    planes = middle_planes(SHAPE)
    grey = pictures(render_slices(values, size=88, window=(20, 60)), planes, 88)
    # through x = 4: halfway
    assert np.abs(grey[0] - 127.5).max() <= 1
    assert (grey[1][:, :16] == 0).all()
    assert (grey[1][:, -16:] == 255).all()
    assert (np.diff(grey[2][0, :, 0]) >= 0).all()
    assert (grey[2] == grey[2][..., :1]).all()
    color = pictures(render_slices(values, size=88, colormap="inferno"), planes, 88)
    assert (color[1][0, 0] == [0, 0, 3]).all()
    assert (color[1][0, -1] == [252, 254, 164]).all()


def test_the_default_window_leaves_odd_voxels_out():
    values = np.random.default_rng(0).uniform(1, 2, (30, 30, 30))
    values[3, 4, 5], values[7, 8, 9] = 1e6, -1e6
    low, high = value_window(values)
    assert 0.99 < low < 1.02
    assert 1.98 < high < 2.01
    assert value_window(np.full((3, 3, 3), 5.0)) == (5, 6)
    few = np.zeros((30, 30, 30))
    few[3, 3, 3] = 2
    assert value_window(few) == (0, 2)


def test_vectors_show_their_lengths():
    vectors = np.random.default_rng(0).normal(size=(*SHAPE, 3))
    got = render_slices(vectors, size=64)
    expected = render_slices(np.linalg.norm(vectors, axis=3), size=64, colormap="viridis")
    np.testing.assert_array_equal(got, expected)
    one = ramp(0) - 4
    np.testing.assert_array_equal(
        render_slices(one[..., None], size=64), render_slices(one, size=64)
    )


def test_level_sets_are_warm_inside_and_have_a_thick_line():
    index = np.moveaxis(np.indices((41, 41, 41)), 0, -1) - 20
    values = np.linalg.norm(index, axis=-1) / 10 - 1
    matrix = np.diag([0.1, 0.1, 0.1, 1])
    planes = middle_planes(values.shape, matrix)
    for picture in pictures(render_slices(values, matrix, level_set=True, size=164), planes, 164):
        x, y = (np.indices((164, 164)) + 0.5) / 40 - 2.05
        distance = np.hypot(x, y) - 1
        assert picture[np.abs(distance) < 0.01].max() < 80
        warm = picture[..., 0] - picture[..., 2]
        assert (warm[distance < -0.1] > 0).all()
        assert (warm[distance > 0.1] < 0).all()
        np.testing.assert_array_equal(picture, picture[::-1])


def test_a_narrow_band_has_no_contours_where_it_ends():
    values = np.clip(np.linspace(-2, 2, 41), -0.6, 0.6) * np.ones((41, 1))
    picture = draw_slice(values, 0.1, 0.1, 0.6).astype(int)
    # the strongest colours, undimmed
    np.testing.assert_array_equal(picture[20, 3], [178, 60, 45])
    np.testing.assert_array_equal(picture[20, -3], [40, 96, 155])


@pytest.mark.parametrize("level_set", [False, True])
def test_a_comparison_shows_the_error_and_its_scale(level_set):
    values = np.linalg.norm(np.moveaxis(np.indices(SHAPE), 0, -1) - 4, axis=-1) - 3
    same = compare_slices(values, values, level_set=level_set, error_limit=1)
    assert same.dtype == np.uint8
    height, width, _ = same.shape
    black = (same == [0, 0, 3]).all(axis=2)
    # a third of the picture, but for gaps and scales
    assert black[:, 2 * width // 3 :].mean() > 0.5
    other = values.copy()
    # more than the limit: no pixel's centre is the voxel's
    other[4, 5, 3] += 1.25
    got = compare_slices(values, other, level_set=level_set, error_limit=1)
    assert got.shape == same.shape
    top = int(0.85 * height)
    bright = (np.abs(got[:top].astype(int) - [252, 254, 164]) <= 3).all(axis=2)
    # the voxel lies in all three planes
    assert bright[:, 2 * width // 3 :].any()
    assert not bright[:, : 2 * width // 3].any()
    np.testing.assert_array_equal(got[:top, : width // 3], same[:top, : width // 3])
    dim = compare_slices(values, other, level_set=level_set, error_limit=100)
    assert not (np.abs(dim[:top].astype(int) - [252, 254, 164]) <= 3).all(axis=2).any()


def test_the_error_of_vectors_is_that_of_their_difference():
    vectors = np.zeros((*SHAPE, 3))
    vectors[..., 0] = 1
    turned = vectors[..., ::-1]
    got = compare_slices(vectors, turned, error_limit=math.sqrt(2), window=(0, 2))
    bright = (np.abs(got.astype(int) - [252, 254, 164]) <= 3).all(axis=2)
    assert bright[:, 2 * got.shape[1] // 3 :].mean() > 0.5


def test_thin_volumes_have_slices():
    values = np.random.default_rng(0).uniform(-1, 1, (1, 1, 50))
    for level_set in (False, True):
        assert render_slices(values, level_set=level_set, size=40).dtype == np.uint8
        assert compare_slices(values, values, level_set=level_set).ndim == 3


def test_bad_settings_are_refused():
    ones = np.ones((3, 4, 5))
    cases = [
        (ConfigError, "size", lambda: render_slices(ones, size=3)),
        (ConfigError, "window", lambda: render_slices(ones, window=(2, 1))),
        (ConfigError, "colormap", lambda: render_slices(ones, colormap="jet")),
        (ConfigError, "error_limit", lambda: compare_slices(ones, ones, error_limit=-1)),
        (ShapeError, "values must have shape", lambda: render_slices(np.ones((3, 4)))),
        (ShapeError, "to_world", lambda: render_slices(ones, np.eye(3))),
        (ShapeError, "result must be", lambda: compare_slices(ones, np.ones((3, 4, 6)))),
        (DataError, "finite", lambda: render_slices(ones * np.nan)),
        (DataError, "finite", lambda: compare_slices(ones, ones * np.inf)),
        (DataError, "singular", lambda: render_slices(ones, np.zeros((4, 4)))),
    ]
    for error, message, call in cases:
        with pytest.raises(error, match=message):
            call()
