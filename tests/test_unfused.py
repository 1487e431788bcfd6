"""The layer-by-layer network against its float64 twin and the fused network, and its laws."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.config import NetworkConfig
from ngp_warp.errors import ConfigError
from ngp_warp.networks import unfused
from ngp_warp.networks.mlp import FusedMLP, make_network
from ngp_warp.networks.unfused import UnfusedMLP
from tests.reference import losses, mlp

# n_in, n_out, and settings: every size of register tile, biases, skips, no hidden layer
CASES = [
    (32, 16, {"n_neurons": 64}),
    (3, 1, {"n_neurons": 1, "n_hidden_layers": 1, "activation": "tanh", "bias": True}),
    (5, 7, {"n_hidden_layers": 0, "bias": True, "output_activation": "sigmoid"}),
    (37, 3, {"n_neurons": 70, "n_hidden_layers": 4, "skip_layer": 2, "bias": True}),
    (63, 4, {"n_neurons": 130, "n_hidden_layers": 3, "skip_layer": 1, "activation": "softplus"}),
    (
        18,
        5,
        {
            "n_neurons": 24,
            "n_hidden_layers": 3,
            "skip_layer": 2,
            "bias": True,
            "activation": "sine",
            "output_activation": "sine",
        },
    ),
    (300, 290, {"n_neurons": 17, "n_hidden_layers": 1, "output_activation": "relu"}),
]
ACTIVATIONS = sorted(mlp.ACTIVATIONS)
# float32 sums of up to 300 O(1) products through up to 5 layers, and exp's 3e-7
TOLERANCE = 2e-5


@pytest.fixture(params=["auto", "portable"])
def backend(request):
    return request.param


class Case:
    """A network, a batch of n points and its arrays on a device; the padding repeats 0.5."""

    def __init__(self, case, device, backend="auto", n=70, seed=0):
        self.n_in, self.n_out, settings = case
        self.config = NetworkConfig(**settings, backend="unfused")
        self.network = UnfusedMLP(self.config, self.n_in, self.n_out, device, backend)
        self.n, self.device = n, device
        rng = np.random.default_rng(seed)
        self.w = self.network.initial_weights(seed)
        # biases start at zero, and would be no test
        self.w = self.w + 0.1 * rng.normal(size=self.w.size).astype(np.float32)
        self.x = rng.uniform(-1, 1, (n, self.n_in)).astype(np.float32)
        self.target = rng.uniform(0, 1, (n, self.n_out)).astype(np.float32)
        self.blocks = -(-n // 32)

    def array(self, values, fill=0.0):
        return wp.array(mlp.to_blocks(values, fill).ravel(), dtype=wp.float32, device=self.device)

    def zeros(self, size, value=np.nan):
        return wp.full(size, value, dtype=wp.float32, device=self.device)

    def weights(self):
        return wp.array(self.w, dtype=wp.float32, device=self.device)

    def unblock(self, array, rows):
        return mlp.from_blocks(array.numpy().reshape(-1, rows, 32), self.n)

    def forward(self):
        y = self.zeros(self.blocks * self.n_out * 32)
        run(self.network.forward(self.weights(), self.array(self.x, 0.5), y))
        return self.unblock(y, self.n_out)

    def backward(self, dy):
        dx, dw = self.zeros(self.blocks * self.n_in * 32), self.zeros(self.network.n_params)
        arrays = self.weights(), self.array(self.x, 0.5), self.array(dy), dx, dw
        run(self.network.backward(*arrays))
        return self.unblock(dx, self.n_in), dw.numpy()

    def train(self, loss="l2"):
        dx, dw = self.zeros(self.blocks * self.n_in * 32), self.zeros(self.network.n_params)
        items, sums = self.network.train(
            self.weights(), self.array(self.x, 0.5), self.array(self.target, 1e30), self.n, loss,
            dx, dw,
        )  # fmt: skip
        run(items)
        sums = sums.numpy().reshape(-1, 2).sum(axis=0)
        return self.unblock(dx, self.n_in), dw.numpy(), sums

    def twin(self, x=None, w=None):
        x = np.asarray(self.x if x is None else x, np.float64)
        return mlp.forward(*self._split(x, self.w if w is None else w), **self._extra(w))[0]

    def twin_gradients(self, dy):
        matrices, x, *names = self._split(np.asarray(self.x, np.float64), self.w)
        return mlp.backward(matrices, x, dy, *names, **self._extra(None))

    def _parameters(self, w):
        c = self.config
        return mlp.split_parameters(
            w, self.n_in, c.n_neurons, c.n_hidden_layers, self.n_out, c.bias, c.skip_layer
        )

    def _split(self, x, w):
        return self._parameters(w)[0], x, self.config.activation, self.config.output_activation

    def _extra(self, w):
        biases = self._parameters(self.w if w is None else w)[1]
        return {"biases": biases, "skip_layer": self.config.skip_layer}


def run(items):
    for item in items:
        item.run()


def error(got, wanted):
    """Norm of the difference over the norm."""
    assert np.all(np.isfinite(got))
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_is_the_twin(case, device, backend):
    it = Case(case, device, backend)
    y = it.forward()
    assert error(y, it.twin()) < TOLERANCE
    assert error(np.roll(y, 1, axis=0), it.twin()) > 100 * TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_backward_is_the_twin(case, device, backend):
    it = Case(case, device, backend)
    dy = np.random.default_rng(1).normal(size=(it.n, it.n_out))
    dx, dw = it.backward(dy)
    dx_twin, dw_twin = it.twin_gradients(dy)
    assert error(dx, dx_twin) < TOLERANCE
    assert error(dw, dw_twin) < TOLERANCE
    assert error(np.roll(dw, 1), dw_twin) > 100 * TOLERANCE


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_the_twin(name, device, backend):
    case = (9, 6, {"n_neurons": 12, "activation": name, "output_activation": name})
    it = Case(case, device, backend)
    dy = np.random.default_rng(1).normal(size=(it.n, it.n_out))
    assert error(it.forward(), it.twin()) < TOLERANCE
    for got, wanted in zip(it.backward(dy), it.twin_gradients(dy), strict=True):
        assert error(got, wanted) < TOLERANCE


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_train_is_forward_loss_backward(loss, device, backend):
    it = Case(CASES[3], device, backend)
    dx, dw, sums = it.train(loss)
    value, gradient = losses.loss(loss, it.twin(), it.target)
    dx_twin, dw_twin = it.twin_gradients(gradient / gradient.size)
    assert error(dx, dx_twin) < 10 * TOLERANCE  # a relative loss magnifies by up to 1 / 0.01
    assert error(dw, dw_twin) < 10 * TOLERANCE
    assert np.allclose(sums, [value.sum(), ((it.twin() - it.target) ** 2).sum()], rtol=1e-4)


@pytest.mark.parametrize("case", [CASES[3], CASES[5]], ids=str)
def test_twin_is_the_slope_of_itself(case):
    it = Case(case, "cpu", n=8)
    direction = np.random.default_rng(2)
    dy = direction.normal(size=(it.n, it.n_out))
    dx, dw = it.twin_gradients(dy)
    h = 1e-6
    u = direction.normal(size=it.x.shape)
    slope = (dy * (it.twin(it.x + h * u) - it.twin(it.x - h * u))).sum() / (2 * h)
    assert slope == pytest.approx((dx * u).sum(), rel=1e-6)
    u, w = direction.normal(size=it.w.shape), it.w.astype(np.float64)
    slope = (dy * (it.twin(w=w + h * u) - it.twin(w=w - h * u))).sum() / (2 * h)
    assert slope == pytest.approx((dw * u).sum(), rel=1e-6)


@pytest.mark.parametrize("width", [16, 32, 64, 128])
def test_unfused_is_fused(width):
    case = (20, 5, {"n_neurons": width, "n_hidden_layers": 3, "output_activation": "sigmoid"})
    one = Case(case, "cpu", n=200)
    other = Case(case, "cpu", n=200)
    other.network = FusedMLP(other.config, 20, 5, "cpu")
    assert one.network.n_params == other.network.n_params
    assert np.array_equal(one.network.initial_weights(3), other.network.initial_weights(3))
    assert error(one.forward(), other.forward()) < 1e-6
    for got, wanted in zip(one.train("huber"), other.train("huber"), strict=True):
        assert error(got, wanted) < TOLERANCE


def test_threads_do_not_matter():
    results = []
    for threads in (1, 3):
        launch.set_num_threads(threads)
        results.append(Case(CASES[3], "cpu", n=32 * 70).train())
    launch.set_num_threads(None)
    for one, three in zip(*results, strict=True):
        assert np.array_equal(one, three)


def test_padding_counts_for_nothing(device, backend):
    it = Case(CASES[3], device, backend)
    dx, dw, sums = it.train()
    it.array = lambda values, fill=0.0: Case.array(it, values, -3.0 if fill == 0.5 else fill)
    for got, wanted in zip(it.train(), (dx, dw, sums), strict=True):
        assert np.array_equal(got, wanted)


def test_slices_add_up(device, backend, monkeypatch):
    whole = Case(CASES[3], device, backend, n=32 * 9 + 5)
    wanted = whole.train()
    y = whole.forward()
    monkeypatch.setattr(unfused, "_SLICE_MIN_BLOCKS", 2)
    monkeypatch.setattr(whole.network._kernels, "SLICE_FLOATS", 1)
    sliced = Case(CASES[3], device, backend, n=32 * 9 + 5)
    assert len(sliced.network._slices(sliced.array(sliced.x), 1)[1]) == 5
    assert np.array_equal(sliced.forward(), y)
    got = sliced.train()
    assert np.array_equal(got[0], wanted[0])
    assert error(got[1], wanted[1]) < 1e-6  # float32 sums in another order
    assert np.array_equal(got[2], wanted[2])


def test_biases_start_at_zero_and_weights_within_xavier_bounds():
    network = UnfusedMLP(NetworkConfig(n_neurons=40, bias=True), 7, 3, "cpu")
    matrices, biases = mlp.split_parameters(network.initial_weights(0), 7, 40, 2, 3, True)
    for w, b in zip(matrices, biases, strict=True):
        bound = np.sqrt(6 / sum(w.shape))
        assert np.all(b == 0.0)
        assert 0.8 * bound < np.abs(w).max() <= bound


def test_make_network_chooses():
    fused, plain = NetworkConfig(), NetworkConfig(backend="unfused")
    assert isinstance(make_network(fused, 32, 3, "cpu"), FusedMLP)
    assert isinstance(make_network(plain, 32, 3, "cpu"), UnfusedMLP)
    for settings in ({"n_neurons": 256}, {"bias": True}, {"n_hidden_layers": 0}):
        network = make_network(NetworkConfig(**settings), 32, 3, "cpu")
        assert isinstance(network, UnfusedMLP)
    with pytest.raises(ConfigError, match="fused cannot run biases"):
        make_network(NetworkConfig(bias=True, backend="fused"), 32, 3, "cpu")
    with pytest.raises(ConfigError, match="vector backend runs on a CPU"):
        UnfusedMLP(NetworkConfig(), 3, 3, "cuda:0", backend="vector")
