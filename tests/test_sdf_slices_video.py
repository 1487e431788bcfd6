"""Slices and films of a field."""

import sys

import numpy as np
import pytest

from ngp_warp.errors import ConfigError, DataError, NgpError, ResourceError, ShapeError
from ngp_warp.primitives.contours import draw_slice, round_number
from ngp_warp.primitives.film import write_video
from ngp_warp.primitives.sdf.render import Renderer
from ngp_warp.primitives.sdf.slices import Slice, render_slices, slice_values
from ngp_warp.primitives.sdf.video import render_video
from ngp_warp.rays.cameras import orbit, turntable
from tests.sdf_fields import sampled, sphere


def test_a_slice_is_the_right_way_up(device):
    """Each axis in turn grows to the right or upwards."""
    for axis, (right, up) in enumerate([(2, 1), (0, 2), (0, 1)]):
        for direction, wanted in ((right, "right"), (up, "up"), (axis, "neither")):
            field = sampled(lambda p, d=direction: p[:, d], device, 8)
            values = slice_values(field, Slice(axis, 0.3), 20)
            at = (np.arange(20) + 0.5) / 20
            expected = {
                "right": np.broadcast_to(at, (20, 20)),
                "up": np.broadcast_to(at[::-1, None], (20, 20)),
                "neither": np.full((20, 20), 0.3),
            }[wanted]
            # beyond the last vertex, at 1 - 0.5 / 7, a grid goes on with another row's entries
            assert np.abs(values - expected)[2:, :18].max() < 1e-5


def disc(size=200, radius=0.3):
    y, x = (np.indices((size, size)) + 0.5) / size - 0.5
    return np.hypot(x, y) - radius


def test_the_zero_level_is_a_thick_dark_circle():
    picture = draw_slice(disc(), 0.05, 1 / 200, 0.5).astype(int)
    dark = picture.max(axis=2) < 60
    distance = np.abs(disc()) * 200
    assert np.all(dark[distance < 0.9])
    assert not np.any(dark[distance > 2.1])


def test_inside_is_warm_and_outside_cool_and_stronger_away_from_the_surface():
    values = disc()
    picture = draw_slice(values, 10.0, 1 / 200, 0.5).astype(int)
    warm = picture[..., 0] - picture[..., 2]
    assert np.all(warm[values < -0.02] > 0)
    assert np.all(warm[values > 0.02] < 0)
    order = np.argsort(values[values > 0.02])
    assert np.all(np.diff(warm[values > 0.02][order]) <= 2)


def test_contours_lie_at_equal_distances():
    values = disc(400)
    plain = draw_slice(values, 10.0, 1 / 400, 0.5).astype(int)
    lined = draw_slice(values, 0.05, 1 / 400, 0.5).astype(int)
    changed = np.abs(plain - lined).max(axis=2) > 20
    levels = values[changed] / 0.05
    assert np.abs(levels - np.rint(levels)).max() < 1.1 / 400 / 0.05
    assert {-5, -1, 1, 3, 6} <= set(np.rint(levels).astype(int).tolist())
    assert 0 not in np.rint(levels)


def test_units_of_the_input_set_the_interval_not_the_picture(device):
    field = sampled(sphere(0.3), device, 32)
    one = render_slices(field, size=64, scale=1.0, interval=0.05)
    big = render_slices(field, size=64, scale=0.01, interval=5.0)
    assert one.dtype == np.uint8
    # without the text
    assert np.abs(one[:76].astype(int) - big[:76]).max() <= 2
    # three slices of a sphere through its middle are the same, beside the grid's last vertices
    first, second, third = (one[16:72, 16 + i * 76 : 72 + i * 76].astype(int) for i in range(3))
    assert max(np.abs(first - second).max(), np.abs(first - third).max()) <= 2


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(0.03, 0.05), (0.011, 0.02), (1.0, 1.0), (7, 10), (120, 200), (5e-9, 5e-9)],
)
def test_round_numbers(value, wanted):
    assert round_number(value) == pytest.approx(wanted)


