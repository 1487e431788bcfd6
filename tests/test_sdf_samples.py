"""Training batches and evaluation points of a mesh: against the twin, and laws."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ShapeError
from ngp_warp.primitives.sdf import samples
from ngp_warp.primitives.sdf.kernels import samples as sample_kernels
from ngp_warp.primitives.sdf.samples import Batches
from ngp_warp.primitives.sdf.sign import SIGNS
from ngp_warp.primitives.sdf.truth import SignedDistance
from tests import sdf_meshes as meshes
from tests.reference import sdf_samples as twin
from tests.reference.mlp import from_blocks

N = 512
SURFACE, NEAR = slice(0, N // 8), slice(N // 8, N * 3 // 4)
UNIFORM = slice(N * 3 // 4, N)


@pytest.fixture(autouse=True)
def small_pools(monkeypatch):
    """Make filling cheap: a few thousand points a pool."""
    monkeypatch.setattr(samples, "_POOL_SLOTS", 2048)


@pytest.fixture
def restore_threads():
    before = launch.num_threads()
    yield
    launch.set_num_threads(before)


class Drawn:
    """Batches, and the arrays they fill."""

    def __init__(self, truth, n=N, seed=5, step=0, **options):
        device = truth.device
        self.n = n
        self.step = wp.array([step], dtype=wp.int64, device=device)
        self.x = wp.zeros(n * 3, dtype=float, device=device)
        self.target = wp.full(n, np.nan, dtype=float, device=device)
        self.batches = Batches(truth, n, seed, self.step, self.x, self.target, **options)

    def next(self):
        """Points [n, 3] and distances [n] of the next step."""
        self.step.assign(self.step.numpy() + 1)
        for stage in self.batches.stages():
            launch.run_all(stage)
        return from_blocks(self.x.numpy().reshape(-1, 3, 32), self.n), self.target.numpy().copy()


def make(name="torus", sign="normal", device="cpu"):
    return SignedDistance(*meshes.WATERTIGHT[name](), sign, device)


@pytest.mark.parametrize("sign", SIGNS)
def test_targets_are_the_truth(device, sign):
    truth = make(sign=sign, device=device)
    drawn = Drawn(truth)
    for _ in range(20):
        x, target = drawn.next()
        distance = truth.query(x)
        assert np.abs(distance[SURFACE]).max() < 2e-7  # rounding of a point in the cube
        assert np.all(target[SURFACE] == 0)
        # one code and one mesh: only the radius of the search differs
        assert np.abs(target - distance)[N // 8 :].max() < 2e-7
        assert np.abs(np.roll(target, 1) - distance).max() > 0.01


def test_most_lie_near_the_surface_and_a_quarter_everywhere(device):
    drawn = Drawn(make(device=device))
    parts = [drawn.next() for _ in range(40)]
    near = np.concatenate([d[NEAR] for _, d in parts])
    everywhere = np.concatenate([x[UNIFORM] for x, _ in parts])
    # of the three axes' noise the one along the normal counts; a quarter has six times as much
    std = samples.NOISE_STD * np.sqrt(3 / 4 + 36 / 4)
    assert np.std(near) == pytest.approx(std, rel=0.2)
    # so that half of them are nearer than of one distribution, whose median is 0.6 deviations
    assert np.median(np.abs(near)) < 0.4 * std
    assert 0.3 < (near < 0).mean() < 0.7
    counts, _ = np.histogramdd(everywhere, bins=[2] * 3, range=[(0, 1)] * 3)
    # drawn with replacement from 2048 slots or more, most of them seen: half as much again as
    # a binomial's spread of 5 deviations
    mean = len(everywhere) / 8
    assert np.abs(counts - mean).max() < 7.5 * np.sqrt(mean)
    assert everywhere.min() >= 0
    assert everywhere.max() < 1


def test_noise_is_an_option(device):
    truth = make(device=device)
    spread = [np.std(Drawn(truth, noise_std=s).next()[1][NEAR]) for s in (8.5e-4, 8.5e-3)]
    assert spread[1] == pytest.approx(10 * spread[0], rel=0.3)


def test_surface_points_are_the_twins(device):
    truth = make(device=device)
    shares = np.cumsum(truth.areas()) / truth.areas().sum()
    drawn = Drawn(truth, step=41)
    x, _ = drawn.next()
    seed = drawn.batches._seeds[3]
    args = truth.vertices, truth.faces, shares, seed
    wanted = np.array([twin.surface_point(*args, 42, i, N // 8) for i in range(N // 8)])
    # float32 sums of three corners in the cube
    assert np.abs(x[SURFACE] - wanted).max() < 4e-7
    assert np.abs(x[SURFACE] - np.roll(wanted, 1, axis=0)).max() > 0.01


def test_near_points_are_the_twins(device):
    truth = make(device=device)
    shares = np.cumsum(truth.areas()) / truth.areas().sum()
    drawn = Drawn(truth, step=41)
    x, _ = drawn.next()
    batches, n = drawn.batches, N * 5 // 8
    pool, seeds = batches._near, batches._seeds
    wanted = []
    for i in range(n):
        slot = twin.slot(seeds[4], 42, i, n, pool.n_fresh * pool.n_parts)
        # drawn before the step's own refresh
        step, index = twin.last_step(slot, pool.n_parts, 41)
        args = truth.vertices, truth.faces, shares, seeds[:2], step, batches._noise_scale
        wanted.append(twin.near_point(*args, index, pool.n_fresh))
    # logarithms of up to 17, times a scale of 3e-3, in float32, on top of the source's rounding
    assert np.abs(x[NEAR] - wanted).max() < 3e-6


def test_a_batch_is_drawn_before_the_refresh(device):
    drawn = Drawn(make(device=device))
    before = drawn.next()
    for pool in (drawn.batches._near, drawn.batches._uniform):
        pool.x.fill_(0.5)
    # what was refreshed meanwhile is not in a batch, so that both may run at once
    launch.run_stages(drawn.batches.truth_stages)
    refreshed = drawn.batches._near.x.numpy()
    fresh = np.unique(refreshed[(refreshed != 0.5).any(axis=1)], axis=0)
    assert len(fresh) > drawn.batches._near.n_fresh / 2
    x = before[0][N // 8 :]
    assert not (x[:, None] == fresh).all(axis=2).any()


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("k", [1, 7, 100])
def test_a_resumed_run_draws_the_same_batches(device, sign, k):
    truth = make(sign=sign, device=device)
    whole, resumed = Drawn(truth), Drawn(truth, step=k)
    for _ in range(k):
        before = whole.next()
    for _ in range(10):
        wanted, got = whole.next(), resumed.next()
        for a, b in zip(wanted, got, strict=True):
            assert np.array_equal(a, b)
    assert not np.array_equal(before[0], wanted[0])


def test_a_seed_and_a_step_give_the_batch(device):
    truth = make(device=device)
    x, target = Drawn(truth, seed=5, step=9).next()
    again = Drawn(truth, seed=5, step=9).next()
    assert np.array_equal(x, again[0])
    assert np.array_equal(target, again[1])
    for other in (Drawn(truth, seed=6, step=9), Drawn(truth, seed=5, step=10)):
        moved = np.abs(other.next()[0] - x).max(axis=1)
        # a pool's slot may be drawn again at the next step
        assert all((moved[part] > 0).mean() > 0.5 for part in (SURFACE, NEAR, UNIFORM))


@pytest.mark.parametrize("sign", SIGNS)
def test_the_number_of_threads_changes_no_bit(sign, restore_threads):
    results = []
    for n_threads in (1, 2, 5):
        launch.set_num_threads(n_threads)
        drawn = Drawn(make(sign=sign))
        results.append([drawn.next() for _ in range(3)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def test_each_step_refreshes_one_part(device):
    drawn = Drawn(make(device=device))
    for pool in (drawn.batches._near, drawn.batches._uniform):
        seen = np.zeros(len(pool.x), int)
        for _ in range(pool.n_parts):
            before = pool.x.numpy().copy()
            drawn.next()
            changed = (pool.x.numpy() != before).any(axis=1)
            assert changed.sum() == pool.n_fresh
            seen += changed
        assert np.all(seen == 1)


def surface_counts(truth, points):
    """How many points lie in the plane of each side of a box."""
    planes = np.concatenate([truth.vertices.min(axis=0), truth.vertices.max(axis=0)])
    distance = np.abs(np.concatenate([points, points], axis=1) - planes)
    return np.bincount(distance.argmin(axis=1), minlength=6)


def chi_square(counts, shares):
    wanted = counts.sum() * np.asarray(shares)
    return ((counts - wanted) ** 2 / wanted).sum()


def test_surface_points_lie_evenly_by_area(device):
    vertices, faces = meshes.box((0.8, 0.2, 0.05))
    # one side cut into many faces: its share must not grow
    for _ in range(3):
        middle = vertices[faces[0]].mean(axis=0, keepdims=True).astype(np.float32)
        a, b, c = faces[0]
        n = len(vertices)
        vertices = np.concatenate([vertices, middle])
        faces = np.concatenate([faces[1:], [[a, b, n], [b, c, n], [c, a, n]]])
    truth = SignedDistance(vertices, faces, "normal", device)
    drawn = Drawn(truth)
    batch = np.concatenate([drawn.next()[0][SURFACE] for _ in range(40)])
    sides = np.array([0.2 * 0.05, 0.8 * 0.05, 0.8 * 0.2] * 2)
    for points in (batch, samples.surface_points(truth, 10_000, 0)):
        # 5 degrees of freedom: exceeded once in 10^5
        assert chi_square(surface_counts(truth, points), sides / sides.sum()) < 31
        # by number of faces
        assert chi_square(surface_counts(truth, points), np.full(6, 1 / 6)) > 1000


@pytest.mark.parametrize("n", [32, 96, 288])
def test_any_multiple_of_32_is_a_batch(device, n):
    truth = make("box", device=device)
    x, target = Drawn(truth, n=n).next()
    assert np.isfinite(target).all()
    distance = truth.query(x)
    n_surface = n // 8
    assert np.abs(distance[:n_surface]).max() < 2e-7
    assert np.abs(distance - target)[n_surface:].max() < 2e-7
    assert np.abs(distance[n - n // 4 :]).max() > 0.02


def test_arrays_of_another_size_are_refused(device):
    truth = make("box", device=device)
    arrays = [wp.zeros(k, dtype=float, device=device) for k in (96, 32)]
    step = wp.zeros(1, dtype=wp.int64, device=device)
    with pytest.raises(ShapeError, match="x must have 192 values, got 96"):
        Batches(truth, 64, 0, step, *arrays)


def test_uniform_points_fill_the_cube():
    points = samples.uniform_points(10_000, 1)
    assert points.dtype == np.float32
    assert np.abs(points.mean(axis=0) - 0.5).max() < 5 * np.sqrt(1 / 12 / 10_000)
    assert not np.array_equal(points, samples.uniform_points(10_000, 2))


@pytest.mark.parametrize("sign", SIGNS)
def test_kernels_compile_for_cuda(sign, tmp_path):
    search = "wide" if sign == "normal" else "portable"
    modules = [
        sample_kernels.near_kernel(sign, search).module,
        sample_kernels.uniform_kernel(sign, search).module,
        sample_kernels.pool_samples.module,
    ]
    for k, module in enumerate(modules):
        folder = tmp_path / str(k)
        (path,) = wp.compile_aot_module(module, arch=90, module_dir=folder, use_ptx=True)
        assert path.stat().st_size > 0
