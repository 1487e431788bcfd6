"""The occupancy grid against its twin; laws of its cells, slices and bits."""

import functools

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ShapeError
from ngp_warp.radiance.occupancy import OccupancyGrid
from tests import radiance_case as case
from tests.reference import occupancy as twin

SCALES = [1, 8]


def ball(x):
    """Dense near one corner of the box, a trace elsewhere."""
    return np.where(np.linalg.norm(x - 0.3, axis=1) < 0.2, 500.0, 0.01)


def seen(settings):
    """Cells that a camera sees: a random tenth of them."""
    return _seen(settings.n_cascades)


@functools.cache
def _seen(n_cascades):
    shape = (n_cascades, 128, 128, 128)
    return np.random.default_rng(0).random(shape) < 0.1


def make_grid(aabb_scale, device, *, visible=True, seed=3):
    settings = case.make_settings(aabb_scale=aabb_scale)
    return OccupancyGrid(settings, device, seen(settings) if visible else None, seed)


def updater(grid, field):
    """A function that updates the slice of a step."""
    step = wp.zeros(1, dtype=wp.int64, device=grid.device)
    stages = grid.update_stages(step, case.constant_field(field))

    def update(number):
        step.fill_(number)
        case.run(stages)

    return update


def values_of(grid):
    return grid.values.numpy().reshape(grid.n_cascades, 128, 128, 128)


