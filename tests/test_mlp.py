"""The fused network against its float64 twin, and the laws of its gradients."""

import numpy as np
import pytest
import warp as wp

from ngp_warp.config import NetworkConfig
from ngp_warp.errors import ConfigError
from ngp_warp.networks.mlp import blocks_per_chunk, make_network
from tests.reference import losses, mlp

# Every width, depth, number of inputs and outputs, activation and loss at least once.
CONFIGS = [
    # n_in, n_neurons, n_hidden_layers, n_out, activation, output_activation, loss
    (32, 64, 2, 16, "relu", "none", "l2"),
    (1, 16, 1, 1, "leaky_relu", "sigmoid", "l1"),
    (3, 32, 3, 3, "sine", "exponential", "relative_l2"),
    (17, 128, 2, 20, "softplus", "tanh", "huber"),
    (100, 64, 1, 4, "tanh", "relu", "mape"),
    (1, 32, 4, 20, "sigmoid", "leaky_relu", "smape"),
    (17, 16, 2, 3, "squareplus", "softplus", "log_l1"),
    (100, 128, 4, 1, "relu", "squareplus", "l2"),
    (3, 16, 1, 20, "exponential", "sine", "huber"),
    (32, 16, 3, 4, "none", "none", "l1"),
    (17, 64, 4, 16, "relu", "softplus", "relative_l2"),
    (32, 128, 1, 3, "relu", "none", "mape"),
]

# float32: each of up to 5 layers sums up to 128 products (random walk, about 11 half eps = 7e-7)
# and applies functions good to 3e-7. Tensor cores round every operand to half precision (2^-11)
# and may flip a ReLU or the sign in a loss.
TOLERANCES = {"cpu": 1e-5, "cuda:0": 5e-2}


