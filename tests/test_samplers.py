"""Samplers: against their twin in Python integers, and the laws of each kind."""

import numpy as np
import pytest
import warp as wp

from ngp_warp.samplers import sample
from tests.reference import samplers
from tests.reference.mlp import from_blocks

KINDS = ["uniform", "stratified", "halton", "sobol"]
SEQUENCES = ["halton", "sobol"]


def draw(kind, n_dims, device, n, seed=1, step=0, part=(0, 1)):
    """Batch [n, n_dims] of a seed and a step, or a part of one."""
    x = wp.zeros(n * n_dims, dtype=float, device=device)
    step_array = wp.array([step], dtype=wp.int64, device=device)
    sample(kind, n_dims, seed, step_array, x, device, part).run()
    return from_blocks(x.numpy().reshape(-1, n_dims, 32), n)


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_points_are_the_twins(device, kind, n_dims):
    for n, seed, step in ((32, 0, 0), (96, 7, 5), (128, 2**31 - 1, 40_000)):
        x = draw(kind, n_dims, device, n, seed, step)
        # 24 bits are exact; Halton's sum of digits may fall on the other side of the last bit
        wanted = samplers.sample(kind, n_dims, seed, step, n)
        assert np.abs(x - wanted).max() <= (2.0**-24 if kind == "halton" else 0.0)
        assert np.abs(x - np.roll(wanted, 1, axis=0)).max() > 0.1


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_and_a_step_give_the_batch(device, kind, n_dims):
    batch = draw(kind, n_dims, device, 64, seed=3, step=4)
    assert np.array_equal(batch, draw(kind, n_dims, device, 64, seed=3, step=4))
    for other in ({"seed": 4, "step": 4}, {"seed": 3, "step": 5}):
        assert np.abs(batch - draw(kind, n_dims, device, 64, **other)).min(axis=0).max() > 0


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_a_batch_are_the_batch(device, kind, n_dims):
    batch = draw(kind, n_dims, device, 96, seed=3, step=4)
    parts = [draw(kind, n_dims, device, 32, seed=3, step=4, part=(k, 3)) for k in range(3)]
    assert np.array_equal(np.concatenate(parts), batch)
    assert not np.array_equal(parts[0], parts[1])


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_large_batch_lies_in_the_unit_cube(device, kind, n_dims):
    # 2^18 points: a rounding up to 1 that happens once in 2^17 draws would show
    for step in range(4):
        x = draw(kind, n_dims, device, 2**18, step=step)
        assert x.min() >= 0.0
        assert x.max() < 1.0
        assert np.allclose(x.mean(axis=0), 0.5, atol=5 * np.sqrt(1 / 12 / 2**18))


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("n_bits", [5, 10, 18])
def test_stratified_has_one_point_a_cell(device, n_dims, n_bits):
    cells = np.array([2 ** len(range(d, n_bits, n_dims)) for d in range(n_dims)])
    x = draw("stratified", n_dims, device, 2**n_bits)
    index = np.ravel_multi_index(tuple((x.astype(np.float64) * cells).astype(int).T), cells)
    assert np.array_equal(np.sort(index), np.arange(2**n_bits))
    uniform = (draw("uniform", n_dims, device, 2**n_bits).astype(np.float64) * cells).astype(int)
    assert len(np.unique(uniform, axis=0)) < 2**n_bits


@pytest.mark.parametrize("n_dims", [2, 3])
def test_stratified_neighbours_lie_close(device, n_dims):
    # a Morton curve of 2^12 cells: most steps go to a neighbouring cell
    x = draw("stratified", n_dims, device, 2**12)
    step = np.linalg.norm(np.diff(x, axis=0), axis=1)
    assert np.median(step) < 2 * 2 ** (-12 / n_dims)


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", ["uniform", "stratified"])
@pytest.mark.parametrize("n", [96, 160])
def test_random_samplers_are_unbiased(device, kind, n_dims, n):
    # n points fill 2^k cells unevenly in a step, evenly in the mean
    n_steps = 400
    x = np.concatenate([draw(kind, n_dims, device, n, step=step) for step in range(n_steps)])
    counts, _ = np.histogramdd(x, bins=[4] * n_dims, range=[(0, 1)] * n_dims)
    mean = n * n_steps / 4**n_dims
    # at most a binomial's spread; 64 cells stay within 5 of its deviations
    assert np.abs(counts - mean).max() < 5 * np.sqrt(mean)


@pytest.mark.parametrize("kind", SEQUENCES)
def test_sequences_go_on_from_step_to_step(device, kind):
    parts = [draw(kind, 3, device, 32, step=step) for step in (3, 4, 5)]
    assert np.array_equal(draw(kind, 3, device, 96, step=1), np.concatenate(parts))


@pytest.mark.parametrize("step", [0, 3, 2**20])
def test_sobol_hits_every_elementary_interval(device, step):
    # 2^8 points from a multiple of 2^8 on: one in every box of 2^-a times 2^(a - 8)
    x = draw("sobol", 3, device, 256, step=step).astype(np.float64)
    for a in range(9):
        shape = (2**a, 2 ** (8 - a))
        index = np.ravel_multi_index(tuple((x[:, :2] * shape).astype(int).T), shape)
        assert len(np.unique(index)) == 256
    # the third axis by itself
    assert len(np.unique((x[:, 2] * 256).astype(int))) == 256


def discrepancy(x):
    """Largest error of the share of points in 2,000 boxes at the origin."""
    corners = np.random.default_rng(0).random((2000, x.shape[1]))
    inside = np.all(x[None] < corners[:, None], axis=2).mean(axis=1)
    return np.abs(inside - corners.prod(axis=1)).max()


@pytest.mark.parametrize("n_dims", [2, 3])
def test_sequences_fill_space_evenly(device, n_dims):
    of = {kind: discrepancy(draw(kind, n_dims, device, 1024)) for kind in KINDS}
    assert of["sobol"] < of["uniform"] / 3
    assert of["halton"] < of["uniform"] / 3
    assert of["stratified"] < of["uniform"] / 1.5


def test_halton_is_the_radical_inverse():
    # 6 = 110 in base 2 and 20 in base 3
    assert samplers.radical_inverse(6, 2) == samplers.Fraction(3, 8)
    assert samplers.radical_inverse(6, 3) == samplers.Fraction(2, 9)
