"""A field trained with the eikonal term: exact gradients at every size, and longer slopes' cure."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.config import GridEncodingConfig, NetworkConfig, OptimizerConfig
from ngp_warp.encodings.grid import GridEncoding, resolve
from ngp_warp.errors import ConfigError
from ngp_warp.field import Field
from ngp_warp.kernels.grid import GROUP
from ngp_warp.kernels.grid_portable import FIXED_POINT
from ngp_warp.networks.eikonal_unfused import UnfusedEikonal
from ngp_warp.networks.unfused import UnfusedMLP
from ngp_warp.optimizer import make_table
from tests.grid_case import flags_are, flags_of, inner_points, small
from tests.reference import eikonal, grid, layout, mlp

N = 70
# See test_eikonal_network.py and, for slopes of the grid, test_grid_gradients.py; one point's |g|
# near 1 turns the slopes' error into v's.
TOLERANCE = 3e-4


def make(device, activation="softplus", *, n_outputs=1, size=1.0, deterministic=False, **encoding):
    """A field with table values of O(size) / resolution, so that |g| is O(1)."""
    field = Field(
        3,
        n_outputs,
        encoding=small(**{"interpolation": "smoothstep", **encoding}),
        network=NetworkConfig(n_neurons=16, activation=activation),
        optimizer=OptimizerConfig(),
        seed=1,
        device=device,
        deterministic=deterministic,
    )
    values = np.random.default_rng(2).normal(0, size, field.table.value.size)
    set_table(field, values / 8)
    return field


def set_table(field, values):
    state = {k: a.numpy() for k, a in field.table.state().items()}
    field.table.load({**state, "value": values.astype(np.float32)})


def use_portable(field, fixed_point):
    """Put the kernels that serve CUDA in the place of the CPU's."""
    config = field.encoding.config
    field.encoding = GridEncoding(3, config, "cpu", "portable")
    field.network = UnfusedMLP(field.network.config, field.network.n_in, 1, "cpu", "portable")
    table = field.table.value.numpy()
    field.table = make_table(table, 2, OptimizerConfig(), "cpu", fixed_point=fixed_point)


def batch(field, n=N, margin=1e-3):
    rng = np.random.default_rng(4)
    x = inner_points(rng, n, 3, field.encoding.levels, margin)
    return x, rng.uniform(-1, 1, (n, 1)).astype(np.float32)


def gradients(field, x, target, weight=0.7, loss="l2"):
    """Run a step but for the optimizer: (d_table, flags, dw, loss, squares, residual)."""
    arrays = [
        wp.array(layout.to_blocked(a).ravel(), dtype=wp.float32, device=field.device)
        for a in (x, target)
    ]
    field.optimizer.update = list
    stages, losses, residuals = field.eikonal_train_stages(*arrays, len(x), loss, weight)
    for stage in stages:
        launch.run_all(stage)
    d_table = field.table.gradient.numpy().reshape(field.encoding.n_entries, -1)
    if d_table.dtype == np.int64:
        d_table = d_table / FIXED_POINT
    sums = losses.numpy().reshape(-1, 2).astype(np.float64).sum(axis=0)
    residual = residuals.numpy().astype(np.float64).sum()
    touched = flags_of(field.table.touched, field.device)
    return d_table.copy(), touched, field.weights.gradient.numpy().copy(), *sums, residual


def twin_network(field, w=None):
    c = field.network.config
    widths = [field.encoding.n_outputs] + [c.n_neurons] * c.n_hidden_layers + [1]
    w = field.weights.value.numpy() if w is None else w
    return eikonal.Network(mlp.split_weights(w, widths), c.activation, c.output_activation)


def twin(field, x, target, weight=0.7, loss="l2", table=None, w=None):
    e, network = field.encoding, twin_network(field, w)
    if table is None:
        table = field.table.read.numpy().reshape(e.n_entries, -1)
    kind = e.levels, e.config.grid_type, e.config.interpolation
    return eikonal.training_pass(network, x, table, *kind, target[:, 0], loss, weight)


def away_from_kinks(field, x):
    """Indices of points where no neuron's sum is so near 0 that rounding may turn a ReLU."""
    network = twin_network(field)
    e = field.encoding
    table = field.table.read.numpy().astype(np.float64).reshape(e.n_entries, -1)
    network.value(grid.forward(x, table, e.levels, e.config.grid_type, e.config.interpolation))
    far = [np.abs(z) > 1e-3 * np.abs(z).mean() for z in network.pre]
    return np.flatnonzero(np.hstack(far).all(axis=1))


