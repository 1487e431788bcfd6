"""Points of a medium with the light that they scatter, and their pool: laws.

Monte Carlo means are compared within four of their own standard errors.
"""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.primitives.volume.kernels.targets import part_of, point_kernel
from ngp_warp.primitives.volume.light import Light
from ngp_warp.primitives.volume.medium import Medium
from ngp_warp.primitives.volume.radiance_samples import COLLISIONS, REUSE, STRIDE, RadianceBatches
from ngp_warp.primitives.volume.transport import MAX_BOUNCES, collisions
from tests.reference.mlp import from_blocks
from tests.volume_light_case import (
    ALL_SUN,
    SHEARED,
    SIGMAS,
    UNIFORM,
    check_means,
    inward_rays,
    smooth,
    sparse,
)

N = 2048
N_FRESH, N_PARTS = N // REUSE, REUSE * STRIDE
GAIN = 0.25


class Drawn:
    """Batches of a run that has done some steps, and the arrays they fill."""

    def __init__(self, medium, light, *, done=0, n=N, seed=3):
        device = medium.device
        self.n, self.side = n, int(max(b - a for a, b in zip(*medium.box, strict=True))) + 1
        self.step = wp.array([done], dtype=wp.int64, device=device)
        self.x = wp.zeros(3 * n, dtype=float, device=device)
        self.target = wp.full(4 * n, np.nan, dtype=float, device=device)
        self.batches = RadianceBatches(
            medium, light, n_points=n, seed=seed, density_gain=GAIN, side=self.side
        )
        self.stages = self.batches.stages(self.step, self.x, self.target)

    def next(self):
        """Grid points [n, 3], radiances [n, 3] and densities [n] of the next step."""
        self.step.assign(self.step.numpy() + 1)
        for stage in self.stages:
            launch.run_all(stage)
        x = from_blocks(self.x.numpy().reshape(-1, 3, 32), self.n)
        target = from_blocks(self.target.numpy().reshape(-1, 4, 32), self.n)
        return x * self.side - 0.5, target[:, :3], target[:, 3] / GAIN

    def fresh(self, steps):
        """The same of the points that were new in some steps, first those of the first."""
        n = self.n // REUSE
        parts = [[part[:n] for part in self.next()] for _ in range(steps)]
        return [np.concatenate(rows) for rows in zip(*parts, strict=True)]


def test_targets_in_a_white_furnace_are_its_radiance(device):
    medium = Medium.from_values(smooth(), SHEARED, density_scale=1.0, albedo=1.0, device=device)
    points, radiance, density = Drawn(medium, UNIFORM).next()
    # every path carries the sky's radiance
    np.testing.assert_allclose(radiance, 0.7, rtol=1e-6)
    # points of up to 12 grid units, recovered from float32 shares of a cube, times slopes of 1
    expected = medium.densities(medium.world_points(points))
    np.testing.assert_allclose(density, expected, atol=2e-5)
    assert np.abs(np.roll(density, 1) - expected).max() > 0.1
    assert density.max() > 0.5


def test_targets_have_the_mean_of_a_sun_of_all_directions(device):
    medium = Medium.from_values(smooth(), density_scale=1.0, albedo=1.0, device=device)
    _, radiance, _ = Drawn(medium, ALL_SUN).fresh(60)
    check_means(radiance[:, :1].astype(np.float64), 0.7)
    with pytest.raises(AssertionError):
        check_means(1.1 * radiance[:, :1].astype(np.float64), 0.7)


def same_moments(a, b):
    """Whether means and mean squares of two samples [n, columns] agree within their errors."""
    for x, y in ((a, b), (a**2, b**2)):
        error = np.sqrt(x.var(axis=0) / len(x) + y.var(axis=0) / len(y))
        if (np.abs(x.mean(axis=0) - y.mean(axis=0)) > SIGMAS * error).any():
            return False
    return True


