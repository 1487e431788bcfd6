"""The grid encoding forwards: against its float64 twin, and the laws that it must keep."""

import numpy as np
import pytest
import warp as wp

from ngp_warp.encodings.grid import GridEncoding
from ngp_warp.errors import ConfigError
from tests.grid_case import GridCase, small
from tests.reference import layout

# Every pair of features and interpolation, and of either with dimensions and dtype.
SHAPES = [
    (2, 1, "linear", "float32"),
    (3, 1, "smoothstep", "float16"),
    (2, 1, "nearest", "float16"),
    (3, 2, "linear", "float32"),
    (2, 2, "linear", "float32"),
    (2, 2, "smoothstep", "float32"),
    (3, 2, "nearest", "float32"),
    (3, 2, "linear", "float16"),
    (2, 4, "linear", "float16"),
    (3, 4, "smoothstep", "float32"),
    (3, 4, "nearest", "float32"),
    (3, 8, "linear", "float32"),
    (2, 8, "smoothstep", "float16"),
    (2, 8, "nearest", "float32"),
]

# A position at the finest level (scale 31) is rounded to 2^-19 of a cell; between corners of at
# most 4 in size the features' slope is at most 8 an axis (12 for smoothstep), of three axes.
TOLERANCE = 36 * 2.0**-19


def make(shape, grid_type, device, backend, **changes):
    n_dims, n_features, interpolation, dtype = shape
    config = small(
        n_features_per_level=n_features,
        interpolation=interpolation,
        dtype=dtype,
        grid_type=grid_type,
        **changes,
    )
    return GridCase(n_dims, config, device, backend)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_features_are_the_twins(device, backend, shape):
    for grid_type in ("hash", "dense", "tiled"):
        case = make(shape, grid_type, device, backend)
        features = case.forward()
        assert np.abs(features - case.twin_forward()).max() < TOLERANCE
        # the comparison can fail
        rolled = case.twin_forward(table=np.roll(case.table, 1, axis=0))
        assert np.abs(features - rolled).max() > 0.5
        if grid_type == "hash":
            other = case.twin_forward(primes=(1, 2654435759, 805459861))
            assert np.abs(features - other).max() > 0.5


def test_several_items_of_work(device, backend):
    # 70 blocks: the vector kernel's items are runs of 64
    config = small()
    case = GridCase(2, config, device, backend, n=70 * 32 - 5)
    assert np.abs(case.forward() - case.twin_forward()).max() < TOLERANCE


def test_rows_of_auxiliary_inputs_are_left_alone(device, backend):
    case = GridCase(2, small(), device, backend)
    out = case.forward(n_extra_rows=3)
    assert np.array_equal(out[:, :-3], case.forward())
    assert np.all(out[:, -3:] == 7.0)


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep", "nearest"])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_a_constant_table_gives_constant_features(device, backend, n_dims, interpolation):
    case = GridCase(n_dims, small(interpolation=interpolation), device, backend)
    case.table[:] = (3.0, -0.5)
    case.x[:4] = [[0.0] * n_dims, [1.0] * n_dims, [0.5] * n_dims, [1e-30] * n_dims]
    # the weights sum to 1 within a rounding for each factor: 8 eps
    assert np.allclose(case.forward(), [3.0, -0.5] * 4, rtol=1e-6, atol=0)


