"""Spherical harmonics against SciPy's, their gradient against differences; laws."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.kernels import spherical_harmonics as kernels
from tests.reference import spherical_harmonics as twin

BANDS = range(1, kernels.MAX_BANDS + 1)


def unit_vectors(n, seed=0):
    v = np.random.default_rng(seed).normal(size=(n, 3))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def harmonics(directions, n_bands, device, count=None):
    d = wp.array(np.asarray(directions, np.float32).reshape(-1), device=device)
    norm = wp.array(kernels.norms(), device=device)
    rows = wp.zeros(len(directions) * n_bands**2, dtype=float, device=device)
    counted = None if count is None else wp.array([count], dtype=int, device=device)
    args = [d, norm, n_bands, counted, rows]
    launch.launch(kernels.harmonics_kernel, len(directions), args, device)
    return rows.numpy().reshape(len(directions), -1)


def gradient(directions, d_rows, n_bands, device):
    d = wp.array(np.asarray(directions, np.float32).reshape(-1), device=device)
    norm = wp.array(kernels.norms(), device=device)
    g = wp.array(np.asarray(d_rows, np.float32).reshape(-1), device=device)
    out = wp.zeros(len(directions) * 3, dtype=float, device=device)
    args = [d, norm, n_bands, g, out]
    launch.launch(kernels.harmonics_gradient_kernel, len(directions), args, device)
    return out.numpy().reshape(-1, 3)


@pytest.mark.parametrize("n_bands", BANDS)
def test_values_are_the_twins(n_bands, device):
    d = unit_vectors(100)
    # float32 recurrences of 8 terms, values up to 1.5
    wanted = twin.harmonics(d.astype(np.float32), n_bands)
    np.testing.assert_allclose(harmonics(d, n_bands, device), wanted, atol=5e-6)


def test_signs_and_order_are_the_usual_ones(device):
    x, y, z = 0.48, -0.6, 0.64
    usual = [0.28209479, -0.48860251 * y, 0.48860251 * z, -0.48860251 * x]
    usual += [1.09254843 * x * y, -1.09254843 * y * z, 0.94617470 * z * z - 0.31539157]
    usual += [-1.09254843 * x * z, 0.54627421 * (x * x - y * y)]
    rows = harmonics([[x, y, z]], 4, device)[0]
    np.testing.assert_allclose(rows[:9], usual, atol=1e-6)


@pytest.mark.parametrize("n_bands", BANDS)
def test_the_sum_of_squares_does_not_depend_on_the_direction(n_bands, device):
    # Unsoeld's theorem: a band's squares sum to (2 l + 1) / 4 pi
    sums = np.square(harmonics(unit_vectors(50, 1), n_bands, device)).sum(axis=1)
    np.testing.assert_allclose(sums, n_bands**2 / (4 * np.pi), rtol=1e-5)


@pytest.mark.parametrize("n_bands", BANDS)
def test_gradients_are_those_of_the_polynomials(n_bands, device):
    rng = np.random.default_rng(2)
    d, d_rows = unit_vectors(20, 3), rng.normal(size=(20, n_bands**2))
    # float64 differences along the sphere: the twin knows unit vectors alone
    e, h = rng.normal(size=(20, 3)), 1e-6
    e -= (e * d).sum(axis=1, keepdims=True) * d

    def value(t):
        v = d + t * e
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        return (twin.harmonics(v, n_bands) * d_rows).sum(axis=1)

    wanted = (value(h) - value(-h)) / (2 * h)
    got = gradient(d, d_rows, n_bands, device)
    np.testing.assert_allclose((got * e).sum(axis=1), wanted, atol=2e-4 * n_bands)
    assert n_bands == 1 or np.abs(got).max() > 0.1


def test_the_gradient_is_not_only_tangential(device):
    # of row 2, 0.4886 z, with respect to z: the direction is free
    d_rows = np.zeros((1, 4))
    d_rows[0, 2] = 1
    got = gradient([[0.0, 0.0, 1.0]], d_rows, 2, device)
    np.testing.assert_allclose(got, [[0, 0, 0.48860251]], atol=1e-6)


@pytest.mark.parametrize("count", [0, 7, 40, 1000])
def test_directions_that_do_not_count_are_left_out(device, count):
    d = unit_vectors(40)
    found, whole = harmonics(d, 4, device, count), harmonics(d, 4, device)
    # a CPU's loop over all is another one, and may fuse other multiplications
    assert np.allclose(found[:count], whole[:count], rtol=0, atol=1e-6)
    assert not found[count:].any()
