"""Views held back against their photos: background, colour space, masks, sizes, pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from ngp_warp.primitives.nerf.evaluate import (
    background_of,
    evaluate_views,
    mask_of,
    truth_of,
    write_pictures,
)
from ngp_warp.primitives.nerf.pictures import pooled
from ngp_warp.primitives.nerf.render import color_picture
from ngp_warp.primitives.nerf.subject import Subject
from ngp_warp.primitives.nerf.types import Photos
from ngp_warp.primitives.pictures import linear_to_srgb, srgb_to_linear
from ngp_warp.rays.lenses import Lens
from tests.nerf_views import photos, ring
from tests.radiance_stand_in import StandIn, odd_frame, settings

LENS = Lens(width=48, height=36, fx=60, fy=60, cx=24, cy=18)


def subject(n_test=3, **more):
    frame = odd_frame()
    views = ring(frame, LENS, 6, n_test=n_test)
    field = StandIn(n_steps=96, tint=0.3, **more)
    return Subject(field=field, frame=frame, views=views, lenses=[LENS] * len(views))


def photos_of(a, numbers=None):
    """What the field itself looks like, as RGBA photos."""
    rgb, alpha = [], []
    for i in a.held_back if numbers is None else numbers:
        made = a.renderer(transparent=True).buffers(a.shot(i))
        picture = color_picture(made, a.field.settings.color_space, transparent=True)
        rgb.append(picture[..., :3])
        alpha.append(picture[..., 3])
    return photos(rgb, alpha)


def test_a_field_is_its_own_truth():
    a = subject()
    found = evaluate_views(a, a.held_back, photos_of(a))
    # rounding to 8 bits once as RGBA and once over the background
    assert found.metrics["psnr"] > 55
    assert found.metrics["ssim"] > 0.999
    assert found.metrics["n_views"] == 3
    assert found.metrics["background"] == [1.0, 1.0, 1.0]
    assert (found.metrics["width"], found.metrics["height"]) == (48, 36)
    json.dumps(found.metrics)


def test_the_figures_are_means_over_views():
    a, b = subject(), subject(softness=0.02)
    found = evaluate_views(b, a.held_back, photos_of(a)).metrics
    assert found["psnr"] < 35
    for name in ("psnr", "ssim"):
        values = [view[name] for view in found["views"]]
        assert len(set(values)) == 3
        assert found[name] == pytest.approx(np.mean(values), abs=2e-3)
    assert [view["name"] for view in found["views"]] == [a.views[i].name for i in a.held_back]


def test_a_background_that_is_told_is_behind_both():
    a, pictures = subject(), photos_of(subject())
    found = evaluate_views(a, a.held_back, pictures, background=(1.0, 0.0, 0.5)).metrics
    assert found["background"] == [1.0, 0.0, 0.5]
    assert found["psnr"] > 55
    other = np.full_like(pictures.pixels, 255)
    other[:, :3] = (255, 0, 128)
    opaque = Photos(pixels=other, offsets=pictures.offsets, sizes=pictures.sizes)
    assert background_of(opaque, None) is None
    assert background_of(pictures, None) == (1.0, 1.0, 1.0)
    # the photos are opaque and show the background alone, but so does most of the field
    assert evaluate_views(a, a.held_back, opaque, background=(1, 0, 0.5)).metrics["psnr"] > 8
    assert evaluate_views(a, a.held_back, opaque).metrics["psnr"] < 8


def test_truth_is_straight_alpha_over_the_background():
    pixel = np.array([[[200, 100, 0]]], np.uint8)
    p = photos([pixel], [np.array([[51]], np.uint8)])
    wanted = 0.2 * pixel[0, 0] / 255 + 0.8 * np.array([1, 0, 0.5])
    np.testing.assert_allclose(truth_of(p, 0, (1, 0, 0.5))[0, 0], wanted, atol=1e-6)
    np.testing.assert_allclose(truth_of(p, 0, None)[0, 0], pixel[0, 0] / 255, atol=1e-6)


def test_linear_photos_are_compared_as_srgb():
    values = np.array([[0.5, 0.02, 3.0, 1.0]], np.float16)
    p = Photos(
        pixels=values,
        offsets=np.array([0, 1]),
        sizes=np.array([[1, 1]], np.int32),
        color_space="linear",
    )
    wanted = linear_to_srgb(np.minimum(values[0, :3].astype(np.float32), 1))
    np.testing.assert_allclose(truth_of(p, 0, None)[0, 0], wanted, atol=1e-6)
    a = subject(settings=settings(color_space="linear"))
    rows = []
    for number in a.held_back:
        made = a.renderer(transparent=True).buffers(a.shot(number))
        straight = made.color / np.maximum(made.opacity[..., None], 1e-4)
        rows.append(np.concatenate([straight, made.opacity[..., None]], axis=2).reshape(-1, 4))
    p = Photos(
        pixels=np.concatenate(rows).astype(np.float16),
        offsets=np.arange(4) * 36 * 48,
        sizes=np.array([[48, 36]] * 3, np.int32),
        has_alpha=True,
        color_space="linear",
    )
    assert evaluate_views(a, a.held_back, p, background=(0.2, 0.4, 0.9)).metrics["psnr"] > 60
    x = np.linspace(0, 1, 101, dtype=np.float32)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(x)), x, atol=1e-6)


def test_masked_pixels_are_left_out():
    a = subject()
    p = photos_of(a)
    masks = np.ones((3, 36, 48), np.uint8)
    masks[:, :18] = 0
    spoiled = p.pixels.copy().reshape(3, 36, 48, 4)
    spoiled[:, :10] = 0
    q = Photos(
        pixels=spoiled.reshape(-1, 4),
        offsets=p.offsets,
        sizes=p.sizes,
        masks=masks.ravel(),
        has_alpha=True,
    )
    np.testing.assert_array_equal(mask_of(q, 1), masks[1] > 0)
    assert evaluate_views(a, a.held_back, q).metrics["psnr"] > 55


def test_views_are_made_at_the_photos_sizes():
    a = subject()
    p = photos_of(a)
    half = pooled(p.pixels.reshape(3, 36, 48, 4)[0].astype(float), 24)
    q = photos([half[..., :3].astype(np.uint8)], [half[..., 3].astype(np.uint8)])
    found = evaluate_views(a, a.held_back[:1], q).metrics
    assert (found["width"], found["height"]) == (24, 18)
    assert found["psnr"] > 25


def test_pictures_of_a_run(tmp_path):
    a, b = subject(), subject(softness=0.01)
    found = evaluate_views(b, a.held_back, photos_of(a))
    write_pictures(tmp_path, found, np.array([[1, 0.5, 10.0], [2, 1.0, 20.0]]))
    names = {"best", "median", "worst", "depth", "learning_curve"}
    assert {path.stem for path in tmp_path.iterdir()} == names
    order = sorted(found.metrics["views"], key=lambda view: view["psnr"])
    assert order[0] != order[-1]
    # photo, view and error beside each other under a line of text
    worst = np.asarray(Image.open(tmp_path / "worst.png"))
    number = [s.name for s in found.scores].index(order[0]["name"])
    result, truth = found.again(number)
    assert worst.shape[1] == 3 * 48 + 2 * 8
    np.testing.assert_array_equal(worst[-36:, :48], np.rint(truth * 255))
    np.testing.assert_array_equal(worst[-36:, 56:104], np.rint(result * 255))
    assert worst[-36:, 112:].max() > 150
    assert worst[-36:, 112:].min() < 10


def test_pooling_averages_whole_squares():
    picture = np.arange(7 * 9 * 1, dtype=float).reshape(7, 9, 1)
    small = pooled(picture, 4)
    assert small.shape == (2, 3, 1)
    assert small[1, 2, 0] == pytest.approx(picture[3:6, 6:9].mean())
