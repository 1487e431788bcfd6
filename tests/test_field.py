"""A field: queries from any array, Jacobians, and training, against the composed twins."""

import numpy as np
import pytest

from ngp_warp import launch
from ngp_warp.config import NetworkConfig, OptimizerConfig
from ngp_warp.errors import ShapeError
from ngp_warp.field import Field, query_points
from ngp_warp.samplers import sample
from tests.grid_case import along, inner_points, small
from tests.reference import grid, layout, mlp

# float32 against float64: see test_mlp.py (and test_grid.py for the positions' rounding)
TOLERANCES = {"cpu": 2e-5, "cuda:0": 5e-2}


def make(device, n_dims=2, n_outputs=3, optimizer=None, size=1.0, **encoding):
    """A smooth field with table values and outputs of O(size)."""
    network = NetworkConfig(n_neurons=16, n_hidden_layers=2, activation="tanh")
    field = Field(
        n_dims,
        n_outputs,
        encoding=small(**encoding),
        network=network,
        optimizer=optimizer or OptimizerConfig(),
        seed=1,
        device=device,
    )
    table = np.random.default_rng(2).normal(0, size, field.table.value.size).astype(np.float32)
    field.table.load({**{k: a.numpy() for k, a in field.table.state().items()}, "value": table})
    return field


def twin(field, x):
    """Values of the field at x [n, n_dims], float64."""
    encoding = field.encoding
    table = field.table.read.numpy().astype(np.float64).reshape(encoding.n_entries, -1)
    config = encoding.config
    features = grid.forward(x, table, encoding.levels, config.grid_type, config.interpolation)
    matrices = mlp.split_weights(
        field.weights.value.numpy(), [encoding.n_outputs, 16, 16, field.n_outputs]
    )
    return mlp.forward(matrices, features, "tanh", "none")[0]


def error(got, wanted):
    """Norm of the difference over the norm."""
    assert np.all(np.isfinite(got))
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_query_is_the_twins(device, n_dims, dtype):
    field = make(device, n_dims, dtype=dtype)
    x = np.random.default_rng(3).random((100, n_dims), dtype=np.float32)
    values = field.query(x)
    assert (values.shape, values.dtype) == ((100, 3), np.float32)
    assert error(values, twin(field, x)) < TOLERANCES[device]
    assert error(values, np.roll(twin(field, x), 1, axis=0)) > 0.1


@pytest.mark.parametrize("n", [0, 1, 31, 33])
def test_any_number_of_points(device, n):
    field = make(device)
    x = np.random.default_rng(4).random((100, 2), dtype=np.float32)
    values, jacobian = field.value_and_gradient(x[:n])
    assert values.shape == (n, 3)
    assert jacobian.shape == (n, 3, 2)
    assert np.array_equal(values, field.query(x)[:n])
    assert np.array_equal(jacobian, field.value_and_gradient(x)[1][:n])


def test_more_points_than_a_pass(device):
    field = make(device)
    size = query_points(device)
    x = np.random.default_rng(5).random((size + 4_000, 2), dtype=np.float32)
    values, jacobian = field.value_and_gradient(x)
    part = slice(size - 10, size + 10)
    assert np.array_equal(values[part], field.query(x[part]))
    assert np.array_equal(jacobian[part], field.value_and_gradient(x[part])[1])
    assert np.array_equal(values, field.query(x))


def test_arrays_of_any_kind(device):
    field = make(device)
    x = np.random.default_rng(6).integers(0, 17, (50, 2)) / 16
    wanted = field.query(x.astype(np.float32))
    wide = np.zeros((100, 4))
    wide[::2, ::2] = x
    arrays = [
        x, x.astype(np.float16), np.asfortranarray(x), wide[::2, ::2], x[::-1][::-1],
        x.astype(">f8"), x.tolist(),
    ]  # fmt: skip
    for array in arrays:
        assert np.array_equal(field.query(array), wanted)
    corners = np.array([[0, 1], [1, 1], [0, 0]])
    for dtype in (np.int64, np.int32, np.uint8):
        assert np.array_equal(
            field.query(corners.astype(dtype)), field.query(corners.astype(np.float32))
        )
    read_only = x.astype(np.float32)
    read_only.flags.writeable = False
    assert np.array_equal(field.query(read_only), wanted)


def test_tensors_of_any_kind(device):
    import torch

    field = make(device)
    x = torch.randint(0, 17, (50, 2), generator=torch.Generator().manual_seed(0)) / 16
    wanted = field.query(x.numpy())
    wide = torch.zeros(2, 50)
    wide[:] = x.T
    for tensor in (x, x.double(), x.half(), x.bfloat16(), wide.T, x.clone().requires_grad_()):
        values = field.query(tensor)
        assert isinstance(values, torch.Tensor)
        assert (values.dtype, values.device) == (torch.float32, tensor.device)
        assert np.array_equal(values.numpy(), wanted)
    assert torch.equal(
        field.query(torch.ones(3, 2, dtype=torch.int64)), field.query(torch.ones(3, 2))
    )
    values, jacobian = field.value_and_gradient(x)
    assert np.array_equal(values.numpy(), wanted)
    assert jacobian.shape == (50, 3, 2)


