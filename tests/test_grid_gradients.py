"""The grid encoding backwards, to first and second order: twin, adjoint laws, differences."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.config import GridEncodingConfig
from ngp_warp.encodings.grid import GridEncoding, resolve
from ngp_warp.errors import ShapeError
from ngp_warp.kernels.grid import GROUP
from ngp_warp.kernels.grid_portable import FIXED_POINT
from tests.grid_case import GridCase, along, flags_are, small
from tests.reference import grid
from tests.test_grid import SHAPES, make

# Weights are wrong by the position's rounding, up to 2^-19 of a cell, with random signs; an entry
# of a coarse level collects about 100 of them times normal values: 4 * sqrt(100) * 2^-20.
TABLE_TOLERANCE = 4e-5
# A slope is a difference of entries (at most 8) times the scale 31, summed over corners and F
# features; its rounding is 2^-19 of that again.
SLOPE_TOLERANCE = 3e-5
DIFFERENTIABLE = [shape for shape in SHAPES if shape[2] != "nearest"]


def error(got, wanted):
    """Largest difference over the largest value."""
    assert np.all(np.isfinite(got))
    assert np.abs(wanted).max() > 0.1
    return np.abs(got - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_table_gradient_is_the_twins(device, backend, shape):
    for grid_type in ("hash", "dense", "tiled"):
        case = make(shape, grid_type, device, backend)
        d_table, touched = case.backward()
        wanted, flags = case.twin_backward()
        assert np.abs(d_table - wanted).max() < TABLE_TOLERANCE
        assert np.abs(d_table - np.roll(wanted, 1, axis=0)).max() > 0.5
        # flags lie exactly over the corners of the points, and so over all gradients
        assert flags_are(touched, flags)
        assert np.all(flags[np.any(d_table.reshape(len(flags), -1) != 0, axis=1)])
        if grid_type == "dense":
            assert not np.all(flags)


@pytest.mark.parametrize("dtype", [wp.float32, wp.int64], ids=["floats", "integers"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_points_that_share_cells_add_up(device, shape, dtype):
    """On CUDA lanes of one cell add as one: few cells, in any order; all lanes, some, or none."""
    case = make(shape, "hash", device, "portable")
    rng = np.random.default_rng(9)
    case.x = case.x[rng.integers(0, 7, case.n)]
    case.x[:32] = case.x[0]
    case.d_out *= rng.random((case.n, 1)) < 0.7  # some have no gradient
    d_table, _ = case.backward(dtype)
    d_table = d_table / FIXED_POINT if dtype == wp.int64 else d_table
    wanted = case.twin_backward()[0]
    assert np.abs(d_table - wanted).max() < TABLE_TOLERANCE
    case.x[case.n // 2] = 1 - case.x[case.n // 2]
    case.d_out[case.n // 2] = 1.0
    assert np.abs(d_table - case.twin_backward()[0]).max() > 0.1


@pytest.mark.parametrize("dtype", [wp.float32, wp.int64], ids=["floats", "integers"])
def test_flags_are_set_where_there_are_some(device, dtype):
    """On CUDA too, whose optimizer wants them of the largest tables alone."""
    case = make((2, 4, "linear", "float32"), "dense", device, "portable")
    d_table, _ = case.table_gradient(dtype)
    flags = wp.zeros(case.encoding.n_entries // GROUP, dtype=wp.uint8, device=device)
    n_rows = case.encoding.n_outputs
    args = case.blocked(case.x), case.gradient(case.d_out), d_table, flags, n_rows
    case.encoding.backward(*args).run()
    wanted = case.twin_backward()[1]
    assert np.array_equal(flags.numpy() != 0, wanted)
    assert 0 < wanted.sum() < wanted.size


@pytest.mark.parametrize("grid_type", ["hash", "tiled"])
def test_backward_is_the_adjoint_of_forward(device, backend, grid_type):
    # <J dT, dy> = <dT, J^T dy>
    case = make((3, 2, "smoothstep", "float32"), grid_type, device, backend)
    left = np.sum(case.forward().astype(np.float64) * case.d_out)
    right = np.sum(case.backward()[0].astype(np.float64) * case.table)
    # sums of 560 products of O(1) with errors of a few eps; the sums are O(10)
    assert abs(left - right) < 1e-3
    assert abs(left) > 1.0


def test_table_gradients_add_up(device, backend):
    case = GridCase(2, small(), device, backend)
    d_table, touched = case.table_gradient()
    n_rows = case.encoding.n_outputs
    scatter = case.encoding.backward(
        case.blocked(case.x), case.gradient(case.d_out), d_table, touched, n_rows
    )
    scatter.run()
    once = d_table.numpy().copy()  # on a CPU numpy() is a view
    scatter.run()
    # the second pass rounds at twice the size
    assert np.allclose(d_table.numpy(), 2 * once, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", DIFFERENTIABLE, ids=str)
def test_input_gradient_is_the_twins(device, shape):
    for grid_type in ("hash", "dense", "tiled"):
        case = make(shape, grid_type, device, "auto")
        dx = case.input_gradient()
        assert error(dx, case.twin_input_gradient()) < SLOPE_TOLERANCE
        case.table = np.roll(case.table, 1, axis=0)
        assert error(dx, case.twin_input_gradient()) > 0.1


@pytest.mark.parametrize("shape", DIFFERENTIABLE[:4], ids=str)
def test_the_twins_input_gradient_is_a_difference(shape):
    case = make(shape, "hash", "cpu", "auto")
    # inside a cell; central differences of cubics at O(31) slopes: h^2 * 31^3
    slope = along(case.twin_forward, case.x, case.v)
    wanted = np.sum(slope * case.d_out, axis=1)
    assert error(np.sum(case.twin_input_gradient() * case.v, axis=1), wanted) < 1e-6


def test_nearest_has_no_slope(device):
    case = make((2, 2, "nearest", "float32"), "hash", device, "auto")
    assert np.all(case.input_gradient() == 0.0)


@pytest.mark.parametrize("shape", DIFFERENTIABLE, ids=str)
def test_second_order_is_a_derivative_along_v(device, shape):
    # <v, dx> is the derivative of <y, d_out> along v; so its gradients in d_out, the table and the
    # positions are the derivatives along v of forward, backward and input gradient.
    case = make(shape, "hash", device, "auto")
    dd_out, d_table, touched, ddx = case.second_order()
    assert error(dd_out, along(case.twin_forward, case.x, case.v)) < SLOPE_TOLERANCE
    twin_table = along(lambda x: case.twin_backward(x)[0], case.x, case.v)
    assert error(d_table, twin_table) < SLOPE_TOLERANCE
    assert flags_are(touched, case.twin_backward()[1])
    # smoothstep's curvature is rounded like its slope, and cancels once more
    twin_ddx = along(case.twin_input_gradient, case.x, case.v)
    assert error(ddx, twin_ddx) < 3 * SLOPE_TOLERANCE
    case.v = -case.v
    assert error(dd_out, along(case.twin_forward, case.x, case.v)) > 1.0


def test_second_order_does_not_depend_on_threads():
    results = []
    for n_threads in (1, 4):
        launch.set_num_threads(n_threads)
        case = make((3, 2, "smoothstep", "float32"), "hash", "cpu", "portable")
        results.append(case.second_order())
    launch.set_num_threads(None)
    for one, four in zip(*results, strict=True):
        assert np.array_equal(one, four)


def test_second_order_in_fixed_directions_is_symmetric(device):
    # the Hessian of <y, d_out>: u^T H v = v^T H u
    case = make((3, 2, "smoothstep", "float32"), "hash", device, "auto")
    u, v = np.random.default_rng(6).normal(size=(2, *case.x.shape)).astype(np.float32)
    products = []
    for a, b in ((u, v), (v, u)):
        case.v = a
        products.append(np.sum(case.second_order()[3] * b, axis=1))
    assert error(products[0], products[1]) < 1e-5


def test_fixed_point_equals_floating_point(device):
    case = make((3, 2, "linear", "float32"), "hash", device, "portable")
    fixed, touched = case.backward(wp.int64)
    floating, flags = case.backward()
    # 560 roundings of 2^-45 each, and of the float32 sum: eps * 100
    assert np.abs(fixed / FIXED_POINT - floating).max() < 1e-5
    assert flags_are(touched, flags)


def test_fixed_point_sums_have_no_order(device):
    case = make((3, 2, "linear", "float32"), "hash", device, "portable")
    fixed, floating = case.backward(wp.int64)[0], case.backward()[0]
    order = np.random.default_rng(7).permutation(case.n)
    case.x, case.d_out = case.x[order], case.d_out[order]
    assert np.array_equal(case.backward(wp.int64)[0], fixed)
    # floating-point sums do have one, so that the test can fail
    assert not np.array_equal(case.backward()[0], floating)


@pytest.mark.parametrize("scale", [np.exp(-100), 1.0, np.exp(10)], ids=["tiny", "one", "large"])
def test_gradients_stay_finite(device, backend, scale):
    case = make((3, 2, "smoothstep", "float32"), "hash", device, backend)
    case.table *= scale
    case.d_out *= scale
    for values in (case.forward(), case.backward()[0], case.input_gradient()):
        assert np.all(np.isfinite(values))
        assert np.any(values != 0) or scale < 1  # products of tiny numbers may vanish


def test_default_size_has_gradients_on_every_level(device):
    config = resolve(GridEncodingConfig(n_levels=16, finest_resolution=2048))
    encoding = GridEncoding(3, config, device)
    n = 2**18
    rng = np.random.default_rng(8)
    x = wp.array(rng.random(n * 3, dtype=np.float32), device=device)
    n_rows = encoding.n_outputs
    d_out = wp.array(rng.standard_normal(n * n_rows, dtype=np.float32) / n, device=device)
    d_table = wp.zeros(encoding.n_params, dtype=float, device=device)
    encoding.backward(x, d_out, d_table, encoding.make_flags(), n_rows).run()
    table = wp.array(encoding.initial_table(0), device=device)
    dx = wp.zeros(n * 3, dtype=float, device=device)
    encoding.input_gradient(x, d_out, table, dx, n_rows).run()
    gradients = d_table.numpy().reshape(-1, 2)
    assert np.all(np.isfinite(gradients))
    assert np.count_nonzero(dx.numpy()) > 0.99 * n * 3
    for level in encoding.levels:
        part = gradients[level.offset : level.offset + level.size]
        # the finest level is hit by 2^21 corners, at least 0.95 of its 2^19 entries
        assert np.count_nonzero(part[:, 0]) > 0.5 * len(part)
    # and the finest level's are the twin's, at the first 1000 points
    points = x.numpy().reshape(-1, 3, 32).transpose(0, 2, 1).reshape(-1, 3)[:1000]
    features = wp.zeros(n * n_rows, dtype=float, device=device)
    encoding.forward(x, table, features, n_rows).run()
    got = features.numpy().reshape(-1, n_rows, 32).transpose(0, 2, 1).reshape(-1, n_rows)[:1000]
    wanted = grid.forward(
        points, table.numpy().reshape(-1, 2).astype(float), encoding.levels, "hash", "linear"
    )
    # positions are rounded to 2^-13 of a cell; entries lie in +-1e-4
    assert np.abs(got - wanted).max() < 3 * 2e-4 * 2.0**-13


def test_what_a_gpu_reads_must_be_aligned(emulated_cuda):
    grid = GridEncoding(2, small(), "cuda:0")
    n_rows = grid.n_outputs
    x, rows = (wp.zeros(32 * n, dtype=float, device="cuda:0") for n in (2, n_rows))
    shifted = wp.zeros(grid.n_params + 1, dtype=float, device="cuda:0")[1:]
    whole = wp.zeros(grid.n_params, dtype=float, device="cuda:0")
    grid.forward(x, whole, rows, n_rows)
    grid.backward(x, rows, whole, None, n_rows)
    with pytest.raises(ShapeError, match=r"^table must begin at a multiple of 16 bytes"):
        grid.forward(x, shifted, rows, n_rows)
    with pytest.raises(ShapeError, match=r"^d_table must begin at a multiple of 16 bytes"):
        grid.backward(x, rows, shifted, None, n_rows)