class Case:
    """A network, a batch and its arrays on a device; the padding holds large numbers."""

    def __init__(self, config, device, n=77, seed=0, scale=1.0):
        rng = np.random.default_rng(seed)
        n_in, width, n_hidden, n_out, self.activation, self.output_activation, self.loss = config
        self.network = make_network(
            NetworkConfig(
                n_neurons=width,
                n_hidden_layers=n_hidden,
                activation=self.activation,
                output_activation=self.output_activation,
                backend="fused",
            ),
            n_in,
            n_out,
            device,
        )
        self.widths = [n_in] + [width] * n_hidden + [n_out]
        self.weights = self.network.initial_weights(seed)
        self.x = (rng.uniform(-1, 1, (n, n_in)) * scale).astype(np.float32)
        self.target = (rng.uniform(0, 1, (n, n_out)) * scale).astype(np.float32)
        self.dy = rng.normal(size=(n, n_out)).astype(np.float32)
        self.n, self.n_in, self.n_out, self.device = n, n_in, n_out, device
        self.n_blocks = -(-n // 32)

    def array(self, values):
        values = np.ascontiguousarray(values, np.float32).ravel()
        return wp.array(values, dtype=wp.float32, device=self.device)

    def empty(self, n_rows):
        return self.array(np.full((self.n_blocks, n_rows, 32), 3.0))

    def points(self, array, n_rows):
        return mlp.from_blocks(array.numpy().reshape(-1, n_rows, 32), self.n)

    def forward(self):
        y = self.empty(self.n_out)
        x = self.array(mlp.to_blocks(self.x, 1e30))
        for item in self.network.forward(self.array(self.weights), x, y):
            item.run()
        return self.points(y, self.n_out)

    def backward(self):
        """Return dx [n, n_in] and dw."""
        dx, dw = self.empty(self.n_in), self.array(np.full(len(self.weights), 3.0))
        x, dy = self.array(mlp.to_blocks(self.x, 1e30)), self.array(mlp.to_blocks(self.dy))
        for item in self.network.backward(self.array(self.weights), x, dy, dx, dw):
            item.run()
        return self.points(dx, self.n_in), dw.numpy()

    def train(self, loss=None, padding=1e30):
        """Return dx (with the padding), dw, and the sums of the loss and the squared error."""
        dx, dw = self.empty(self.n_in), self.array(np.full(len(self.weights), 3.0))
        x = self.array(mlp.to_blocks(self.x, padding))
        target = self.array(mlp.to_blocks(self.target, padding))
        passes, sums = self.network.train(
            self.array(self.weights), x, target, self.n, loss or self.loss, dx, dw
        )
        for item in passes:
            item.run()
        everything = mlp.from_blocks(dx.numpy().reshape(-1, self.n_in, 32), self.n_blocks * 32)
        return everything, dw.numpy(), sums.numpy().reshape(-1, 2).sum(axis=0)

    def twin_forward(self, weights=None, x=None):
        matrices = mlp.split_weights(self.weights if weights is None else weights, self.widths)
        x = self.x if x is None else x
        return mlp.forward(matrices, x, self.activation, self.output_activation)[0]

    def twin_backward(self, dy):
        matrices = mlp.split_weights(self.weights, self.widths)
        return mlp.backward(matrices, self.x, dy, self.activation, self.output_activation)

    def twin_train(self, loss=None):
        y = self.twin_forward()
        value, gradient = losses.loss(loss or self.loss, y, self.target)
        squares = np.sum((y - self.target) ** 2)
        return *self.twin_backward(gradient / y.size), value.sum(), squares


def error(got, wanted):
    """Norm of the difference over the norm."""
    assert np.all(np.isfinite(got))
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_forward_is_the_twins(device, config):
    case = Case(config, device)
    y = case.forward()
    assert error(y, case.twin_forward()) < TOLERANCES[device]
    # the comparison can fail: another order of weights gives what differs as the points do
    other = case.twin_forward(case.weights[::-1])
    assert np.linalg.norm(y - other) > 0.2 * np.linalg.norm(y - y.mean(axis=0))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_backward_is_the_twins(device, config):
    case = Case(config, device)
    dx, dw = case.backward()
    twin_dx, twin_dw = case.twin_backward(case.dy)
    assert error(dx, twin_dx) < TOLERANCES[device]
    assert error(dw, twin_dw) < TOLERANCES[device]
    assert error(dw, np.roll(twin_dw, 1)) > 0.1
    assert np.count_nonzero(dw) > 0.5 * dw.size


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_train_is_the_twins(device, config):
    case = Case(config, device)
    dx, dw, sums = case.train()
    twin_dx, twin_dw, value, squares = case.twin_train()
    assert error(dx[: case.n], twin_dx) < TOLERANCES[device]
    assert error(dw, twin_dw) < TOLERANCES[device]
    assert np.allclose(sums, [value, squares], rtol=TOLERANCES[device])


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_every_loss_is_the_twins(device, loss):
    case = Case((3, 16, 1, 4, "tanh", "none", loss), device)
    _, dw, sums = case.train()
    _, twin_dw, value, squares = case.twin_train()
    assert error(dw, twin_dw) < TOLERANCES[device]
    assert np.allclose(sums, [value, squares], rtol=TOLERANCES[device])


# 1 block; a whole one; several chunks (of 3 blocks) and the last one shorter
@pytest.mark.parametrize("n", [1, 32, 33, 100 * 32 - 7])
def test_any_number_of_points(device, n):
    case = Case(CONFIGS[0], device, n)
    assert error(case.forward(), case.twin_forward()) < TOLERANCES[device]
    dx, dw, sums = case.train()
    twin_dx, twin_dw, value, squares = case.twin_train()
    assert error(dx[:n], twin_dx) < TOLERANCES[device]
    assert error(dw, twin_dw) < TOLERANCES[device]
    assert np.allclose(sums, [value, squares], rtol=TOLERANCES[device])


def test_chunks_depend_on_the_batch_alone():
    assert [blocks_per_chunk(n) for n in (0, 1, 31, 64, 100, 8192)] == [1, 1, 1, 2, 3, 32]


def test_no_points_are_no_work(device):
    case = Case(CONFIGS[0], device, n=0)
    assert case.forward().shape == (0, 16)


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[3]], ids=str)
def test_padding_counts_for_nothing(device, config):
    case = Case(config, device, n=33)
    dx, dw, sums = case.train(padding=1e30)
    assert np.all(dx[33:] == 0.0)
    other_dx, other_dw, other_sums = case.train(padding=0.0)
    assert np.array_equal(dx, other_dx)
    assert np.array_equal(dw, other_dw)
    assert np.array_equal(sums, other_sums)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_twins_gradient_is_a_difference(config):
    case = Case(config, "cpu")
    rng = np.random.default_rng(1)
    u, v = rng.normal(size=case.weights.shape), rng.normal(size=case.x.shape)
    h = 1e-8
    up = case.twin_forward(case.weights + h * u, case.x + h * v)
    down = case.twin_forward(case.weights - h * u, case.x - h * v)
    dx, dw = case.twin_backward(case.dy)
    wanted = np.sum((up - down) * case.dy) / (2 * h)
    # no kink of a ReLU lies so near to a point
    assert np.sum(dw * u) + np.sum(dx * v) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("loss", ["l2", "l1", "mape", "huber", "log_l1"])
def test_the_twins_loss_gradient_is_a_difference(loss):
    p, t = np.random.default_rng(2).uniform(-2, 2, (2, 500))
    h = 1e-7
    wanted = (losses.loss(loss, p + h, t)[0] - losses.loss(loss, p - h, t)[0]) / (2 * h)
    assert np.allclose(losses.loss(loss, p, t)[1], wanted, rtol=1e-5, atol=1e-5)