@pytest.mark.parametrize("wrong", [{"size": 1}, {"scale": 0.0}, {"interval": -1.0}])
def test_wrong_slices_are_refused(device, wrong):
    with pytest.raises(ConfigError):
        render_slices(sampled(sphere(), device, 8), **wrong)


def frames_of(path):
    av = pytest.importorskip("av")
    with av.open(str(path)) as film:
        rate = film.streams.video[0].average_rate
        return [f.to_ndarray(format="rgb24") for f in film.decode(video=0)], rate


@pytest.mark.parametrize("size", [(48, 64), (47, 33)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_film_holds_its_pictures(tmp_path, size, suffix):
    pytest.importorskip("av")
    height, width = size
    ramp = np.linspace(40, 200, width)
    frames = []
    for shade in (0, 20, 40):
        frame = np.zeros((height, width, 3))
        frame[...] = ramp[None, :, None] + np.array([shade, 0, -shade / 2])
        frames.append(np.rint(frame).astype(np.uint8))
    path = write_video(tmp_path / f"film{suffix}", iter(frames), fps=12)
    decoded, rate = frames_of(path)
    assert (len(decoded), rate) == (3, 12)
    for got, wanted in zip(decoded, frames, strict=True):
        assert got.shape == (height + height % 2, width + width % 2, 3)
        assert np.abs(got[:height, :width].astype(int) - wanted).mean() < 4
    assert np.abs(decoded[0].astype(int) - decoded[2]).mean() > 10


def test_a_turntable_is_filmed(device, tmp_path):
    pytest.importorskip("av")
    renderer = Renderer(sampled(sphere(0.2, (0.5, 0.5, 0.75)), device, 32))
    seen = []
    cameras = turntable(orbit(0, 10, 2, width=32, height=32), 4)
    render_video(renderer, cameras, tmp_path / "t.mp4", fps=4, spp=1, progress=seen.append)
    decoded, _ = frames_of(tmp_path / "t.mp4")
    assert [(p.step, p.total) for p in seen] == [(i + 1, 4) for i in range(4)]

    # seen from +x the sphere, which lies towards +z, is on the left; from -x on the right
    def column(frame):
        warm = frame[..., 0].astype(int) - frame[..., 2] > 25
        return np.nonzero(warm)[1].mean()

    assert column(decoded[1]) < 12
    assert column(decoded[3]) > 20


def test_a_film_without_av_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ResourceError, match=r"ngp-warp\[video\]"):
        write_video(tmp_path / "film.mp4", [np.zeros((4, 4, 3), np.uint8)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "frames", "fps", "error"),
    [
        ("film.gif", [np.zeros((4, 4, 3), np.uint8)], 24, ConfigError),
        ("film.mp4", [np.zeros((4, 4, 3), np.uint8)], 0, ConfigError),
        ("film.mp4", [np.zeros((4, 4, 3), np.uint8)], float("nan"), ConfigError),
        ("film.mp4", [np.zeros((1, 4, 3), np.uint8)], 24, ConfigError),
        ("film.mp4", [np.zeros((4, 9000, 3), np.uint8)], 24, ConfigError),
        ("film.mp4", [], 24, DataError),
        ("film.mp4", [np.zeros((4, 4), np.uint8)], 24, ShapeError),
        ("film.mp4", [np.zeros((4, 4, 3))], 24, ShapeError),
        (
            "film.mp4",
            [np.zeros((4, 4, 3), np.uint8), np.zeros((6, 4, 3), np.uint8)],
            24,
            ShapeError,
        ),
        ("none/film.mp4", [np.zeros((4, 4, 3), np.uint8)], 24, ResourceError),
    ],
)
def test_no_film_is_refused_and_leaves_nothing(tmp_path, name, frames, fps, error):
    pytest.importorskip("av")
    with pytest.raises(error) as raised:
        write_video(tmp_path / name, frames, fps)
    assert isinstance(raised.value, NgpError)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