def error(got, wanted):
    """Norm of the difference over the norm."""
    assert np.all(np.isfinite(got))
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


def check(got, wanted):
    d_table, touched, dw, loss, squares, residual = got
    assert error(d_table, wanted["d_table"]) < TOLERANCE
    assert error(dw, wanted["dw"]) < TOLERANCE
    assert loss == pytest.approx(wanted["loss"], rel=TOLERANCE)
    assert squares == pytest.approx(wanted["squares"], rel=TOLERANCE)
    assert residual == pytest.approx(wanted["residual"], rel=TOLERANCE)
    moved = np.any(d_table.reshape(len(d_table) // GROUP, -1) != 0, axis=1)
    assert touched is None or np.all(touched[moved])
    assert np.any(moved)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_gradients_are_the_twins(device, activation, interpolation, dtype):
    field = make(device, activation, interpolation=interpolation, dtype=dtype)
    x, target = batch(field)
    got, wanted = gradients(field, x, target), twin(field, x, target)
    check(got, wanted)
    # the term is in both, and O(1)
    plain = twin(field, x, target, weight=0.0)
    assert error(got[0], plain["d_table"]) > 0.1
    assert error(got[2], plain["dw"]) > 0.1
    lengths = np.linalg.norm(wanted["g"], axis=1)
    assert 0.1 < np.median(lengths) < 10


@pytest.mark.parametrize("fixed_point", [False, True])
@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_cudas_kernels_give_the_twins_gradients(activation, fixed_point, monkeypatch):
    field = make("cpu", activation)
    use_portable(field, fixed_point)
    monkeypatch.setattr(
        "ngp_warp.field.make_eikonal_network",
        lambda network, n_dims, device: UnfusedEikonal(
            network.config, network.n_in, n_dims, device, "portable"
        ),
    )
    x, target = batch(field)
    check(gradients(field, x, target), twin(field, x, target))


@pytest.mark.parametrize("activation", ["softplus", "sine"])
def test_the_twins_gradients_are_differences(activation):
    field = make("cpu", activation)
    x, target = batch(field, 20)
    wanted, rng, h = twin(field, x, target), np.random.default_rng(5), 1e-6
    table = field.table.value.numpy().astype(np.float64).reshape(-1, 2)
    w = field.weights.value.numpy().astype(np.float64)
    u = rng.normal(size=table.shape)
    ends = [twin(field, x, target, table=table + s * h * u)["total"] for s in (1, -1)]
    assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(np.sum(wanted["d_table"] * u), rel=1e-6)
    u = rng.normal(size=w.shape)
    ends = [twin(field, x, target, w=w + s * h * u)["total"] for s in (1, -1)]
    assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(wanted["dw"] @ u, rel=1e-6)


def test_the_slope_is_that_of_value_and_gradient(device):
    field = make(device)
    x, target = batch(field)
    jacobian = field.value_and_gradient(x)[1][:, 0]
    residual = np.sum((np.linalg.norm(jacobian.astype(np.float64), axis=1) - 1) ** 2)
    # on CUDA queries are half precision
    tolerance = TOLERANCE if device == "cpu" else 5e-2
    assert gradients(field, x, target)[-1] == pytest.approx(residual, rel=tolerance)


def test_without_weight_it_is_a_plain_step(device):
    field = make(device)
    x, target = batch(field)
    field.optimizer.update = list
    d_table, touched, dw, loss, squares, _ = gradients(field, x, target, 0.0)
    field.table.gradient.zero_()
    arrays = [
        wp.array(layout.to_blocked(a).ravel(), dtype=wp.float32, device=device) for a in (x, target)
    ]
    stages, losses = field.train_stages(*arrays, N, "l2")
    for stage in stages:
        launch.run_all(stage)
    tolerance = TOLERANCE if device == "cpu" else 5e-2
    assert error(d_table, field.table.gradient.numpy().reshape(d_table.shape)) < tolerance
    assert error(dw, field.weights.gradient.numpy()) < tolerance
    sums = losses.numpy().reshape(-1, 2).sum(axis=0)
    assert [loss, squares] == pytest.approx(list(sums), rel=tolerance)
    assert flags_are(touched, flags_of(field.table.touched, device))


def test_threads_do_not_matter():
    results = []
    for threads in (1, 3):
        launch.set_num_threads(threads)
        field = make("cpu")
        x = np.random.default_rng(6).random((32 * 70, 3), dtype=np.float32)
        results.append(gradients(field, x, x[:, :1]))
    launch.set_num_threads(None)
    for one, three in zip(*results, strict=True):
        assert np.array_equal(one, three)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_default_size_is_the_twins_at_its_first_points(device, activation):
    encoding = GridEncodingConfig(finest_resolution=2048, interpolation="smoothstep")
    field = Field(
        3,
        1,
        encoding=resolve(encoding),
        network=NetworkConfig(activation=activation),
        optimizer=OptimizerConfig(),
        seed=0,
        device=device,
    )
    n = 2**15
    x = np.random.default_rng(7).random((n, 3), dtype=np.float32)
    target = x[:, :1] - 0.5
    d_table, _, dw, *sums = gradients(field, x, target)
    assert np.all(np.isfinite(d_table))
    assert np.all(np.isfinite(dw))
    assert np.all(np.isfinite(sums))
    for level in field.encoding.levels:
        # the coarsest level has 4096 entries, the finest is hit by 2^18 corners
        part = d_table[level.offset : level.offset + level.size]
        assert np.count_nonzero(part[:, 0]) > 0.2 * len(part)
    field.table.gradient.zero_()
    if field.table.touched is not None:
        field.table.touched.zero_()
    part = away_from_kinks(field, x[:200])
    assert 100 < len(part) < 200
    got = gradients(field, x[part], target[part])
    wanted = twin(field, x[part], target[part])
    assert np.linalg.norm(wanted["d_table"]) > 1e-3
    # positions are rounded to 2^-13 of the finest cell, and smoothstep's slope with them
    assert error(got[0], wanted["d_table"]) < 2e-3
    assert error(got[2], wanted["dw"]) < 2e-3
    assert np.count_nonzero(got[0]) < got[0].size / 2


def sphere(x):
    """Distance to the sphere of radius 0.3 about the cube's centre."""
    return np.linalg.norm(x - 0.5, axis=1, keepdims=True) - 0.3


def fit(device, weight, steps=100, n=2048):
    """Fit the sphere from noisy distances, a fresh batch every step.

    Returns:
        Mean of ||g| - 1| and mean error at other points, and the last batch's mean residual.
    """
    field = Field(
        3,
        1,
        encoding=small(n_levels=3, log2_hashmap_size=12, interpolation="smoothstep"),
        network=NetworkConfig(n_neurons=16, activation="softplus"),
        optimizer=OptimizerConfig(),
        seed=0,
        device=device,
    )
    rng = np.random.default_rng(8)
    x, target = field.zeros(n, 3), field.zeros(n, 1)
    stages, _, residuals = field.eikonal_train_stages(x, target, n, "l2", weight)
    for _ in range(steps):
        points = rng.random((n, 3), dtype=np.float32)
        distances = sphere(points) + rng.normal(0, 0.03, (n, 1))
        x.assign(layout.to_blocked(points).ravel())
        target.assign(layout.to_blocked(distances.astype(np.float32)).ravel())
        field.optimizer.advance().run()
        for stage in stages:
            launch.run_all(stage)
    points = rng.uniform(0.1, 0.9, (1000, 3)).astype(np.float32)
    values, jacobian = field.value_and_gradient(points)
    lengths = np.linalg.norm(jacobian[:, 0], axis=1)
    error_ = np.abs(values - sphere(points)).mean()
    return np.abs(lengths - 1).mean(), error_, residuals.numpy().sum() / n


def test_training_with_the_term_brings_lengths_to_one(device):
    plain, term = fit(device, 0.0), fit(device, 0.03)
    assert term[0] < 0.6 * plain[0]
    assert term[2] < 0.3 * plain[2]
    # and the field is still the sphere's distance, to a tenth of its radius
    assert term[1] < 0.03


def test_errors_name_what_is_wrong(device):
    field = make(device)
    x, target = field.zeros(32, 3), field.zeros(32, 1)
    with pytest.raises(ConfigError, match="eikonal_weight must be at least 0, got -1"):
        field.eikonal_train_stages(x, target, 32, "l2", -1.0)
    with pytest.raises(ConfigError, match="1 output, this one has 2"):
        make(device, n_outputs=2).eikonal_train_stages(x, field.zeros(32, 2), 32, "l2", 0.1)
    with pytest.raises(ConfigError, match="got nearest"):
        make(device, interpolation="nearest").eikonal_train_stages(x, target, 32, "l2", 0.1)