def evaluate(encoding, table, x, device):
    blocked = layout.to_blocked(np.asarray(x, np.float32))
    out = wp.zeros(len(blocked) * 32 * encoding.n_outputs, dtype=float, device=device)
    arrays = [wp.array(a.ravel(), dtype=float, device=device) for a in (blocked, table)]
    encoding.forward(*arrays, out, encoding.n_outputs).run()
    return layout.from_blocked(out.numpy().reshape(-1, encoding.n_outputs, 32), len(x))


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
def test_features_are_continuous_across_faces(device, backend, interpolation):
    # one level of scale 16: faces at (k + 0.5) / 16, exact in float32
    config = small(n_levels=1, base_resolution=17, interpolation=interpolation)
    encoding = GridEncoding(2, config, device, backend)
    rng = np.random.default_rng(3)
    table = rng.normal(size=encoding.n_params).astype(np.float32)
    on = np.stack([(np.arange(16) + 0.5) / 16, rng.random(16)], axis=1).astype(np.float32)
    below = on.copy()
    below[:, 0] = np.nextafter(on[:, 0], np.float32(0))
    # eps of position times scale 16 times a slope of at most 8 at O(1) entries
    jump = np.abs(evaluate(encoding, table, on, device) - evaluate(encoding, table, below, device))
    assert jump.max() < 16 * 8 * 6e-8 * 2
    # and the face is one: a tenth of a cell further the features are others
    on[:, 0] += 0.1 / 16
    moved = evaluate(encoding, table, on, device) - evaluate(encoding, table, below, device)
    assert np.abs(moved).max() > 0.05


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("grid_type", ["hash", "dense", "tiled"])
def test_any_position_is_clamped(device, backend, grid_type, n_dims):
    encoding = GridEncoding(n_dims, small(grid_type=grid_type), device, backend)
    table = np.random.default_rng(4).normal(size=encoding.n_params).astype(np.float32)
    wild = [np.nan, -np.nan, np.inf, -np.inf, -1e-3, -5.0, 1.001, 3e38, -3e38, -0.0]
    clamped = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    for axis in range(n_dims):
        x, y = np.full((2, len(wild), n_dims), 0.3)
        x[:, axis], y[:, axis] = wild, clamped
        features = evaluate(encoding, table, x, device)
        assert np.all(np.isfinite(features))
        assert np.array_equal(features, evaluate(encoding, table, y, device))


def test_forward_is_linear_in_the_table(device, backend):
    case = GridCase(3, small(interpolation="smoothstep"), device, backend)
    other = GridCase(3, small(interpolation="smoothstep"), device, backend, seed=1)
    other.x = case.x
    first, second = case.forward(), other.forward()
    case.table = case.table + 2 * other.table
    # 8 products of O(1) and O(2) values: 8 eps of 10
    assert np.allclose(case.forward(), first + 2 * second, rtol=0, atol=1e-5)


def test_finest_levels_past_16_bits(device, backend):
    # Positions on a lattice of 2^-10 are exact, and so is their product with the scale 2^17
    config = small(n_levels=1, base_resolution=2**17 + 1, log2_hashmap_size=12)
    case = GridCase(2, config, device, backend)
    case.x = (np.random.default_rng(5).integers(1, 1024, case.x.shape) / 1024).astype(np.float32)
    case.x[0], case.x[1] = 1.0, 1.0 - 2.0**-17
    assert case.levels[0].scale == 2.0**17
    assert np.allclose(case.forward(), case.twin_forward(), rtol=0, atol=1e-5)


def test_the_vector_backend_is_for_a_cpu():
    with pytest.raises(ConfigError, match="vector"):
        GridEncoding(2, small(), "cuda:0", "vector")


def test_points_that_do_not_count_are_left_out(device):
    case = GridCase(3, small(), device, "portable", n=100)
    encoding = case.encoding
    out = wp.full(128 * encoding.n_outputs, 7.0, dtype=float, device=device)
    count = wp.array([70], dtype=int, device=device)
    args = case.blocked(case.x), case.read(), out, encoding.n_outputs
    encoding.forward(*args, count).run()
    rows = out.numpy().reshape(4, -1, 32).transpose(0, 2, 1).reshape(128, -1)
    assert np.array_equal(rows[:70], case.forward()[:70])
    assert np.all(rows[70:] == 7)
    count.fill_(128)
    encoding.forward(*args, count).run()
    rows = out.numpy().reshape(4, -1, 32).transpose(0, 2, 1).reshape(128, -1)
    assert np.array_equal(rows[:100], case.forward()[:100])
