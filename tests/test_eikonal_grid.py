"""The grid with its Jacobian: the twin, the laws of slopes, and both gradients in one scatter."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.config import GridEncodingConfig
from ngp_warp.encodings.grid import GridEncoding
from ngp_warp.encodings.grid_jacobian import GridJacobian
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.kernels.grid_portable import FIXED_POINT
from tests.grid_case import GridCase, along, flags_are, flags_of, small
from tests.reference import eikonal
from tests.test_grid import SHAPES, make
from tests.test_grid_gradients import SLOPE_TOLERANCE, TABLE_TOLERANCE, error

DIFFERENTIABLE = [shape for shape in SHAPES if shape[2] != "nearest"]
GRIDS = ("hash", "dense", "tiled")


def forward(case):
    """Features [n, L * F] and Jacobian [n, L * F, d]."""
    n_rows, n_dims = case.encoding.n_outputs, case.n_dims
    out, jacobian = case.zeros(n_rows), case.zeros(n_rows * n_dims)
    GridJacobian(case.encoding).forward(case.blocked(case.x), case.read(), out, jacobian).run()
    rows = case.points(jacobian, n_rows * n_dims).reshape(case.n, n_dims, n_rows)
    return case.points(out, n_rows), rows.transpose(0, 2, 1)


def backward(case, slope, dtype=wp.float32):
    d_table, touched = case.table_gradient(dtype)
    arrays = [case.gradient(v) for v in (case.d_out, slope, case.v)]
    x = case.blocked(case.x)
    GridJacobian(case.encoding).backward(x, *arrays, d_table, touched).run()
    return d_table.numpy().reshape(case.table.shape), flags_of(touched, case.device)


def twin_backward(case, slope):
    kind = case.levels, case.config.grid_type, case.config.interpolation
    d_jacobian = slope[:, :, None] * case.v[:, None, :]
    d_table, flags = case.twin_backward()
    return (
        d_table + eikonal.scatter_jacobian(case.x, d_jacobian, *kind, case.encoding.n_entries),
        flags,
    )


def slopes(case):
    return np.random.default_rng(9).normal(size=case.d_out.shape).astype(np.float32)


@pytest.mark.parametrize("shape", DIFFERENTIABLE, ids=str)
def test_features_and_jacobian_are_the_twins(device, backend, shape):
    for grid_type in GRIDS:
        case = make(shape, grid_type, device, backend)
        features, jacobian = forward(case)
        # the same lerps as the plain forward pass, in another order
        assert error(features, case.twin_forward()) < TABLE_TOLERANCE
        kind = case.levels, grid_type, case.config.interpolation
        wanted = eikonal.jacobian(case.x, case.table.astype(np.float64), *kind)
        assert error(jacobian, wanted) < SLOPE_TOLERANCE
        assert error(jacobian, np.roll(wanted, 1, axis=2)) > 0.1


@pytest.mark.parametrize("shape", DIFFERENTIABLE[:4], ids=str)
def test_the_twins_jacobian_is_a_difference(shape):
    case = make(shape, "hash", "cpu", "auto")
    table = case.table.astype(np.float64)
    wanted = along(case.twin_forward, case.x, case.v)
    jacobian = eikonal.jacobian(case.x, table, case.levels, "hash", case.config.interpolation)
    assert error(np.einsum("nkd,nd->nk", jacobian, case.v), wanted) < 1e-6


def test_jacobian_times_a_slope_is_the_input_gradient(device, backend):
    case = make((3, 2, "smoothstep", "float32"), "hash", device, backend)
    got = np.einsum("nkd,nk->nd", forward(case)[1], case.d_out)
    assert error(got, case.input_gradient()) < SLOPE_TOLERANCE


def test_a_constant_table_has_no_slope(device, backend):
    case = make((3, 2, "smoothstep", "float32"), "hash", device, backend)
    case.table[:] = 0.75
    features, jacobian = forward(case)
    assert np.allclose(features, 0.75, rtol=0, atol=1e-6)
    # portable kernels add weights of both signs up to the scale 31 * 1.5
    assert np.abs(jacobian).max() < 2e-5


@pytest.mark.parametrize("shape", DIFFERENTIABLE, ids=str)
def test_both_gradients_are_the_twins(device, backend, shape):
    for grid_type in GRIDS:
        case = make(shape, grid_type, device, backend)
        slope = slopes(case)
        d_table, touched = backward(case, slope)
        wanted, flags = twin_backward(case, slope)
        assert error(d_table, wanted) < SLOPE_TOLERANCE
        assert error(d_table, case.twin_backward()[0]) > 0.1
        assert flags_are(touched, flags)


def test_backward_is_the_adjoint_of_both(device, backend):
    # <y, d_out> + <v, J^T slope> = <T, dT>: both are linear in the table
    case = make((3, 2, "smoothstep", "float32"), "tiled", device, backend)
    slope = slopes(case).astype(np.float64)
    features, jacobian = (a.astype(np.float64) for a in forward(case))
    left = np.sum(features * case.d_out) + np.einsum("nkd,nk,nd", jacobian, slope, case.v)
    right = np.sum(backward(case, slope)[0].astype(np.float64) * case.table)
    assert abs(left) > 100.0
    assert abs(left - right) < 1e-5 * np.abs(jacobian).max() * np.sqrt(jacobian.size)


def test_fixed_point_equals_floating_point(device):
    case = make((3, 2, "linear", "float32"), "hash", device, "portable")
    slope = slopes(case)
    fixed, touched = backward(case, slope, wp.int64)
    floating, flags = backward(case, slope)
    assert error(fixed / FIXED_POINT, floating) < 1e-5
    assert flags_are(touched, flags)


def test_threads_do_not_matter():
    results = []
    for threads in (1, 3):
        launch.set_num_threads(threads)
        case = GridCase(3, small(), "cpu", "auto", n=32 * 70)
        results.append((*forward(case), *backward(case, slopes(case))))
    launch.set_num_threads(None)
    for one, three in zip(*results, strict=True):
        assert np.array_equal(one, three)


def test_errors_name_what_is_wrong(device):
    nearest = GridEncoding(3, small(interpolation="nearest"), device)
    with pytest.raises(ConfigError, match="linear or smoothstep, got nearest"):
        GridJacobian(nearest)
    case = GridCase(3, small(), device, "auto")
    with pytest.raises(ShapeError, match="jacobian must have"):
        GridJacobian(case.encoding).forward(
            case.blocked(case.x), case.read(), case.zeros(case.encoding.n_outputs), case.zeros(3)
        )
    assert isinstance(case.config, GridEncodingConfig)