def coarse_of(grid):
    return grid.bits.numpy()[grid.values.size // 8 :].reshape(-1, 16, 16, 16).astype(bool)


def check_coarse(grid):
    blocks = grid.occupied().reshape(-1, 16, 8, 16, 8, 16, 8)
    np.testing.assert_array_equal(coarse_of(grid), blocks.any(axis=(2, 4, 6)))


@pytest.mark.parametrize("aabb_scale", SCALES)
@pytest.mark.parametrize("step", [1, 200, 257, 1000])
def test_an_update_is_the_twins(aabb_scale, step, device):
    grid = make_grid(aabb_scale, device)
    used, n = seen(grid.settings), grid.n_cascades
    grid.fill(case.constant_field(ball))
    values, occupied = values_of(grid).astype(np.float64), grid.occupied()
    met = np.random.default_rng(1).random(used.shape) < 0.5
    grid.met.assign(met.astype(np.uint8).reshape(-1))
    updater(grid, lambda x: 3 * x[:, 0])(step)
    for index in twin.updated(step, n):
        cells = twin.cells_of(index, used)
        points = np.array([twin.point(c, 3, step, n) for c in zip(*cells, strict=True)])
        new = 3 * points[:, 0] * grid.thickness
        factor = np.where(met[cells], 1.0, twin.decay(step, n))
        values[cells] = np.maximum(factor * values[cells], new)
        met[cells] = False
        limit = twin.threshold(values)
    # a point near the box's face is known to 2^-24 of the box
    np.testing.assert_allclose(values_of(grid), values, rtol=1e-5, atol=1e-8)
    # sums of two million float32 values in parts of a hundred
    np.testing.assert_allclose(grid.threshold.numpy()[0], limit, rtol=1e-4)
    for index in twin.updated(step, n):
        cells = twin.cells_of(index, used)
        clear = np.abs(values[cells] - limit) > 1e-5 * limit
        occupied[cells] = np.where(clear, values[cells] > limit, grid.occupied()[cells])
    np.testing.assert_array_equal(grid.occupied(), occupied)
    np.testing.assert_array_equal(grid.met.numpy(), met.reshape(-1))
    check_coarse(grid)


@pytest.mark.parametrize("aabb_scale", [1, 8])
def test_slices_hold_every_cell_once(aabb_scale, device):
    grid = make_grid(aabb_scale, device, visible=False)
    update = updater(grid, 1.0)
    for step in range(300, 300 + grid.n_slices):
        update(step)
    np.testing.assert_allclose(grid.values.numpy(), grid.thickness, rtol=1e-6)
    assert grid.occupied().all()


@pytest.mark.parametrize("aabb_scale", SCALES)
def test_a_cell_above_the_threshold_is_occupied_after_its_update(aabb_scale, device):
    grid = make_grid(aabb_scale, device)
    grid.fill(case.constant_field(0.0))
    assert not grid.occupied().any()
    sampled = {}

    def field(x):
        # of the order of the threshold, on both its sides
        density = 10 ** np.random.default_rng(0).uniform(-1, 3, len(x))
        sampled["thickness"] = density.astype(np.float32) * np.float32(grid.thickness)
        return density

    update = updater(grid, field)
    for step in (1, 100, 300):
        update(step)
        used = seen(grid.settings)
        cells = [twin.cells_of(i, used) for i in twin.updated(step, grid.n_cascades)]
        cells = tuple(np.concatenate(parts) for parts in zip(*cells, strict=True))
        n = len(cells[0])
        assert n == grid.count.numpy()[0]
        dense = sampled["thickness"][:n] > grid.threshold.numpy()[0]
        assert grid.occupied()[cells][dense].all()
        assert 0.1 < dense.mean() < 0.99


@pytest.mark.parametrize("aabb_scale", SCALES)
def test_cells_that_no_camera_sees_stay_empty(aabb_scale, device):
    grid = make_grid(aabb_scale, device)
    used = seen(grid.settings)
    np.testing.assert_array_equal(grid.occupied(), used)
    grid.fill(case.constant_field(1000.0))
    for step in (1, 2, 500):
        updater(grid, 1000.0)(step)
    assert (values_of(grid)[~used] == -1).all()
    np.testing.assert_array_equal(grid.occupied(), used)


def test_cells_decay_and_empty_out(device):
    grid = make_grid(1, device, visible=False)
    grid.fill(case.constant_field(lambda x: ball(x) + ball(1 - x)))
    full = grid.occupied()
    update = updater(grid, lambda x: ball(1 - x))
    # 500 * sqrt(3) / 128 = 6.8 falls by 0.6^8 a round: above 0.01 for one round
    for step in range(257, 257 + 128):
        update(step)
    assert grid.occupied()[full].all()
    for step in range(257 + 128, 257 + 128 * 2):
        update(step)
    left = np.argwhere(grid.occupied())[:, 1:]
    assert len(left) > full.sum() / 3
    assert left.min() > 60
    check_coarse(grid)


def test_cells_that_training_meets_stay(device):
    grid = make_grid(1, device, visible=False)
    grid.fill(case.constant_field(ball))
    full = grid.occupied()
    met = full & (np.random.default_rng(0).random(full.shape) < 0.5)
    update = updater(grid, 0.0)
    for step in range(257, 257 + 128 * 20):
        grid.met.assign(met.astype(np.uint8).reshape(-1))
        update(step)
    np.testing.assert_array_equal(grid.occupied(), met)


def test_a_field_that_is_alike_everywhere_is_occupied_everywhere(device):
    # half of the mean is enough: at the start, noise would empty half of the cells
    grid = make_grid(1, device, visible=False)
    noise = np.random.default_rng(0)
    grid.fill(case.constant_field(lambda x: 1 + noise.uniform(-1e-3, 1e-3, len(x))))
    assert grid.occupied().all()


@pytest.mark.parametrize("aabb_scale", SCALES)
def test_fill_evaluates_all_cells_once(aabb_scale, device):
    grid = make_grid(aabb_scale, device)
    grid.values.fill_(7.0)
    grid.fill(case.constant_field(ball))
    values = values_of(grid)
    used = seen(grid.settings)
    limit = twin.threshold(values.astype(np.float64))
    np.testing.assert_allclose(grid.threshold.numpy()[0], limit, rtol=1e-4)
    np.testing.assert_array_equal(grid.occupied(), values > grid.threshold.numpy()[0])
    thick = np.float32(500 * grid.thickness)
    np.testing.assert_allclose(values[used].max(), thick, rtol=1e-6)
    check_coarse(grid)


def test_a_grid_goes_on_from_what_was_stored(device):
    first, second = make_grid(2, device), make_grid(2, device)
    first.fill(case.constant_field(ball))
    updater(first, ball)(7)
    second.load({name: a.numpy() for name, a in first.state().items()})
    for grid in (first, second):
        for step in (8, 9, 300):
            updater(grid, lambda x: 100 * x[:, 1])(step)
    for name, array in first.state().items():
        np.testing.assert_array_equal(array.numpy(), second.state()[name].numpy())
    np.testing.assert_array_equal(first.threshold.numpy(), second.threshold.numpy())


def test_points_differ_from_step_to_step(device):
    grid = make_grid(1, device)
    update = updater(grid, 1.0)
    update(1)
    before = grid.points.numpy().copy()
    update(1 + 64)
    assert (before != grid.points.numpy())[: 96 * (grid.count.numpy()[0] // 32)].mean() > 0.9
    assert before.min() >= 0
    assert before.max() <= 1


def test_the_number_of_threads_changes_nothing(device):
    if device != "cpu":
        pytest.skip("threads are a CPU's")
    results = []
    n_threads = launch.num_threads()
    try:
        for threads in (1, 3):
            launch.set_num_threads(threads)
            grid = make_grid(2, device)
            grid.fill(case.constant_field(ball))
            for step in (5, 400):
                updater(grid, ball)(step)
            results.append([a.numpy() for a in grid.state().values()])
    finally:
        launch.set_num_threads(n_threads)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_grid_of_other_cascades_is_refused(device):
    settings = case.make_settings(aabb_scale=2)
    with pytest.raises(ShapeError, match=r"visible must have shape \[2, 128, 128, 128\]"):
        OccupancyGrid(settings, device, np.ones((1, 128, 128, 128), bool))
    with pytest.raises(ShapeError, match="occupancy values"):
        make_grid(1, device).load({n: a.numpy() for n, a in make_grid(2, device).state().items()})


def test_a_grid_that_nobody_sees_is_empty(device):
    settings = case.make_settings()
    grid = OccupancyGrid(settings, device, np.zeros((1, 128, 128, 128), bool))
    grid.fill(case.constant_field(100.0))
    updater(grid, 100.0)(1)
    assert not grid.occupied().any()
    assert np.isfinite(grid.threshold.numpy()).all()
