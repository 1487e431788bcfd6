"""Packed marching against the float64 twin; laws: packed is dense, skips land on the lattice."""

import numpy as np
import pytest

from tests import radiance_case as case
from tests.reference import march as twin

# aabb_scale, steps, cone angle; the last grows its steps beyond the finest cascade's cells
CASES = [(1, 128, 0.0), (1, 1024, 0.0), (8, 64, 1 / 256), (4, 128, 0.0), (8, 256, 1 / 32)]

EVERYWHERE = np.ones((1, 128, 128, 128), bool)


def marched(options, device, *, n=200, seed=0, occupied=None, **more):
    aabb_scale, steps, cone_angle = options
    s = case.make_settings(aabb_scale=aabb_scale, steps=steps, cone_angle=cone_angle, **more)
    occupied = case.blobs(s, seed) if occupied is None else occupied
    o, d = case.random_rays(n, seed)
    jitter = np.random.default_rng(seed).random((n, 1), np.float32)
    batch = case.ray_batch(s, o, d, device, jitter=jitter)
    return s, occupied, (o, d, jitter), batch


@pytest.mark.parametrize("options", CASES)
def test_samples_are_the_twins(options, device):
    s, occupied, (o, d, jitter), batch = marched(options, device, n=40)
    samples = case.march(s, case.grid_of(s, occupied, device), batch)
    n_same = 0
    for r, (t, dt, x) in enumerate(case.sample_lists(samples)):
        wanted = twin.march(s, occupied, o[r].astype(float), d[r].astype(float), jitter[r, 0])
        # a point within rounding of a cell's face may be looked up on its other side
        if len(wanted) == len(t):
            n_same += 1
            if np.abs(wanted[:, 0] - t).max(initial=0) > 1e-3:
                continue
            # up to 1024 additions of float32 steps at distances up to 4
            np.testing.assert_allclose(t, wanted[:, 0], atol=5e-5)
            np.testing.assert_allclose(dt, wanted[:, 1], rtol=1e-4)
            np.testing.assert_allclose(x, o[r] + t[:, None] * d[r], atol=1e-6)
    assert n_same > 30
    assert samples.total.numpy()[0] > 100


@pytest.mark.parametrize("options", CASES)
def test_packed_and_dense_march_agree_bit_by_bit(options, device):
    s, occupied, _, batch = marched(options, device)
    packed = case.sample_lists(case.march(s, case.grid_of(s, occupied, device), batch))
    everywhere = case.grid_of(s, np.ones_like(occupied), device)
    dense = case.march(s, everywhere, batch, capacity=2**20, max_samples=2**20)
    for (t, dt, x), (all_t, all_dt, all_x) in zip(packed, case.sample_lists(dense), strict=True):
        kept = occupied[case.cells_of(s, all_x, all_dt)]
        np.testing.assert_array_equal(t, all_t[kept])
        np.testing.assert_array_equal(dt, all_dt[kept])
        np.testing.assert_array_equal(x, all_x[kept])
    assert sum(len(t) for t, _, _ in packed) > 500


def test_the_agreement_can_fail(device):
    s, occupied, _, batch = marched(CASES[0], device)
    rolled = np.roll(occupied, 1, axis=3)
    packed = case.march(s, case.grid_of(s, occupied, device), batch)
    other = case.march(s, case.grid_of(s, rolled, device), batch)
    assert (packed.n.numpy() != other.n.numpy()).any()


@pytest.mark.parametrize("tiny", [0.0, 1e-8, 1e-5])
@pytest.mark.parametrize("options", [CASES[0], CASES[2]])
def test_rays_along_the_faces_of_cells_agree(options, tiny, device):
    # where rounding decides on which side of a face a point lies
    s, occupied, (_, _, jitter), _ = marched(options, device, n=600)
    rng = np.random.default_rng(0)
    o = rng.integers(0, 8 * 128, (600, 3)).astype(np.float32) / (8 * 128)
    d = np.full((600, 3), tiny) * rng.choice([-1, 1], (600, 3))
    for axis in range(3):
        o[axis::3, axis], d[axis::3, axis] = -0.25, 1
    batch = case.ray_batch(s, o, d, device, jitter=jitter)
    packed = case.sample_lists(case.march(s, case.grid_of(s, occupied, device), batch))
    everywhere = case.grid_of(s, np.ones_like(occupied), device)
    dense = case.march(s, everywhere, batch, capacity=2**18, max_samples=2**20)
    for (t, _, _), (all_t, all_dt, all_x) in zip(packed, case.sample_lists(dense), strict=True):
        np.testing.assert_array_equal(t, all_t[occupied[case.cells_of(s, all_x, all_dt)]])
    assert sum(len(t) for t, _, _ in packed) > 500


def test_rays_that_do_not_count_have_no_samples(device):
    s, occupied, _, batch = marched(CASES[0], device, occupied=EVERYWHERE)
    batch.weight.assign(np.arange(200) % 2)
    batch.count.fill_(100)
    batch.n_samples.fill_(7)
    n = case.march(s, case.grid_of(s, occupied, device), batch).n.numpy()
    assert (n[100:] == 0).all()
    assert (n[:100:2] == 0).all()
    assert (n[1:100:2] > 0).any()
    reported = batch.n_samples.numpy()
    assert (reported[:100] == n[:100]).all()
    assert (reported[100:] == 7).all()


def test_rays_without_room_are_left_out_whole(device):
    s, occupied, _, batch = marched(CASES[0], device)
    grid = case.grid_of(s, occupied, device)
    full = case.march(s, grid, batch)
    capacity = int(full.total.numpy()[0]) // 2 // 32 * 32
    part = case.march(s, grid, batch, capacity=capacity)
    fits = full.end.numpy() <= capacity
    np.testing.assert_array_equal(part.n.numpy(), np.where(fits, full.n.numpy(), 0))
    total = part.total.numpy()
    assert total[0] == full.total.numpy()[0]
    assert total[1] == full.n.numpy()[fits].sum() <= capacity
    assert ((batch.n_samples.numpy() == -1) == (~fits & (full.n.numpy() > 0))).all()
    for (t, _, _), (wanted, _, _), keep in zip(
        case.sample_lists(part), case.sample_lists(full), fits, strict=True
    ):
        np.testing.assert_array_equal(t, wanted if keep else [])


def test_a_ray_has_at_most_1024_samples(device):
    s = case.make_settings(steps=4096)
    o, d = np.full((4, 3), -1e-3, np.float32), np.full((4, 3), 3**-0.5, np.float32)
    everywhere = case.grid_of(s, EVERYWHERE, device)
    samples = case.march(s, everywhere, case.ray_batch(s, o, d, device))
    assert (samples.n.numpy() == 1024).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_absurd_rays_end(bad, device):
    s = case.make_settings()
    o, d = case.random_rays(6)
    o[0], o[1, 0] = bad, bad
    d[2], d[3], d[4, 1] = 0, bad, bad
    everywhere = case.grid_of(s, EVERYWHERE, device)
    samples = case.march(s, everywhere, case.ray_batch(s, o, d, device))
    assert 0 < samples.n.numpy()[5] <= 1024


def test_near_is_kept_free(device):
    s, occupied, _, batch = marched(CASES[0], device, occupied=EVERYWHERE, near=0.3)
    lists = case.sample_lists(case.march(s, case.grid_of(s, occupied, device), batch))
    assert min(t.min() for t, _, _ in lists if len(t)) >= 0.3
