"""Lenses: OpenCV's equations, their inverse, their fold and their derivatives."""

from dataclasses import replace

import numpy as np
import pytest
import warp as wp
from hypothesis import given
from hypothesis import strategies as st
from lens_views import BARREL, FISHEYE, LENSES, PINHOLE
from reference import lens as reference

from ngp_warp import launch
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.kernels import lens as kernels
from ngp_warp.rays.lenses import Lens, lens_table

ALL = pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES.keys())
COLUMNS = ["fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2"]


def places(lens, n=200, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (n, 2)) * [lens.width, lens.height]


@wp.kernel
def unproject_kernel(
    begin: int,
    table: wp.array[float],
    pixels: wp.array[wp.vec2],
    out: wp.array[wp.vec3],
    back: wp.array[wp.vec3],
    folds: wp.array[float],
):
    i = begin + wp.tid()
    lens = kernels.load_lens(table, 0)
    out[i] = kernels.unproject(lens, pixels[i][0], pixels[i][1])
    back[i] = kernels.project(lens, 3.0 * out[i])
    if i == 0:
        folds[0] = kernels.fold(lens)


@wp.kernel
def gradient_kernel(
    begin: int,
    table: wp.array[float],
    d: wp.array[wp.vec3],
    g: wp.array[wp.vec3],
    out: wp.array2d[float],
):
    i = begin + wp.tid()
    found = kernels.lens_gradient(kernels.load_lens(table, 0), d[i], g[i])
    for c in range(kernels.N_PARAMETERS):
        out[i, c] = found[c]


def run_unproject(lens, pixels, device):
    n = len(pixels)
    arrays = [wp.zeros(n, dtype=wp.vec3, device=device) for _ in range(2)]
    folds = wp.zeros(1, dtype=float, device=device)
    table = wp.array(lens_table([lens]).ravel(), dtype=float, device=device)
    given_pixels = wp.array(pixels.astype(np.float32), dtype=wp.vec2, device=device)
    launch.launch(unproject_kernel, n, [table, given_pixels, *arrays, folds], device)
    return arrays[0].numpy(), arrays[1].numpy(), float(folds.numpy()[0])


@ALL
def test_directions_are_those_of_opencv(lens):
    pixels = places(lens, 20)
    directions = lens.unproject(pixels)
    for pixel, direction in zip(pixels, directions, strict=True):
        if np.isnan(direction[0]):
            continue
        assert direction == pytest.approx(reference.unproject(lens, pixel), abs=1e-9)
        found = lens.project(7 * direction[None])[0]
        assert found == pytest.approx(reference.project(lens, 7 * direction), abs=1e-9)


def test_the_comparison_notices_a_sign():
    lens = LENSES["brown"]
    pixels = places(lens, 5)
    other = replace(lens, p1=-lens.p1).unproject(pixels)
    for pixel, direction in zip(pixels, other, strict=True):
        assert np.abs(direction - reference.unproject(lens, pixel)).max() > 1e-6


@ALL
def test_the_inverse_is_exact(lens):
    pixels = places(lens, 5000)
    directions = lens.unproject(pixels)
    valid = ~np.isnan(directions[:, 0])
    assert valid.mean() > 0.5
    assert np.linalg.norm(directions[valid], axis=1) == pytest.approx(1, abs=1e-14)
    error = np.abs(lens.project(directions[valid]) - pixels[valid])
    # 1e-12 of the image plane, times the focal length
    assert error.max() < 1e-12 * lens.fx * 10


@given(
    st.floats(-0.4, 0.4),
    st.floats(-0.2, 0.2),
    st.floats(-0.1, 0.1),
    st.floats(-2e-3, 2e-3),
    st.booleans(),
)
def test_every_pixel_has_its_direction_or_none(k1, k2, k3, p1, fisheye):
    lens = Lens(
        width=64, height=48, fx=40, fy=42, cx=31, cy=25, fisheye=fisheye,
        k1=k1, k2=k2, k3=k3, p1=0 if fisheye else p1,
    )  # fmt: skip
    pixels = places(lens, 300)
    directions = lens.unproject(pixels)
    valid = ~np.isnan(directions[:, 0])
    assert lens.project(directions[valid]) == pytest.approx(pixels[valid], abs=1e-7)
    # the branch that begins at the middle: no direction lies beyond the fold
    angle = np.arccos(np.clip(-directions[valid, 2], -1, 1))
    limit = lens.limit if fisheye else np.arctan(lens.limit)
    assert np.all(angle <= limit + 1e-6)


def test_beyond_the_fold_there_is_nothing():
    lens = replace(BARREL, k1=-0.5, k2=0.0, k3=0.0)
    # d/dr (r - r^3 / 2) = 0
    assert lens.limit == pytest.approx(np.sqrt(2 / 3))
    farthest = lens.fx * (lens.limit - 0.5 * lens.limit**3)
    inside, outside = lens.cx + farthest * np.array([0.9999, 1.0001])
    directions = lens.unproject([[inside, lens.cy], [outside, lens.cy]])
    assert np.isnan(directions).any(axis=1).tolist() == [False, True]
    assert np.isnan(lens.project([[lens.limit * 1.01, 0, -1]])).all()