def test_results_belong_to_the_caller(device):
    field = make(device)
    x = np.random.default_rng(7).random((40, 2), dtype=np.float32)
    before = x.copy()
    first = field.query(x)
    kept = first.copy()
    field.query(1 - x)
    assert np.array_equal(first, kept)
    assert np.array_equal(x, before)


def test_any_position_is_clamped(device):
    field = make(device)
    wild = np.array([[np.nan, 0.5], [-np.inf, 2.0], [1e300, -1e300], [0.5, np.inf]])
    clamped = np.array([[0, 0.5], [0, 1], [1, 0], [0.5, 1]])
    assert np.array_equal(field.query(wild), field.query(clamped))
    assert np.all(np.isfinite(field.value_and_gradient(wild)[1]))


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((5, 3)),
        np.zeros(2),
        np.zeros((1, 5, 2)),
        np.float32(1),
        np.zeros((5, 2), complex),
        np.zeros((5, 2), bool),
        np.full((5, 2), "a"),
        np.full((5, 2), None),
        [[0.0, 1.0], [0.5]],
        None,
    ],
    ids=lambda p: f"{type(p).__name__}",
)
def test_wrong_points_are_refused(device, points):
    field = make(device)
    for method in (field.query, field.value_and_gradient):
        with pytest.raises(ShapeError, match="points must"):
            method(points)


@pytest.mark.parametrize("dtype", ["float32", "bool", "complex64"])
def test_wrong_tensors_are_refused(device, dtype):
    import torch

    points = torch.zeros(5, 3 if dtype == "float32" else 2, dtype=getattr(torch, dtype))
    with pytest.raises(ShapeError, match="points must"):
        make(device).query(points)


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_the_jacobian_is_a_difference(device, n_dims, interpolation):
    field = make(device, n_dims, interpolation=interpolation)
    x = inner_points(np.random.default_rng(8), 40, n_dims, field.encoding.levels, margin=0.1)
    _, jacobian = field.value_and_gradient(x)
    for d in range(n_dims):
        axis = np.eye(n_dims)[d]
        exact = along(lambda y: twin(field, y), x, axis)
        assert error(jacobian[..., d], exact) < 3 * TOLERANCES[device]
        # of the field's own values: h is 1/32 of the finest cell, so that h^2 times the third
        # derivative (about 31^3) and eps / h both stay below 1% of slopes of about 31
        h = 2.0**-10
        own = (field.query(x + h * axis) - field.query(x - h * axis)) / (2 * h)
        assert error(jacobian[..., d], own) < max(0.02, 20 * TOLERANCES[device])
    assert np.abs(jacobian).mean() > 1.0


def test_training_fits_a_function(device):
    field = make(device, size=1e-2, optimizer=OptimizerConfig(ema_decay=0.5))
    n = 1024
    x, target = field.zeros(n, 2), field.zeros(n, 3)
    draw = sample("stratified", 2, 0, field.optimizer.step, x, device)
    stages, sums = field.train_stages(x, target, n, "l2")
    errors = []
    for _ in range(150):
        draw.run()
        points = layout.from_blocked(x.numpy().reshape(-1, 2, 32), n)
        values = np.stack([points[:, 0], points[:, 1] ** 2, points.sum(axis=1)], axis=1)
        target.assign(layout.to_blocked(values).ravel())
        field.optimizer.advance().run()
        for stage in stages:
            launch.run_all(stage)
        errors.append(sums.numpy().reshape(-1, 2).sum(axis=0)[1] / (3 * n))
    assert errors[-1] < errors[0] / 100
    last = field.query(points)
    average = field.optimizer.averaged(field.table)
    field.use_average()
    assert np.array_equal(field.table.value.numpy(), average)
    assert not np.array_equal(field.query(points), last)
    assert np.mean((field.query(points) - values) ** 2) < errors[0] / 100


def test_evaluation_is_a_query(device):
    field = make(device)
    points = np.random.default_rng(9).random((64, 2), dtype=np.float32)
    x, y = field.zeros(64, 2), field.zeros(64, 3)
    x.assign(layout.to_blocked(points).ravel())
    for stage in field.evaluation_stages(x, y):
        launch.run_all(stage)
    assert np.array_equal(
        layout.from_blocked(y.numpy().reshape(-1, 3, 32), 64), field.query(points)
    )


def test_a_seed_gives_the_initial_values(device):
    def values(seed):
        field = Field(
            2, 1, encoding=small(), network=NetworkConfig(), optimizer=OptimizerConfig(),
            seed=seed, device=device,
        )  # fmt: skip
        assert field.n_params == field.weights.value.size + field.table.value.size
        return [p.value.numpy().copy() for p in field.parameters().values()]

    for same, again, other in zip(values(1), values(1), values(2), strict=True):
        assert np.array_equal(same, again)
        assert not np.array_equal(same, other)
    table = values(1)[1]
    # uniform in +-1e-4
    assert 0.99e-4 < np.abs(table).max() <= 1e-4