@pytest.mark.parametrize("kind", ["sparse", "one voxel"])
def test_points_are_anywhere_in_blocks_and_first_collisions(kind, device):
    # of one voxel, most of the block is beside the medium
    values, to_world = (
        (sparse(20), SHEARED) if kind == "sparse" else (np.ones((1, 1, 1)), np.eye(4))
    )
    medium = Medium.from_values(values, to_world, density_scale=9.0, albedo=0.0, device=device)

    def with_density(p):
        return np.concatenate([p, medium.densities(medium.world_points(p))[:, None]], axis=1)

    points, _, _ = Drawn(medium, UNIFORM, seed=1).fresh(60)
    by_step = points.reshape(60, N_FRESH, 3)
    n_collisions = round(COLLISIONS * N_FRESH)
    found, anywhere = (
        with_density(part.reshape(-1, 3).astype(np.float64))
        for part in (by_step[:, :n_collisions], by_step[:, n_collisions:])
    )
    blocks = np.argwhere(medium.majorants > 0)
    rng, n = np.random.default_rng(2), 40000
    through = (blocks[rng.integers(len(blocks), size=n)] + rng.random((n, 3))) * medium.block
    assert same_moments(anywhere, with_density(through))
    # first collisions of rays from outside of the grid through such points; else the points
    ways = rng.standard_normal((n, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    origins = medium.world_points(through) - 10 * medium.cube[0] * ways
    hits = collisions(medium, UNIFORM, origins, ways)
    assert 0.1 < hits.hit.mean() < 0.99
    places = np.where(hits.hit[:, None], medium.grid_points(hits.points), through)
    expected = with_density(places.astype(np.float64))
    assert same_moments(found, expected)
    # that the comparison would notice points that are anywhere
    assert not same_moments(anywhere, expected)


def test_points_lie_in_blocks_that_are_not_empty(device):
    medium = Medium.from_values(sparse(20), density_scale=3.0, albedo=0.0, device=device)
    points, _, _ = Drawn(medium, UNIFORM).fresh(4)
    inside = np.abs(points / medium.block - np.rint(points / medium.block)).min(axis=1) > 1e-5
    block = (points[inside] / medium.block).astype(int)
    assert inside.mean() > 0.99
    assert (medium.majorants[tuple(block.T)] > 0).all()
    assert (medium.majorants == 0).mean() > 0.1


def test_a_batch_holds_the_parts_of_older_steps(device):
    medium = Medium.from_values(smooth(), density_scale=1.0, device=device)
    drawn, parts = Drawn(medium, Light()), []
    for number in range(N_PARTS + 9):
        # x and target of points, part by part
        rows = [a.reshape(REUSE, N_FRESH, -1) for a in drawn.next()]
        parts.append([a[0] for a in rows])
        for k in range(1, REUSE):
            if number - k * STRIDE >= 0:
                for a, older in zip(rows, parts[number - k * STRIDE], strict=True):
                    np.testing.assert_array_equal(a[k], older)
    first = np.array([p[0][0] for p in parts])
    assert len(np.unique(first, axis=0)) == len(parts)


@pytest.mark.parametrize("done", [1, 10, N_PARTS + 7])
def test_a_pool_filled_again_is_the_pool(done, device):
    medium = Medium.from_values(smooth(), density_scale=1.0, device=device)
    went_on = Drawn(medium, Light())
    for _ in range(done):
        before = went_on.next()
    resumed = Drawn(medium, Light(), done=done)
    for _ in range(3):
        for a, b in zip(went_on.next(), resumed.next(), strict=True):
            np.testing.assert_array_equal(a, b)
    # that the comparison would notice a step more
    later = Drawn(medium, Light(), done=done + 1).next()
    assert any((a != b).any() for a, b in zip(before, later, strict=True))


def test_threads_change_nothing_and_the_seed_all(device):
    medium = Medium.from_values(sparse(20), density_scale=1.0, device=device)
    n_threads = launch.num_threads()
    try:
        made = []
        for threads in (1, 2):
            launch.set_num_threads(threads)
            made.append(Drawn(medium, Light()).next())
    finally:
        launch.set_num_threads(n_threads)
    for a, b in zip(*made, strict=True):
        np.testing.assert_array_equal(a, b)
    other = Drawn(medium, Light(), seed=4).next()
    assert (other[0] != made[0][0]).any(axis=1).all()


@wp.kernel(module="unique", enable_backward=False)
def parts_kernel(begin: int, steps: wp.array[wp.int64], n_parts: int, parts: wp.array[int]):
    i = begin + wp.tid()
    parts[i] = part_of(steps[i], n_parts)


def test_parts_of_negative_steps(device):
    steps = np.concatenate([np.arange(-130, 131), [-(2**40) - 1, 2**40 + 1]])
    parts = wp.zeros(len(steps), dtype=int, device=device)
    for n_parts in (64, 5, 1):
        args = [wp.array(steps, dtype=wp.int64, device=device), n_parts, parts]
        launch.launch(parts_kernel, len(steps), args, device)
        np.testing.assert_array_equal(parts.numpy(), steps % n_parts)


def run_points(medium, light, points, n_samples, *, seed=9):
    """Return radiances [n, 3] and densities [n] at grid points."""
    n, device = len(points), medium.device
    radiances = wp.zeros(n, dtype=wp.vec3, device=device)
    densities = wp.zeros(n, dtype=float, device=device)
    at = wp.array(points.astype(np.float32), dtype=wp.vec3, device=device)
    args = [medium.data, medium.cloud, light.data(), at, seed, n_samples, MAX_BOUNCES]
    launch.launch(point_kernel(medium.kind), n, [*args, radiances, densities], device)
    return radiances.numpy().astype(np.float64), densities.numpy()


@pytest.mark.parametrize("light", [Light(), UNIFORM], ids=["sun", "sky"])
def test_radiances_at_points_are_those_of_collisions(light, device):
    medium = Medium.from_values(smooth(), SHEARED, density_scale=0.7, albedo=0.9, device=device)
    rays_o, rays_d = inward_rays(medium, 4000)
    hits = collisions(medium, light, rays_o, rays_d)
    points = medium.grid_points(hits.points[hits.hit])
    radiances, densities = run_points(medium, light, points, 32)
    # float32 points through the world and back, times slopes of 1
    np.testing.assert_allclose(densities, hits.densities[hits.hit], atol=1e-4)
    one = hits.radiances[hits.hit].astype(np.float64)
    check_means(one - radiances, 0.0)
    with pytest.raises(AssertionError):
        check_means(one - 1.1 * radiances, 0.0)
    # more samples of the same points: 1 / 32 of the variance, less what differs between points
    assert radiances.var() < one.var()


def test_means_over_samples_are_those_of_targets(device):
    # of the pool's points, wherever they lie
    medium = Medium.from_values(smooth(), density_scale=0.7, albedo=0.9, device=device)
    points, targets, _ = Drawn(medium, Light()).fresh(40)
    radiances, _ = run_points(medium, Light(), points, 16)
    check_means(targets - radiances, 0.0)
    shifted = np.roll(radiances, 1, axis=1)
    with pytest.raises(AssertionError):
        check_means(targets - shifted, 0.0)