def test_a_fisheye_sees_behind_itself():
    lens = replace(FISHEYE, fx=8.0, fy=8.0, k1=0.0, k2=0.0, k3=0.0, k4=0.0)
    direction = lens.unproject([[lens.cx + 8 * np.radians(120), lens.cy]])[0]
    assert direction == pytest.approx([np.sin(np.radians(120)), 0, 0.5], abs=1e-12)
    assert lens.project(direction[None])[0, 0] == pytest.approx(lens.cx + 8 * np.radians(120))
    # and no farther than straight back
    assert np.isnan(lens.unproject([[lens.cx + 8 * 3.2, lens.cy]])).all()


def test_a_perspective_lens_sees_nothing_behind():
    assert np.isnan(PINHOLE.project([[0.1, 0.1, 0.5], [0.1, 0.1, 0.0]])).all()


@ALL
def test_a_resampled_photo_shows_the_same_directions(lens):
    pixels = places(lens, 50)
    smaller = lens.scaled(lens.width // 2, lens.height // 3)
    share = [smaller.width / lens.width, smaller.height / lens.height]
    assert np.allclose(
        smaller.unproject(pixels * share), lens.unproject(pixels), atol=1e-12, equal_nan=True
    )


@ALL
def test_the_kernel_agrees(lens, device):
    pixels = places(lens, 500)
    found, back, fold = run_unproject(lens, pixels, device)
    wanted = lens.unproject(pixels.astype(np.float32))
    valid = ~np.isnan(wanted[:, 0])
    # a pixel within rounding of the fold may fall on either side
    assert ((found != 0).any(axis=1) == valid).mean() > 0.99
    both = valid & (found != 0).any(axis=1)
    # float32 of O(1) values and pixels up to 40 / fx: some eps; the fold magnifies
    distance = np.abs(found[both] - wanted[both]).max(axis=1)
    assert np.quantile(distance, 0.98) < 1e-6
    assert distance.max() < 1e-3
    assert np.quantile(np.abs(back[both, :2] - pixels[both]), 0.98) < 1e-4
    assert fold == pytest.approx(min(lens.limit, kernels.UNLIMITED), rel=1e-3)


def test_the_middle_of_a_picture_is_the_axis(device):
    for lens in LENSES.values():
        found, _, _ = run_unproject(lens, np.array([[lens.cx, lens.cy]]), device)
        assert found[0] == pytest.approx([0, 0, -1], abs=1e-6)
        assert lens.unproject([[lens.cx, lens.cy]])[0] == pytest.approx([0, 0, -1], abs=1e-12)


@ALL
def test_derivatives_by_the_lens(lens, device):
    pixels = places(lens, 40, seed=1)
    rng = np.random.default_rng(2)
    d = lens.unproject(pixels)
    keep = ~np.isnan(d[:, 0])
    # near the fold the derivative has no bound
    widest = lens.limit if lens.fisheye else np.arctan(lens.limit)
    keep &= np.arccos(-np.where(keep, d[:, 2], 0)) < 0.8 * widest
    pixels, d = pixels[keep], d[keep]
    assert len(pixels) > 10
    g = rng.normal(size=d.shape)
    arrays = [wp.array(a.astype(np.float32), dtype=wp.vec3, device=device) for a in (d, g)]
    out = wp.zeros((len(d), kernels.N_PARAMETERS), dtype=float, device=device)
    table = wp.array(lens_table([lens]).ravel(), dtype=float, device=device)
    launch.launch(gradient_kernel, len(d), [table, *arrays, out], device)
    for column, name in enumerate(COLUMNS):
        if lens.fisheye and name in ("k5", "k6", "p1", "p2"):
            assert not out.numpy()[:, column].any()
            continue
        h = 1e-5 * (lens.fx if column < 4 else 1.0)
        ends = [
            replace(lens, **{name: getattr(lens, name) + s * h}).unproject(pixels) for s in (1, -1)
        ]
        wanted = ((ends[0] - ends[1]) / (2 * h) * g).sum(axis=1)
        size = np.abs(wanted).max()
        assert size > 0
        # float32 through a division by the determinant
        assert out.numpy()[:, column] == pytest.approx(wanted, abs=2e-5 * size, rel=1e-3), name


def test_impossible_lenses_are_named():
    for change, word in (
        ({"fx": 0.0}, "focal"),
        ({"fy": -3.0}, "focal"),
        ({"cx": float("nan")}, "cx"),
        ({"k1": float("inf")}, "k1"),
        ({"width": 0}, "pixels"),
        ({"fisheye": True, "p1": 0.1}, "fisheye"),
    ):
        with pytest.raises(ConfigError, match=word):
            replace(PINHOLE, **change)
    with pytest.raises(ShapeError, match="pixels"):
        PINHOLE.unproject(np.zeros(3))
