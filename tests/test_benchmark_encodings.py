"""The comparison of encodings is a fair one: equal sizes, and every encoding learns."""

from typing import Any

import numpy as np
import pytest
import warp as wp

from benchmarks.encoded_field import EncodedField
from benchmarks.encodings import HASH_LOG2, Problem, candidates, describe, plot, run
from ngp_warp import launch, samplers
from ngp_warp.config import OptimizerConfig


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

    return Problem("ones", "error", n_dims, 1, "l2", 256, (1e-2, 1e-3), draw, measure, at)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_others_are_as_large_as_the_hash_grids(n_dims: int) -> None:
    sizes = {c.name: c.make().n_params for c in candidates(make_problem(n_dims))}
    for log2 in HASH_LOG2[1:]:
        size = sizes[f"hash, T = 2^{log2}"]
        assert sizes[f"one dense grid, as 2^{log2}"] == pytest.approx(size, rel=0.06)
        assert 0.8 * size <= sizes[f"dense grids, as 2^{log2}"] <= size
        assert 0 < sizes[f"octree, as 2^{log2}"] <= size
    assert sizes["frequencies, 8x128"] == 0


@pytest.mark.parametrize("n_dims", [2, 3])
def test_every_encoding_learns(n_dims: int) -> None:
    problem = make_problem(n_dims)
    for candidate in candidates(problem):
        rate = problem.rates[int(candidate.frequencies)]
        optimizer = OptimizerConfig(learning_rate=rate)
        field = EncodedField(candidate.make(), candidate.network, 1, optimizer)
        before = problem.measure(field.query)
        assert field.train(problem.draw, 2**10, "l2", 0.0, n_steps=100) == 100
        assert problem.measure(field.query) < 0.5 * before, candidate.name


def test_the_tables_and_plots_hold_all(tmp_path: Any) -> None:
    launch.init()
    results = run([make_problem(2)], 0.05)
    rows = results["problems"]["ones"]["rows"]
    text = describe(results)
    assert all(row["encoding"] in text for row in rows)
    assert len(rows) == 10
    (path,) = plot(results, tmp_path)
    assert path.stat().st_size > 0