def test_relative_losses_hold_their_denominator():
    # (p - t)^2 / (p^2 + 0.01): at p = 0.3, t = 0.1 the denominator is 0.1
    value, gradient = losses.loss("relative_l2", [0.3], [0.1])
    assert value == pytest.approx([0.4])
    assert gradient == pytest.approx([4.0])
    # |p - t| / ((|p| + |t|) / 2 + 0.01) = 0.2 / 0.21
    value, gradient = losses.loss("smape", [0.3], [0.1])
    assert value == pytest.approx([0.2 / 0.21])
    assert gradient == pytest.approx([1 / 0.21])


FINITE = ["none", "relu", "leaky_relu", "sine", "sigmoid", "squareplus", "softplus", "tanh"]


@pytest.mark.parametrize("exponent", [-100, -30, 0, 10])
@pytest.mark.parametrize("activation", FINITE)
def test_values_and_gradients_stay_finite(device, activation, exponent):
    # exponential is not among them: e^(e^10) is no number; see the next test
    case = Case((3, 16, 2, 4, activation, activation, "l2"), device, scale=np.exp(exponent))
    assert np.all(np.isfinite(case.forward()))
    assert all(np.all(np.isfinite(values)) for values in case.backward())
    assert all(np.all(np.isfinite(values)) for values in case.train())


@pytest.mark.parametrize("exponent", [-100, -30, 0, 10])
@pytest.mark.parametrize("loss", losses.LOSSES)
def test_losses_stay_finite(device, loss, exponent):
    case = Case((3, 16, 1, 4, "relu", "none", loss), device, scale=np.exp(exponent))
    assert all(np.all(np.isfinite(values)) for values in case.train())
    case.target[:] = case.forward()  # no error at all
    assert all(np.all(np.isfinite(values)) for values in case.train())


@pytest.mark.parametrize("activation", [*FINITE, "exponential"])
def test_activations_over_all_magnitudes(device, activation):
    if device != "cpu":
        pytest.skip("float32's accuracy; tensor cores are compared in test_mlp_cuda.py")
    magnitudes = np.exp(np.linspace(-100, 10, 200))
    case = Case((1, 16, 1, 1, "none", activation, "l2"), device, n=400)
    case.x = np.concatenate([-magnitudes, magnitudes]).astype(np.float32)[:, None]
    # y = act(1 * 1 * x)
    case.weights[:] = 0
    case.weights[[0, 16]] = 1
    case.dy[:] = 1
    # kernels cap the argument of exp at 88 (e^88 = 1.7e38)
    z = np.minimum(case.x, 88).astype(np.float64) if activation == "exponential" else case.x
    value, slope = (f(np.asarray(z, np.float64)) for f in mlp.ACTIVATIONS[activation])
    # functions of z have a few eps of their value, or of 1 (tanh, softplus and sigmoid subtract);
    # the argument of exp is rounded to eps times up to 88
    exact = {"rtol": 2e-5 if activation == "exponential" else 1e-6, "atol": 5e-7}
    y, (dx, _) = case.forward(), case.backward()
    assert np.all(np.isfinite(y))
    assert np.all(np.isfinite(dx))
    assert np.all(np.abs(y - value) <= exact["atol"] + exact["rtol"] * np.abs(value))
    assert np.all(np.abs(dx - slope) <= 2 * exact["atol"] + exact["rtol"] * np.abs(slope))


def test_initial_weights_are_xaviers(device):
    config = NetworkConfig(n_neurons=128, n_hidden_layers=2)
    network = make_network(config, 100, 20, device)
    weights = network.initial_weights(5)
    assert np.array_equal(weights, network.initial_weights(5))
    assert not np.array_equal(weights, network.initial_weights(6))
    assert (weights.size, weights.dtype) == (network.n_params, np.float32)
    for w in mlp.split_weights(weights, [100, 128, 128, 20]):
        bound = np.sqrt(6 / sum(w.shape))
        # the largest of over 2,000 draws lies within 1% of the bound; the mean near 0
        assert 0.99 * bound < np.abs(w).max() <= bound * (1 + 1e-6)
        assert abs(w.mean()) < 5 * bound / np.sqrt(3 * w.size)


@pytest.mark.parametrize(
    ("settings", "n_in", "reason"),
    [
        ({"n_neurons": 48}, 32, "width 48"),
        ({"bias": True}, 32, "biases"),
        ({"skip_layer": 1}, 32, "skip"),
        ({"n_hidden_layers": 0}, 32, "hidden layers"),
        ({}, 300, "inputs"),
    ],
)
def test_what_cannot_be_fused_is_refused(device, settings, n_in, reason):
    with pytest.raises(ConfigError, match=reason):
        make_network(NetworkConfig(backend="fused", **settings), n_in, 3, device)
