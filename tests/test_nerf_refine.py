"""Refinement: gradients by central differences, and cameras that are found again."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import warp as wp
from blobs import Blobs
from lens_views import BROWN, FISHEYE, FRAME, PINHOLE, photos, ring
from reference import refine as reference

from ngp_warp import launch
from ngp_warp.config import OptimizerConfig
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.optimizer import Adam
from ngp_warp.primitives.nerf.draw import draw_rays
from ngp_warp.primitives.nerf.refine import Refinement, RefineSettings, rotations
from ngp_warp.primitives.nerf.views import make_views, rays_of
from ngp_warp.radiance.batch import make_batch

FEATURES = SimpleNamespace(ray_gradients=True, exposure=True, background_gradients=False)
WIDE = replace(FISHEYE, cx=19.0)


class Case:
    """Views, a batch of their rays, and a refinement."""

    def __init__(self, views, settings, device, *, n=512, unit=0.5, seed=1):
        self.views = make_views(views, photos(views, np.random.default_rng(0)), FRAME, device)
        self.batch = make_batch(FEATURES, n, device)
        self.leader = Adam(OptimizerConfig(), [], device)
        self.refine = Refinement(self.views, self.batch, settings, self.leader, unit=unit)
        self.draw = draw_rays(self.views, self.batch, self.leader.step, seed)

    def assign(self, name, values):
        self.refine.parameters()[name].value.assign(values.astype(np.float32).ravel())

    def before(self):
        self.leader.advance().run()
        for stage in self.refine.stages_before + self.draw.stages:
            launch.run_all(stage)

    def after(self):
        for stage in self.refine.stages_after:
            launch.run_all(stage)

    def rays(self, view):
        """Which rays of the batch are of a view, and their places in its photo."""
        chosen = self.batch.view.numpy() == view
        return chosen, self.draw.pixel.numpy().reshape(-1, 2)[chosen] + 0.5


def random_gradients(case, rng):
    n = case.batch.capacity
    d_origin, d_direction, d_exposure = rng.normal(size=(3, n, 3)).astype(np.float32)
    for name, values in (
        ("d_origin", d_origin), ("d_direction", d_direction), ("d_exposure", d_exposure)
    ):  # fmt: skip
        getattr(case.batch, name).assign(values.ravel())
    return d_origin.astype(float), d_direction.astype(float), d_exposure.astype(float)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("size", [0.0, 0.05, 2.0])
def test_gradients_are_central_differences(shared, size, device):
    rng = np.random.default_rng(7)
    views = ring(6, [BROWN, WIDE, PINHOLE])
    settings = RefineSettings(poses=True, focal=True, distortion=True, shared_lenses=shared)
    case = Case(views, settings, device, n=2048)
    poses = rng.normal(size=(6, 6)) * size
    first = [FRAME.poses_to_box(view.pose) for view in views]
    lenses = rng.normal(size=(6, 12)) * 0.01 * (size > 0)
    trained = case.refine._trained.numpy().reshape(-1, 12)
    groups = case.refine._group_of
    assert len(trained) == (3 if shared else 6)
    lenses = lenses[: len(trained)] * trained
    poses, lenses = (v.astype(np.float32).astype(float) for v in (poses, lenses))
    case.assign("poses", poses)
    case.assign("lenses", lenses)
    case.before()
    refined = case.refine.refined_lenses()
    d_origin, d_direction, _ = random_gradients(case, rng)
    case.after()
    by_lens = np.zeros_like(lenses)
    for v, view in enumerate(views):
        chosen, pixels = case.rays(v)
        g = d_origin[chosen], d_direction[chosen]
        now_lens = reference.lens(view.lens, lenses[groups[v]])
        assert refined[v].coefficients == pytest.approx(now_lens.coefficients)
        assert refined[v].fx == pytest.approx(now_lens.fx)

        def of_pose(p, v=v, pixels=pixels, g=g, now_lens=now_lens):
            return reference.value(reference.pose(first[v], p, 0.5), now_lens, pixels, *g)

        wanted = reference.gradient(of_pose, poses[v])
        found = case.refine.parameters()["poses"].gradient.numpy().reshape(6, 6)[v]
        # sums of some hundred float32 terms of size 1
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-3), v
        now_pose = reference.pose(first[v], poses[v], 0.5)

        def of_lens(p, view=view, pixels=pixels, g=g, now_pose=now_pose):
            return reference.value(now_pose, reference.lens(view.lens, p), pixels, *g)

        # a fisheye has no other coefficients to differ by
        for i in np.flatnonzero(trained[groups[v]]):
            step = 1e-6 * np.eye(12)[i]
            p = lenses[groups[v]]
            by_lens[groups[v], i] += (of_lens(p + step) - of_lens(p - step)) / 2e-6
    found = case.refine.parameters()["lenses"].gradient.numpy().reshape(by_lens.shape)
    assert np.abs(by_lens).max() > 1
    assert found == pytest.approx(by_lens, rel=2e-3, abs=5e-3)


def test_parameters_change_the_rays(device):
    rng = np.random.default_rng(3)
    views = ring(4, [BROWN, WIDE])
    settings = RefineSettings(poses=True, focal=True, distortion=True, exposure=True)
    case = Case(views, settings, device)
    case.assign("poses", rng.normal(size=(4, 6)) * 0.1)
    case.assign("lenses", 0.01 * case.refine._trained.numpy())
    exposures = rng.normal(size=(4, 3))
    case.assign("exposures", exposures)
    case.before()
    poses, lenses = case.refine.refined_poses(), case.refine.refined_lenses()
    for v in range(4):
        chosen, pixels = case.rays(v)
        origins, directions, _ = rays_of(poses[v], lenses[v], FRAME, pixels)
        found = case.batch.direction.numpy().reshape(-1, 3)[chosen]
        # float32 rows and Newton's method near the edge of a fisheye
        assert found == pytest.approx(directions, abs=1e-5)
        assert case.batch.origin.numpy().reshape(-1, 3)[chosen] == pytest.approx(origins, abs=1e-6)
        _, before, _ = rays_of(views[v].pose, views[v].lens, FRAME, pixels)
        assert np.abs(directions - before).max() > 1e-2
        wanted = reference.exposures(exposures)[v]
        assert case.batch.exposure.numpy().reshape(-1, 3)[chosen] == pytest.approx(
            np.tile(wanted, (chosen.sum(), 1)), abs=1e-6
        )
    assert case.refine.exposures() == pytest.approx(reference.exposures(exposures), abs=1e-6)
    assert case.refine.refined_lens(views[0].lens) == lenses[0]
    assert case.refine.refined_lens(PINHOLE) == PINHOLE


def test_exposures_keep_their_mean(device):
    rng = np.random.default_rng(4)
    case = Case(ring(5, [PINHOLE]), RefineSettings(exposure=True), device)
    case.before()
    _, _, d_exposure = random_gradients(case, rng)
    case.after()
    sums = np.stack([d_exposure[case.rays(v)[0]].sum(axis=0) for v in range(5)])
    found = case.refine.parameters()["exposures"].gradient.numpy().reshape(5, 3)
    assert found == pytest.approx(sums - sums.mean(axis=0), abs=1e-4)
    assert case.refine.exposures().mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-8)


def test_rays_without_weight_or_beyond_the_count_do_not_pull(device):
    rng = np.random.default_rng(5)
    case = Case(ring(3, [PINHOLE]), RefineSettings(poses=True), device)
    case.before()
    d_origin, _, _ = random_gradients(case, rng)
    weight = rng.integers(0, 2, 512).astype(np.float32)
    case.batch.weight.assign(weight)
    case.batch.count.fill_(300)
    case.after()
    used = (weight > 0) & (np.arange(512) < 300)
    found = case.refine.parameters()["poses"].gradient.numpy().reshape(3, 6)
    for v in range(3):
        wanted = 0.5 * d_origin[case.rays(v)[0] & used].sum(axis=0)
        assert found[v, 3:] == pytest.approx(wanted, abs=1e-4)


def test_gradients_do_not_depend_on_the_threads():
    results = []
    settings = RefineSettings(poses=True, focal=True, exposure=True)
    try:
        for n in (1, 3):
            launch.set_num_threads(n)
            case = Case(ring(7, [BROWN, PINHOLE]), settings, "cpu")
            case.before()
            random_gradients(case, np.random.default_rng(6))
            case.after()
            results.append([p.value.numpy() for p in case.refine.parameters().values()])
    finally:
        launch.set_num_threads(None)
    for a, b in zip(*results, strict=True):
        assert np.array_equal(a, b)
        assert a.any()


@pytest.fixture
def one_thread():
    """Launches of some microseconds gain nothing from threads that others may hold up."""
    launch.set_num_threads(1)
    yield
    launch.set_num_threads(None)


def errors(poses, truth):
    """Angles in radians and distances of poses [n, 3, 4]."""
    turns = np.einsum("nij,nkj->nik", poses[:, :, :3], truth[:, :, :3])
    cosines = np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1)
    return np.arccos(cosines), np.linalg.norm(poses[:, :, 3] - truth[:, :, 3], axis=1)


def pictures(views, poses, lenses, blobs, gains=None):
    """Photo of the blobs by view, [height, width, 3]."""
    made = []
    for v, view in enumerate(views):
        origins, directions, _ = rays_of(poses[v], lenses[v], FRAME)
        color = blobs.color(origins.astype(float), directions.astype(float))
        gain = 1 if gains is None else 2.0 ** gains[v]
        made.append((color * gain).reshape(view.lens.height, view.lens.width, 3))
    return np.stack(made)


def fit(case, photos_of_blobs, blobs, n_steps):
    """Train the cameras against photos of the blobs."""
    case.leader.n_steps.fill_(n_steps)
    n = case.batch.capacity
    for _ in range(n_steps):
        case.before()
        x, y = case.draw.pixel.numpy().reshape(n, 2).T
        views = case.batch.view.numpy()
        wanted = photos_of_blobs[views, y, x]
        o, d = (
            getattr(case.batch, k).numpy().reshape(n, 3).astype(float)
            for k in ("origin", "direction")
        )
        gain = 2.0 ** case.batch.exposure.numpy().reshape(n, 3)
        exposed = blobs.color(o, d) * gain
        slope = 2 * (exposed - wanted) / (3 * n)
        case.batch.d_exposure.assign((slope * exposed * np.log(2)).astype(np.float32).ravel())
        d_origin, d_direction = blobs.gradient(o, d, slope * gain)
        case.batch.d_origin.assign(d_origin.astype(np.float32).ravel())
        case.batch.d_direction.assign(d_direction.astype(np.float32).ravel())
        case.after()


@pytest.mark.parametrize("everyone", [False, True])
def test_a_perturbed_camera_is_found_again(everyone, device, one_thread):
    """One degree and one percent of the distance, to a tenth."""
    rng = np.random.default_rng(11)
    views = ring(6, [PINHOLE, BROWN])
    truth = np.stack([view.pose for view in views])
    moved = []
    for i, view in enumerate(views):
        pose = view.pose.copy()
        if i == 2 or everyone:
            axis, shift = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
            pose[:, :3] = rotations(axis[None] * np.radians(1))[0] @ pose[:, :3]
            pose[:, 3] += shift * 0.01 * np.linalg.norm(pose[:, 3])
        moved.append(replace(view, pose=pose))
    settings = RefineSettings(poses=True, pose_rate=2e-3)
    case = Case(moved, settings, device, n=256, unit=0.25)
    angles, distances = errors(case.refine.refined_poses(), truth)
    assert angles.max() == pytest.approx(np.radians(1), rel=1e-3)
    start = angles.max(), distances.max()
    blobs = Blobs(rng)
    fit(case, pictures(views, truth, [view.lens for view in views], blobs), blobs, 600)
    angles, distances = errors(case.refine.refined_poses(), truth)
    assert angles.max() < 0.1 * start[0]
    assert distances.max() < 0.1 * start[1]


def test_a_perturbed_lens_is_found_again(device, one_thread):
    rng = np.random.default_rng(12)
    truth = [replace(BROWN, fx=40.0), WIDE]
    views = ring(6, truth)
    wrong = [
        replace(truth[0], fx=40.8, fy=40.8, cx=19.4, k1=0.0, p1=0.0),
        replace(truth[1], fx=12.3, fy=12.3, cy=15.4, k1=0.02),
    ]
    moved = [replace(view, lens=wrong[i % 2]) for i, view in enumerate(views)]
    case = Case(moved, RefineSettings(focal=True, distortion=True, lens_rate=2e-3), device, n=256)
    # all around the cameras, so that the whole pictures show something
    blobs = Blobs(rng, n=40, spread=1.0, size=0.1)
    poses, lenses = np.stack([v.pose for v in views]), [v.lens for v in views]
    fit(case, pictures(views, poses, lenses, blobs), blobs, 600)
    found = case.refine.refined_lenses()
    assert found[0] == found[2]
    for lens, right, start in zip(found[:2], truth, wrong, strict=True):
        corners = np.random.default_rng(0).uniform(0.2, 0.8, (200, 2)) * [40, 30]
        error, before = (
            np.abs(one.unproject(corners) - right.unproject(corners)).max() for one in (lens, start)
        )
        assert error < 0.1 * before


def test_exposures_are_found_again(device, one_thread):
    rng = np.random.default_rng(13)
    views = ring(5, [PINHOLE])
    gains = reference.exposures(rng.normal(size=(5, 3)) * 0.5)
    case = Case(views, RefineSettings(exposure=True, exposure_rate=2e-2), device, n=256)
    poses, lenses = np.stack([v.pose for v in views]), [v.lens for v in views]
    blobs = Blobs(rng)
    fit(case, pictures(views, poses, lenses, blobs, gains), blobs, 500)
    assert case.refine.exposures() == pytest.approx(gains, abs=0.02)


def test_what_is_not_refined_stays(device):
    views = ring(3, [PINHOLE])
    case = Case(views, RefineSettings(exposure=True), device)
    assert np.array_equal(case.refine.refined_poses(), np.stack([v.pose for v in views]))
    assert case.refine.refined_lenses() == tuple(v.lens for v in views)
    assert set(case.refine.parameters()) == {"exposures"}


def test_a_refinement_needs_its_gradients(device):
    views = ring(3, [PINHOLE])
    with pytest.raises(ConfigError, match="nothing"):
        Case(views, RefineSettings(), device)
    arrays = make_views(views, photos(views, np.random.default_rng(0)), FRAME, device)
    bare = SimpleNamespace(ray_gradients=False, exposure=False, background_gradients=False)
    batch = make_batch(bare, 32, device)
    leader = Adam(OptimizerConfig(), [], device)
    for settings in (RefineSettings(poses=True), RefineSettings(exposure=True)):
        with pytest.raises(ShapeError, match="d_"):
            Refinement(arrays, batch, settings, leader)
    with pytest.raises(ConfigError, match="pose_rate"):
        RefineSettings(pose_rate=-1.0)


def test_rotations_are_exponentials():
    w = np.random.default_rng(0).normal(size=(20, 3)) * np.logspace(-12, 0.5, 20)[:, None]
    for vector, rotation in zip(w, rotations(w), strict=True):
        wanted = reference.pose(np.eye(4)[:3], np.array([*vector, 0, 0, 0]), 1.0)[:, :3]
        assert rotation == pytest.approx(wanted, abs=1e-14)


def test_a_leader_counts_the_steps(device):
    leader = Adam(OptimizerConfig(), [], device)
    follower = Adam(OptimizerConfig(learning_rate=0.5), [], device, leader=leader)
    for _ in range(3):
        leader.advance().run()
        follower.advance().run()
    assert leader.step.numpy()[0] == follower.step.numpy()[0] == 3
    assert follower.schedule.numpy()[0] == 0.5
    assert isinstance(follower.step, wp.array)
