"""Laws of the motion that refined poses have in common, and that views held back follow."""

from pathlib import Path

import numpy as np
import pytest
from nerf_runs import SMALL
from nerf_scenes import write_scene

import ngp_warp
from ngp_warp.primitives.nerf.alignment import common_motion
from ngp_warp.primitives.nerf.refine import rotations


def poses(n, rng):
    return np.concatenate([rotations(rng.normal(size=(n, 3))), rng.normal(size=(n, 3, 1))], axis=2)


def similarity(rng):
    return rotations(rng.normal(size=(1, 3)))[0], rng.uniform(0.5, 2.0), rng.normal(size=3)


def moved(pose, rotation, scale, translation):
    place = scale * rotation @ pose[:, 3] + translation
    return np.column_stack([rotation @ pose[:, :3], place])


@pytest.mark.parametrize("seed", range(5))
def test_a_common_motion_is_found_exactly(seed):
    rng = np.random.default_rng(seed)
    motion, before = similarity(rng), poses(7, rng)
    found = common_motion(before, np.stack([moved(p, *motion) for p in before]))
    other = poses(1, rng)[0]
    # float64 sums of a few O(1) values
    np.testing.assert_allclose(found.moved(other), moved(other, *motion), atol=1e-12)


def test_cameras_in_a_line_or_in_one_place_are_enough():
    rng = np.random.default_rng(1)
    rotation, scale, translation = similarity(rng)
    before = poses(4, rng)
    before[:, :, 3] = np.arange(4)[:, None] * [1.0, 2.0, -1.0]
    after = np.stack([moved(p, rotation, scale, translation) for p in before])
    assert common_motion(before, after).scale == pytest.approx(scale, rel=1e-12)
    np.testing.assert_allclose(common_motion(before, after).rotation, rotation, atol=1e-12)
    before[:, :, 3] = after[:, :, 3] = 3.0
    assert common_motion(before, after).scale == 1.0


def test_motions_of_single_cameras_average_out():
    rng = np.random.default_rng(2)
    before = poses(200, rng)
    after = before.copy()
    after[:, :, 3] += rng.normal(0, 0.01, (200, 3))
    after[:, :, :3] = rotations(rng.normal(0, 0.01, (200, 3))) @ before[:, :, :3]
    found = common_motion(before, after)
    # 0.01 over the root of 200, within four standard errors
    assert np.abs(found.rotation - np.eye(3)).max() < 4 * 0.01 / 200**0.5
    assert abs(found.scale - 1) < 4 * 0.01 / 200**0.5
    assert np.abs(found.translation).max() < 4 * 0.01 / 200**0.5


def test_views_held_back_go_with_the_refined_ones(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene")
    run = ngp_warp.fit_nerf(
        scene, steps=2, out=tmp_path / "run", device="cpu", train_poses=True, **SMALL
    )
    model = run.fitted
    n = len(model.trained)
    values = np.zeros((n, 6), np.float32)
    values[:, :3] = [0.02, -0.03, 0.04]  # all turn about the middle of the box
    model.refinement.parameters()["poses"].value.assign(values.ravel())
    turn = rotations(values[:1].astype(float))[0]
    held = model.views[n:]
    assert len(held) > 0
    for before, after in zip(model.held, held, strict=True):
        np.testing.assert_allclose(after.pose[:, :3], turn @ before.pose[:, :3], atol=1e-9)
        # the scene's middle is the box's, so that places turn too
        np.testing.assert_allclose(after.pose[:, 3], turn @ before.pose[:, 3], atol=1e-6)
    values[:] = 0
    model.refinement.parameters()["poses"].value.assign(values.ravel())
    for before, after in zip(model.held, model.views[n:], strict=True):
        np.testing.assert_allclose(after.pose, before.pose, atol=1e-12)
