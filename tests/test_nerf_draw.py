"""Drawing rays: the twin, every pixel alike, real rays, targets over their backgrounds."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import warp as wp
from lens_views import BARREL, BROWN, FISHEYE, FRAME, LENSES, PINHOLE, look_at, photos, ring
from reference import draw as reference

from ngp_warp import launch
from ngp_warp.errors import ConfigError, DataError
from ngp_warp.primitives.nerf.draw import draw_rays
from ngp_warp.primitives.nerf.environment import Environment
from ngp_warp.primitives.nerf.views import (
    make_views,
    pixel_centres,
    rays_of,
)
from ngp_warp.radiance.batch import make_batch

FEATURES = SimpleNamespace(ray_gradients=True, exposure=True, background_gradients=True)


def run(views, n, device, seed=3, step=5, count=None, **kwargs):
    """The batch, the draw, and what they hold as NumPy arrays."""
    batch = make_batch(FEATURES, n, device)
    if count is not None:
        batch.count.fill_(count)
    steps = wp.array([step], dtype=wp.int64, device=device)
    draw = draw_rays(views, batch, steps, seed, **kwargs)
    for stage in draw.stages:
        launch.run_all(stage)
    names = ("origin", "direction", "target", "background", "exposure")
    found = {name: getattr(batch, name).numpy().reshape(n, 3) for name in names}
    names = ("jitter", "view", "weight", "depth_target")
    found |= {name: getattr(batch, name).numpy() for name in names}
    return found | {"pixel": draw.pixel.numpy().reshape(n, 2), "alpha": draw.alpha.numpy()}


def mixed(rng, **kwargs):
    """Views of several sizes and lenses with their photos."""
    lenses = [PINHOLE, BROWN, FISHEYE, replace(BARREL, width=24, height=36)]
    views = ring(6, lenses)
    return views, photos(views, rng, **kwargs)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
@pytest.mark.parametrize("background", ["random", (0.25, 0.5, 1.0)])
@pytest.mark.parametrize("crop_steps", [0, 5])
def test_the_twin_draws_the_same(dtype, background, crop_steps, device):
    rng = np.random.default_rng(0)
    views, pictures = mixed(rng, dtype=dtype, masks=True, depths=True)
    arrays = make_views(views, pictures, FRAME, device)
    exposures = rng.normal(size=(len(views), 3)).astype(np.float32)
    arrays.exposures.assign(exposures.ravel())
    found = run(arrays, 100, device, background=background, crop_steps=crop_steps)
    poses = [FRAME.poses_to_box(view.pose) for view in views]
    for i in range(100):
        wanted = reference.draw(
            *(pictures, poses, arrays.lenses_in_memory, FRAME.scale, 3, 5, i, background),
            crop_steps,
        )
        for name, value in wanted.items():
            # a distance is magnified where a fisheye looks across the axis
            share = 1e-4 if name == "depth_target" else 0
            assert found[name][i] == pytest.approx(value, abs=2e-6, rel=share), name
        assert found["exposure"][i].tolist() == exposures[wanted["view"]].tolist()
    assert {0.0, 1.0} == set(found["weight"].tolist())


def test_the_comparison_notices_another_step(device):
    rng = np.random.default_rng(0)
    views, pictures = mixed(rng)
    arrays = make_views(views, pictures, FRAME, device)
    a, b = (run(arrays, 64, device, step=step) for step in (5, 6))
    assert (a["pixel"] != b["pixel"]).mean() > 0.9
    assert np.abs(a["jitter"] - b["jitter"]).max() > 0.5


def test_every_pixel_is_drawn_alike(device):
    rng = np.random.default_rng(1)
    views, pictures = mixed(rng)
    found = run(make_views(views, pictures, FRAME, device), 2**17, device)
    width = pictures.sizes[found["view"], 0]
    index = pictures.offsets[found["view"]] + found["pixel"][:, 1] * width + found["pixel"][:, 0]
    counts = np.bincount(index, minlength=pictures.offsets[-1])
    mean = 2**17 / pictures.offsets[-1]
    # chi-square of independent draws: variance = mean
    assert counts.var() / mean == pytest.approx(1, abs=0.1)
    assert counts[: pictures.offsets[1]].mean() == pytest.approx(mean, rel=0.03)


@pytest.mark.parametrize(("step", "cropped"), [(1, True), (7, True), (8, False)])
def test_the_first_steps_see_the_middle_half(step, cropped, device):
    views, pictures = mixed(np.random.default_rng(1))
    arrays = make_views(views, pictures, FRAME, device)
    found = run(arrays, 2**17, device, step=step, crop_steps=7)
    size = pictures.sizes[found["view"]]
    middle = (found["pixel"] >= size // 4) & (found["pixel"] < size // 4 + (size + 1) // 2)
    assert middle.all() == cropped
    assert middle.all(axis=1).mean() == pytest.approx(1 if cropped else 0.25, abs=0.02)
    # each of them, alike
    first = found["pixel"][found["view"] == 0]
    counts = np.unique(first, axis=0, return_counts=True)[1]
    area = np.prod(pictures.sizes[0] // 2) if cropped else np.prod(pictures.sizes[0])
    assert len(counts) == area
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.2)


def test_the_last_of_very_many_pixels_is_drawn(device):
    from ngp_warp.primitives.nerf.kernels import draw as kernels

    @wp.kernel(module="unique")
    def indices(n: wp.int64, high: wp.uint32, low: wp.uint32, out: wp.array[wp.int64]):
        out[0] = kernels.random_index(high, low, n)

    out = wp.zeros(1, dtype=wp.int64, device=device)
    word = 2**32 - 1
    for n in (1, 7, 2**31 + 1, 2**32 - 1, 2**32, 5 * 2**32 + 12345, 2**41 + 1):
        for high, low in ((word, word), (0, 0), (0x89ABCDEF, 0x12345678), (1, word)):
            wp.launch(indices, 1, [n, high, low, out], device=device)
            assert out.numpy()[0] == (high << 32 | low) * n >> 64


def test_rays_that_do_not_count_are_left_alone(device):
    views, pictures = mixed(np.random.default_rng(2))
    arrays = make_views(views, pictures, FRAME, device)
    few, all_ = (run(arrays, 96, device, count=count) for count in (40, 96))
    for name, values in few.items():
        assert np.array_equal(values[:40], all_[name][:40]), name
    assert not few["direction"][40:].any()


def test_results_do_not_depend_on_the_threads():
    views, pictures = mixed(np.random.default_rng(2), masks=True, depths=True)
    arrays = make_views(views, pictures, FRAME)
    results = []
    try:
        for n in (1, 3):
            launch.set_num_threads(n)
            results.append(run(arrays, 1000, "cpu"))
    finally:
        launch.set_num_threads(None)
    for name, values in results[0].items():
        assert np.array_equal(values, results[1][name]), name


def test_targets_lie_over_the_background(device):
    rng = np.random.default_rng(3)
    views = ring(3, [PINHOLE])
    for alpha, mode in ((255, "random"), (0, "random"), (0, (0.1, 0.2, 0.3))):
        pictures = photos(views, rng, alpha=alpha)
        found = run(make_views(views, pictures, FRAME, device), 500, device, background=mode)
        if alpha == 0:
            assert np.array_equal(found["target"], found["background"])
        else:
            assert np.ptp(found["background"]) > 0.9
            assert np.abs(found["target"] * 255 - np.rint(found["target"] * 255)).max() < 1e-4
        if mode != "random":
            assert np.allclose(found["background"], mode)


def test_an_environment_stands_behind(device):
    rng = np.random.default_rng(4)
    views = ring(3, [PINHOLE])
    pictures = photos(views, rng, alpha=0)
    environment = Environment("srgb", device, size=(16, 8))
    environment.texels.value.assign(rng.normal(size=16 * 8 * 4).astype(np.float32))
    arrays = make_views(views, pictures, FRAME, device)
    found = run(arrays, 200, device, environment=environment)
    wanted = environment.colors(found["direction"])
    assert found["background"] == pytest.approx(wanted, abs=1e-6)
    assert np.array_equal(found["target"], found["background"])
    with pytest.raises(ConfigError, match="linear"):
        run(arrays, 10, device, environment=Environment("linear", device))


def test_depths_are_made_distances(device):
    rng = np.random.default_rng(5)
    views = [replace(v, pose=look_at((0, 0, 2.0), up=(0, 1, 0))) for v in ring(1, [BROWN])]
    pictures = photos(views, rng)
    # a wall at z = 0: two units along the axis from everywhere
    pictures = replace(pictures, depths=np.full(len(pictures.pixels), 2.0, np.float32))
    found = run(make_views(views, pictures, FRAME, device), 200, device)
    hit = found["origin"] + found["direction"] * found["depth_target"][:, None]
    assert hit[:, 2] == pytest.approx(FRAME.offset[2], abs=1e-6)


def test_a_pixel_without_a_ray_does_not_count(device):
    lens = replace(BARREL, k1=-0.5, k2=0.0, k3=0.0, fx=16.0, fy=16.0)
    views = ring(1, [lens])
    found = run(
        make_views(views, photos(views, np.random.default_rng(6)), FRAME, device), 500, device
    )
    lost = np.isnan(lens.unproject(found["pixel"] + 0.5)[:, 0])
    assert 0 < lost.mean() < 1
    assert np.array_equal(found["weight"] == 0, lost)
    assert np.linalg.norm(found["direction"], axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES.keys())
def test_rays_of_a_view_meet_their_points(lens):
    view = ring(3, [lens])[1]
    origins, directions, valid = rays_of(view.pose, lens, FRAME)
    assert origins.shape == (lens.width * lens.height, 3)
    assert directions.dtype == np.float32
    points = (origins + 0.7 * directions - FRAME.offset) / FRAME.scale
    local = (points - view.pose[:, 3]) @ view.pose[:, :3]
    pixels = lens.project(local)[valid]
    # float32 directions times up to 42 pixels
    assert pixels == pytest.approx(pixel_centres(lens.width, lens.height)[valid], abs=2e-4)


def test_photos_of_another_size_have_scaled_lenses(device):
    views = ring(2, [BROWN])
    small = [replace(v, lens=v.lens.scaled(20, 15)) for v in views]
    pictures = photos(small, np.random.default_rng(7))
    found = run(make_views(views, pictures, FRAME, device), 100, device)
    for i in range(100):
        view = views[found["view"][i]]
        _, directions, _ = rays_of(view.pose, view.lens, FRAME, (found["pixel"][i] + 0.5)[None] * 2)
        assert found["direction"][i] == pytest.approx(directions[0], abs=1e-6)


def test_poses_go_to_the_box_and_back():
    pose = look_at((1.0, 2.0, 3.0))
    assert np.allclose(FRAME.poses_from_box(FRAME.poses_to_box(pose)), pose, atol=1e-14)


def test_views_need_their_photos():
    views = ring(3, [PINHOLE])
    pictures = photos(views, np.random.default_rng(8))
    for few in ([], views[:2]):
        with pytest.raises(DataError, match="photo"):
            make_views(few, pictures, FRAME)
