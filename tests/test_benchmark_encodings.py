"""The comparison of encodings is a fair one: equal sizes, and every encoding learns."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import warp as wp

from benchmarks.encoding_problems import fitting, scene_problem
from benchmarks.encodings import HASH_LOG2, Problem, candidates, describe, plot, run
from benchmarks.table_encoding import TableEncoding
from benchmarks.visual_hull import visual_hull
from ngp_warp import launch, samplers
from ngp_warp.config import NetworkConfig, OptimizerConfig, TrainingConfig
from ngp_warp.encodings.composite import CONCATENATION, Composite
from ngp_warp.encodings.encoding import Encoding
from ngp_warp.encodings.grid_features import GridFeatures
from ngp_warp.errors import ConfigError, DataError
from ngp_warp.primitive import report_nothing
from ngp_warp.primitives.nerf.config import NerfConfig
from ngp_warp.primitives.nerf.data import load
from tests import radiance_case as case
from tests.nerf_scenes import RADIUS, write_scene


def make_problem(n_dims: int) -> Problem:
    """A problem whose target is 1 everywhere."""

    def draw(step: wp.array, x: wp.array, target: wp.array) -> Any:
        target.fill_(1.0)
        return [[samplers.sample("uniform", n_dims, 0, step, x, "cpu")]]

    rng = np.random.default_rng(0)
    at = rng.random((20_000, n_dims))
    at[:, -1] = 0.5 + 0.2 * np.sin(6 * at[:, 0])  # a curve or a surface
    points = rng.random((500, n_dims))

    def measure(query: Any) -> float:
        return float(np.abs(query(points) - 1).mean())

    fit = fitting(1, "l2", draw, measure, n_points=2**10)
    return Problem("ones", "error", n_dims, 256, (1e-2, 1e-3), fit, at, 64)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    """A ball, with settings that make a step small."""
    path = write_scene(tmp_path_factory.mktemp("ball"))
    settings: dict[str, Any] = {
        "training": TrainingConfig(batch_size=8192),
        "march_steps": 128,
        "max_rays": 1024,
        "color_network": NetworkConfig(n_neurons=16),
    }
    return replace(scene_problem(path, hull_resolution=64, **settings), finest=64)


def check_sizes(problem: Problem) -> None:
    sizes = {c.name: c.make().n_params for c in candidates(problem)}
    for log2 in HASH_LOG2[1:]:
        size = sizes[f"hash, T = 2^{log2}"]
        assert sizes[f"one dense grid, as 2^{log2}"] == pytest.approx(size, rel=0.06)
        assert 0.8 * size <= sizes[f"dense grids, as 2^{log2}"] <= size
        assert 0 < sizes[f"octree, as 2^{log2}"] <= size
    assert sizes["frequencies, 8x128"] == 0
    assert len(sizes) == 10


@pytest.mark.parametrize("n_dims", [2, 3])
def test_others_are_as_large_as_the_hash_grids(n_dims: int) -> None:
    check_sizes(make_problem(n_dims))


def test_those_of_a_scene_are_too(scene: Problem) -> None:
    check_sizes(scene)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_an_octree_has_features_at_all_places(n_dims: int) -> None:
    problem = make_problem(n_dims)
    for candidate in candidates(problem):
        if "octree" in candidate.name:
            octree = candidate.make().encodings[0].octree  # type: ignore[attr-defined]
            assert octree.last_level == 6  # the deepest: there is room for it
            cells = np.unique((problem.places * 2**octree.last_level).astype(int), axis=0)
            assert len(octree.codes) == len(cells)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_every_encoding_learns(n_dims: int) -> None:
    problem = make_problem(n_dims)
    for candidate in candidates(problem):
        optimizer = OptimizerConfig(learning_rate=problem.rates[candidate.frequencies])
        args = candidate.make(), candidate.network, optimizer
        before = problem.fit(*args, TrainingConfig(steps=1)).value
        after = problem.fit(*args, TrainingConfig(steps=100))
        assert after.n_steps == 100
        assert after.value < 0.5 * before, candidate.name


@pytest.mark.slow
def test_every_encoding_learns_a_scene(scene: Problem) -> None:
    optimizer = OptimizerConfig(learning_rate=scene.rates[0])
    before = None
    for candidate in candidates(scene):
        encoding = candidate.make()
        # the small network for frequencies too: a large one takes too long for a test
        args = encoding, scene.network, optimizer
        before = before or scene.fit(*args, TrainingConfig(steps=1)).value
        fitted = scene.fit(*args, TrainingConfig(steps=200))
        assert fitted.n_steps == 200
        assert fitted.n_params > encoding.n_params
        assert fitted.value > before + 1, candidate.name


def trained(encoding: Encoding | None, **changes: Any) -> list[np.ndarray]:
    """Parameters of a staged field after some steps, and the last gradients of its rays."""
    settings = case.make_settings(**changes)
    wrapped = TableEncoding(encoding) if encoding else None
    field = case.make_field(settings, "cpu", "portable", encoding=wrapped)
    o, d = case.random_rays(200)
    batch = case.ray_batch(settings, o, d, "cpu", jitter=0.5, weight=1.0, target=0.7)
    stages = [[field.optimizer.advance()], *field.train_stages(batch), *field.occupancy_stages()]
    field.fill_occupancy()
    for _ in range(5):
        batch.count.fill_(200)
        case.run(stages)
    arrays = [p.value for p in field.parameters().values()]
    gradients = [batch.d_origin, batch.d_direction] if settings.ray_gradients else []
    return [a.numpy().copy() for a in (*arrays, *gradients)]


def test_a_grid_is_the_same_as_any_encoding() -> None:
    """Bit by bit: with its own flags, and as a part of another with all entries flagged."""
    config = case.make_settings().encoding
    wanted = trained(None)
    assert np.abs(wanted[1]).max() > 1e-3
    grid = GridFeatures(3, config, "cpu")
    for got, value in zip(trained(grid), wanted, strict=True):
        np.testing.assert_array_equal(got, value)
    part = Composite(3, [(grid, 0)], CONCATENATION)
    for got, value in zip(trained(part), wanted, strict=True):
        np.testing.assert_array_equal(got, value)


def test_rays_get_their_gradients_through_any_encoding() -> None:
    grid = GridFeatures(3, case.make_settings().encoding, "cpu")
    got, wanted = trained(grid, ray_gradients=True), trained(None, ray_gradients=True)
    for name, a, b in zip(("network", "table", "origin", "direction"), got, wanted, strict=True):
        scale = np.abs(b).max()
        assert scale > 0
        np.testing.assert_allclose(a, b, atol=1e-5 * scale, err_msg=name)


def test_the_fused_kernels_are_for_grids_alone() -> None:
    grid = TableEncoding(GridFeatures(3, case.make_settings().encoding, "cpu"))
    with pytest.raises(ConfigError, match="backend vector cannot run an encoding that is no grid"):
        case.make_field(case.make_settings(), "cpu", "vector", encoding=grid)


def test_the_hull_holds_the_object_and_little_else(tmp_path: Any) -> None:
    data = load(write_scene(tmp_path, n_train=40, side=128), NerfConfig(), report_nothing)
    hull = visual_hull(data.train, data.frame, 64)
    distance = np.linalg.norm(data.frame.to_scene(hull), axis=1)
    assert distance.max() < 1.35 * RADIUS
    # every cell whose middle is in the ball
    side = 1 / (64 * data.frame.scale)
    ball = 4 / 3 * np.pi * (RADIUS / side) ** 3
    assert np.count_nonzero(distance < RADIUS) == pytest.approx(ball, rel=0.01)
    assert ball < len(hull) < 1.5 * ball


def test_a_scene_of_opaque_photos_has_no_hull(tmp_path: Any) -> None:
    data = load(write_scene(tmp_path), NerfConfig(), report_nothing)
    photos = replace(data.train.photos, has_alpha=False)
    with pytest.raises(DataError, match="these have none: give a scene whose photos have"):
        visual_hull(replace(data.train, photos=photos), data.frame, 64)


def test_the_tables_and_plots_hold_all(tmp_path: Any) -> None:
    launch.init()
    results = run([make_problem(2)], 0.1)
    rows = results["ones"]["rows"]
    text = describe(results)
    assert all(row["encoding"] in text for row in rows)
    assert len(rows) == 10
    (path,) = plot(results, tmp_path)
    assert path.stat().st_size > 0
