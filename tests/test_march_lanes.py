"""The march that lanes share: the samples of the march of one item a ray, bit for bit."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.kernels import access, march, march_lanes
from ngp_warp.radiance.marching import make_lattice
from tests import radiance_case as case

# aabb_scale, steps, cone angle: fewer points than lanes, windows that blocks are longer and
# shorter than, steps that grow beyond the finest cascade's cells and to the longest
EQUAL = [(1, 8, 0.0), (1, 128, 0.0), (1, 1024, 0.0), (4, 128, 0.0), (8, 700, 0.0), (1, 4096, 0.0)]
GROWING = [(8, 64, 1 / 256), (8, 256, 1 / 32), (16, 1024, 1 / 256), (2, 8, 1 / 64), (4, 512, 0.5)]
CASES = EQUAL + GROWING


def batch_of(settings, device, *, n=201, seed=0):
    """Rays of which some miss the box, begin in it, run along an axis or do not count."""
    o, d = case.random_rays(n, seed)
    o[-20:], d[-20:-10], d[-10:] = 1.5, (1, 0, 0), (0.6, 0, 0.8)
    o[-50:-40], d[-50:-40] = (-0.25, 0.5, 0.5), (1, 1e-7, 0)
    o[-60:-50], d[-60:-50] = (-0.25, 0.3, 0.5), (1, 0, -1e-12)
    jitter = np.random.default_rng(seed).random((n, 1), np.float32)
    weight = (np.arange(n) % 7 > 0).reshape(n, 1)
    batch = case.ray_batch(settings, o, d, device, jitter=jitter, weight=weight)
    batch.count.fill_(n - 3)
    batch.n_samples.fill_(7)
    return batch


def found(settings, occupied, device, shared, **more):
    """All that marching says: span, numbers, samples."""
    batch = batch_of(settings, device)
    grid = case.grid_of(settings, occupied, device)
    samples = case.march(settings, grid, batch, shared=shared, **more)
    arrays = [samples.counted, samples.end, samples.n, samples.total, batch.n_samples]
    arrays += [samples.span, samples.positions, samples.distance, samples.length, samples.ray]
    return [a.numpy() for a in arrays]


def assert_same(settings, occupied, device, **more):
    one = found(settings, occupied, device, False, **more)
    for a, b in zip(one, found(settings, occupied, device, True, **more), strict=True):
        np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))
    return one


@pytest.mark.parametrize("options", CASES)
def test_samples_are_those_of_one_item_a_ray(options, device):
    aabb_scale, steps, cone_angle = options
    s = case.make_settings(aabb_scale=aabb_scale, steps=steps, cone_angle=cone_angle)
    n = assert_same(s, case.blobs(s), device, capacity=2**20, max_samples=2**20)[0]
    assert n.max() > 0
    assert (n == 0).any()


@pytest.mark.parametrize("cone_angle", [0.0, 1 / 256])
@pytest.mark.parametrize("most", [1, 31, 32, 33, 100])
def test_a_ray_ends_at_the_same_sample(most, cone_angle, device):
    s = case.make_settings(steps=1024, cone_angle=cone_angle)
    n = assert_same(s, case.blobs(s), device, max_samples=most)[0]
    assert n.max() == most


@pytest.mark.parametrize("cone_angle", [0.0, 1 / 256])
def test_rays_without_room_are_the_same(cone_angle, device):
    s = case.make_settings(steps=1024, cone_angle=cone_angle)
    _, _, n, total, reported, *_ = assert_same(s, case.blobs(s), device, capacity=2048)
    assert total[0] > 2048
    assert (reported == -1).any()
    assert (n > 0).any()


@pytest.mark.parametrize("cone_angle", [0.0, 1 / 256])
@pytest.mark.parametrize("share", [0.0, 1e-3, 0.02])
def test_single_cells_are_met(share, cone_angle, device):
    # most blocks have one cell or none: a skip that is too long would miss it
    s = case.make_settings(aabb_scale=2, steps=1024, cone_angle=cone_angle)
    occupied = np.random.default_rng(1).random((s.n_cascades, 128, 128, 128)) < share
    n = assert_same(s, occupied, device, capacity=2**18)[0]
    assert (n.sum() > 20) == (share > 0)


@pytest.mark.parametrize("cone_angle", [0.0, 1 / 256])
@pytest.mark.parametrize("tiny", [0.0, 1e-8, 1e-5, 1e-3])
def test_rays_along_the_faces_of_blocks_are_the_same(tiny, cone_angle, device):
    # where rounding decides on which side of a face a point lies
    s = case.make_settings(steps=1024, cone_angle=cone_angle)
    rng = np.random.default_rng(0)
    o = rng.integers(0, 16, (300, 3)).astype(np.float32) / 16
    d = np.full((300, 3), tiny) * rng.choice([-1, 1], (300, 3))
    for axis in range(3):
        o[axis::3, axis], d[axis::3, axis] = -3.25, 1
    occupied = rng.random((1, 128, 128, 128)) < 0.003
    grid = case.grid_of(s, occupied, device)
    ends = []
    for shared in (False, True):
        batch = case.ray_batch(s, o, d, device, jitter=np.zeros((300, 1)))
        samples = case.march(s, grid, batch, shared=shared)
        ends.append((samples.end.numpy(), samples.distance.numpy()))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    np.testing.assert_array_equal(ends[0][1], ends[1][1])
    assert ends[0][0][-1] > 50


def test_the_agreement_can_fail(device):
    s = case.make_settings()
    occupied = case.blobs(s)
    one = found(s, occupied, device, False)
    other = found(s, np.roll(occupied, 1, axis=3), device, True)
    assert (one[0] != other[0]).any()


@wp.kernel
def skip_kernel(
    begin: int,
    lattice: march.Lattice,
    origin: wp.array[float],
    direction: wp.array[float],
    margin: float,
    # out
    skipped: wp.array[int],  # points that are skipped
    wrong: wp.array[int],  # of them in another block
):
    """Walk a ray from block to block, looking at every point that is skipped."""
    r = begin + wp.tid()
    o = access.vector_at(origin, r)
    d = access.vector_at(direction, r)
    t0, t1 = march.ray_span(lattice, o, d)
    ray = march_lanes.make_ray(o, d, t0, t1)
    for axis in range(3):
        ray.bias[axis] = ray.bias[axis] + margin * wp.abs(ray.inverse[axis])
    place = wp.float32(0.0)
    while march_lanes.distance_at(lattice, ray, place) < t1:
        p = o + march_lanes.distance_at(lattice, ray, place) * d
        cascade = march.cascade_of(lattice, p, lattice.min_step)
        cell = march.cell_of(lattice, p, cascade)
        after = march_lanes.after_block(lattice, ray, cell, cascade, place)
        block = march_lanes.coarse_index(lattice, cell, cascade)
        place += 1.0
        while place < after and march_lanes.distance_at(lattice, ray, place) < t1:
            p = o + march_lanes.distance_at(lattice, ray, place) * d
            cascade = march.cascade_of(lattice, p, lattice.min_step)
            cell = march.cell_of(lattice, p, cascade)
            skipped[r] += 1
            if march_lanes.coarse_index(lattice, cell, cascade) != block:
                wrong[r] += 1
            place += 1.0


def skips(settings, o, d, device, margin=0.0):
    """How many points are skipped, and how many of them wrongly."""
    arrays = [wp.array(x.astype(np.float32).reshape(-1), device=device) for x in (o, d)]
    counts = [wp.zeros(len(o), dtype=int, device=device) for _ in range(2)]
    args = [make_lattice(settings), *arrays, margin, *counts]
    launch.launch(skip_kernel, len(o), args, device)
    return [c.numpy().sum() for c in counts]


@pytest.mark.parametrize("away", [0.0, 3.0, 30.0])
@pytest.mark.parametrize(("aabb_scale", "steps"), [(1, 512), (1, 4096), (16, 100)])
def test_skipped_points_are_in_the_block(aabb_scale, steps, away, device):
    s = case.make_settings(aabb_scale=aabb_scale, steps=steps)
    o, d = case.random_rays(128)
    rng = np.random.default_rng(0)
    # along the faces of blocks, and nearly so
    o[64:] = rng.integers(0, 16, (64, 3)) / 16
    d[64:, 0] = rng.choice([0, 1e-7, -1e-5, 1e-3], 64)
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    n, wrong = skips(s, o - away * d, d, device)
    assert n > 4000
    assert wrong == 0


def test_skips_can_be_too_long(device):
    s = case.make_settings(steps=4096)
    o, d = case.random_rays(128)
    assert skips(s, o - 3 * d, d, device, margin=1e-4)[1] > 0
