"""The tensor-core network against its float64 twin.

On "cpu" the kernels' own text runs lane by lane on emulated tensor-core instructions (see
ngp_warp/kernels/warp_mma.py), so that the index arithmetic is proven without a GPU.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import warp as wp

from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.kernels import mlp_cuda, mlp_cuda_network
from tests.reference import losses, mlp

CONFIGS = [
    # n_in, n_neurons, n_hidden_layers, n_out, activation, output_activation
    (32, 64, 2, 16, "relu", "none"),
    (3, 16, 1, 1, "sine", "sigmoid"),
    (20, 32, 3, 3, "sigmoid", "exponential"),
    (35, 128, 2, 17, "softplus", "sine"),
    (80, 16, 1, 100, "squareplus", "squareplus"),
    (16, 64, 4, 3, "tanh", "softplus"),
    (7, 32, 2, 5, "exponential", "tanh"),
    (16, 16, 2, 4, "leaky_relu", "relu"),
    (40, 32, 1, 2, "none", "leaky_relu"),
]

# Against the twin that rounds operands to half too, only the float32 order of sums, slopes taken
# from a rounded h (2^-11) and the roundings that these two flip remain: a few 2^-11 = 4.9e-4.
HALF_TWIN = 2e-3
# Against exact arithmetic: each of up to 5 products rounds both operands (2^-11 each), and a ReLU
# or a sign in the loss may flip for a few of the points.
EXACT_TWIN = 5e-2


@pytest.fixture(autouse=True)
def cooperative_blocks(monkeypatch):
    monkeypatch.setattr(wp.config, "enable_cpu_blocks", True)


class Case:
    """A network, a batch and its arrays on a device; the padding holds large numbers."""

    def __init__(self, config, n, device, seed=0, fused=None):
        rng = np.random.default_rng(seed)
        n_in, width, n_hidden, n_out, self.activation, self.output_activation = config
        widths = [n_in] + [width] * n_hidden + [n_out]
        pairs = pairwise(widths)
        scaled = [rng.normal(size=a * b) * np.sqrt(1.0 / a) for a, b in pairs]
        self.weights = np.concatenate(scaled).astype(np.float32)
        self.matrices = mlp.split_weights(self.weights, widths)
        self.x = rng.uniform(-1, 1, (n, n_in)).astype(np.float32)
        self.target = rng.uniform(0, 1, (n, n_out)).astype(np.float32)
        self.n, self.n_out, self.device = n, n_out, device
        self.kernels = mlp_cuda.make_mlp_cuda_kernels(*config)
        if fused is not None:
            self.kernels = replace(self.kernels, fused=fused)
        self.scratch = mlp_cuda.make_scratch(self.kernels, n, device)
        self.w = self.array(self.weights)
        self.bx = self.array(mlp.to_blocks(self.x, 1e30))
        blocks = mlp_cuda.n_blocks(n)
        self.y = wp.zeros((blocks, n_out, 32), dtype=float, device=device)
        self.dx = wp.zeros(self.bx.shape, dtype=float, device=device)
        self.dw = wp.zeros(len(self.weights), dtype=float, device=device)
        self.loss_sums = wp.zeros(blocks * 2, dtype=float, device=device)

    def array(self, values):
        return wp.array(values, dtype=wp.float32, device=self.device)

    def train(self, loss):
        target = self.array(mlp.to_blocks(self.target, 1e30))
        mlp_cuda.train_pass(
            self.kernels, self.w, self.bx, target, self.n, loss, self.dx, self.dw, self.loss_sums,
            self.scratch,
        )  # fmt: skip
        return mlp.from_blocks(self.dx.numpy(), self.n), self.dw.numpy()

    def backward(self, dy, scale, count=None):
        mlp_cuda.backward(
            self.kernels, self.w, self.bx, self.array(mlp.to_blocks(dy, 1e30)), self.n, self.dx,
            self.dw, self.scratch, scale, count,
        )  # fmt: skip
        return mlp.from_blocks(self.dx.numpy(), self.n), self.dw.numpy()

    def forward(self):
        mlp_cuda.forward(self.kernels, self.w, self.bx, self.n, self.y, self.scratch)
        return mlp.from_blocks(self.y.numpy(), self.n)

    def twin(self, half):
        cast = mlp.to_half if half else mlp._exact
        return mlp.forward(self.matrices, self.x, self.activation, self.output_activation, cast)[0]

    def twin_gradients(self, dy, half, scale=1.0):
        casts = (mlp.to_half, lambda d: mlp.to_half(d, scale)) if half else ()
        return mlp.backward(
            self.matrices, self.x, dy, self.activation, self.output_activation, *casts
        )


def error(got, wanted):
    """Norm of the difference over the norm."""
    assert np.all(np.isfinite(got))
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_forward_is_the_twin(device, config):
    case = Case(config, 70, device)
    y = case.forward()
    assert error(y, case.twin(half=True)) < HALF_TWIN
    assert error(y, case.twin(half=False)) < EXACT_TWIN


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_backward_is_the_twin(device, config):
    case = Case(config, 70, device)
    dy = np.random.default_rng(1).normal(size=(70, case.n_out)) / (70 * case.n_out)
    scale = 128.0 * 70 * case.n_out
    dx, dw = case.backward(dy, scale)
    for half, tolerance in ((True, HALF_TWIN), (False, EXACT_TWIN)):
        dx_twin, dw_twin = case.twin_gradients(dy, half, scale)
        assert error(dx, dx_twin) < tolerance
        assert error(dw, dw_twin) < tolerance


@pytest.mark.parametrize("fused", [False, True])
def test_partial_sums_of_many_chunks_add_up(device, fused):
    n = 32 * mlp_cuda_network.CHUNK_BLOCKS * 6 + 5
    assert mlp_cuda_network.slice_chunks(-(-n // 32)) == 7
    case = Case((3, 16, 1, 9, "sine", "sigmoid"), n, device, fused=fused)
    dy = np.random.default_rng(1).normal(size=(n, case.n_out)) / (n * case.n_out)
    scale = 128.0 * n * case.n_out
    _, dw = case.backward(dy, scale)
    _, dw_twin = case.twin_gradients(dy, True, scale)
    assert error(dw, dw_twin) < HALF_TWIN
    assert error(dw[8:], dw_twin[:-8]) > 0.1


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_train_pass_is_the_twin(device, loss):
    case = Case((20, 32, 2, 3, "tanh", "sigmoid"), 77, device)
    dx, dw = case.train(loss)
    value, gradient = losses.loss(loss, case.twin(half=True), case.target)
    count = case.n * case.n_out
    dx_twin, dw_twin = case.twin_gradients(gradient / count, True, 128.0 * count)
    assert error(dx, dx_twin) < HALF_TWIN
    assert error(dw, dw_twin) < HALF_TWIN
    # two sums a block of 32 points, float32
    sums = case.loss_sums.numpy().reshape(-1, 2)
    assert np.allclose(sums[:, 0].sum(), value.sum(), rtol=1e-4)
    assert np.allclose(sums[0, 0], value[:32].sum(), rtol=1e-3)
    squares = (case.twin(half=True) - case.target) ** 2
    assert np.allclose(sums[:, 1].sum(), squares.sum(), rtol=1e-3)


def test_padding_counts_for_nothing(device):
    # 33 points: 31 lanes of padding that hold 1e30
    case = Case((8, 16, 1, 4, "relu", "none"), 33, device)
    _, dw = case.train("l2")
    assert np.all(case.dx.numpy()[1, :, 1:] == 0.0)
    case.bx = case.array(mlp.to_blocks(case.x, 0.0))
    assert np.array_equal(case.train("l2")[1], dw)


def test_inputs_gradient_is_optional(device):
    case = Case((8, 16, 1, 4, "relu", "none"), 40, device)
    _, dw = case.train("huber")
    case.dx = None
    target = case.array(mlp.to_blocks(case.target))
    mlp_cuda.train_pass(case.kernels, case.w, case.bx, target, 40, "huber", None, case.dw,
                        case.loss_sums, case.scratch)  # fmt: skip
    assert np.array_equal(case.dw.numpy(), dw)


def test_batch_size_does_not_push_gradients_out_of_half(device):
    # The same point n times has the gradient of one point, though each delta / n would be denormal.
    case = Case((8, 16, 1, 4, "tanh", "none"), 64, device)
    case.x[:] = case.x[0]
    case.target[:] = case.target[0]
    case.bx = case.array(mlp.to_blocks(case.x))
    _, many = case.train("l2")
    single = Case((8, 16, 1, 4, "tanh", "none"), 1, device)
    single.target[:] = case.target[0]
    _, one = single.train("l2")
    assert error(many, one) < 1e-5  # float32 sums


def test_slices_and_chunks_add_up(device, monkeypatch):
    # 5 slices of 2 chunks, the last one short, against a single slice
    config, n = (8, 16, 2, 4, "tanh", "none"), 9 * 32 + 5
    case = Case(config, n, device, fused=False)
    dx, dw = case.train("l2")
    monkeypatch.setattr(mlp_cuda_network, "SLICE_BLOCKS", 2)
    monkeypatch.setattr(mlp_cuda_network, "CHUNK_BLOCKS", 1)
    sliced = Case(config, n, device, fused=False)
    assert sliced.scratch.activations.shape[0] < case.scratch.activations.shape[0]
    dx_sliced, dw_sliced = sliced.train("l2")
    assert np.array_equal(dx_sliced, dx)
    assert error(dw_sliced, dw) < 1e-5  # float32 sums in another order


def test_overflow_saturates(device):
    case = Case((8, 16, 2, 4, "relu", "none"), 40, device)
    case.w = case.array(case.weights * 1e4)
    dx, dw = case.train("l2")
    assert np.all(np.isfinite(case.forward()))
    assert np.all(np.isfinite(dx))
    assert np.all(np.isfinite(dw))


def test_wrong_arrays_are_refused(device, monkeypatch):
    case = Case((8, 16, 1, 4, "relu", "none"), 40, device)
    with pytest.raises(ShapeError, match=r"x must be float32 of shape \[2, 8, 32\]"):
        mlp_cuda.forward(case.kernels, case.w, case.y, 40, case.y, case.scratch)
    with pytest.raises(ShapeError, match="make_scratch for 4000"):
        mlp_cuda_network.check_scratch(case.kernels, 4000, case.scratch, case.w.device, True)
    with pytest.raises(ConfigError, match="n_neurons must be 16, 32, 64 or 128"):
        mlp_cuda.make_mlp_cuda_kernels(8, 24, 1, 4, "relu", "none")
    if device == "cpu":
        monkeypatch.setattr(wp.config, "enable_cpu_blocks", False)
        with pytest.raises(ShapeError, match="need a CUDA device"):
            case.forward()


@pytest.mark.cuda
@pytest.mark.parametrize("n", [2**18, 2**17 + 7])
def test_large_batches_repeat_and_agree(n):
    if not wp.is_cuda_available():
        pytest.skip("no NVIDIA GPU or driver on this machine")
    case = Case((32, 64, 2, 16, "relu", "none"), n, "cuda:0")
    y = case.forward()
    assert error(y, case.twin(half=True)) < HALF_TWIN
    dx, dw = case.train("l2")
    _, gradient = losses.loss("l2", case.twin(half=True), case.target)
    count = n * case.n_out
    dx_twin, dw_twin = case.twin_gradients(gradient / count, True, 128.0 * count)
    assert error(dx, dx_twin) < HALF_TWIN
    assert error(dw, dw_twin) < HALF_TWIN
    for _ in range(3):
        again = case.train("l2")
        assert np.array_equal(again[0], dx)
        assert np.array_equal(again[1], dw)
    assert np.array_equal(case.forward(), y)


@pytest.mark.cuda
def test_train_pass_is_captured_in_a_graph():
    if not wp.is_cuda_available():
        pytest.skip("no NVIDIA GPU or driver on this machine")
    case = Case((32, 64, 2, 16, "relu", "none"), 1000, "cuda:0")
    _, dw = case.train("l2")
    target = case.array(mlp.to_blocks(case.target))
    with wp.ScopedCapture("cuda:0") as capture:
        mlp_cuda.train_pass(case.kernels, case.w, case.bx, target, 1000, "l2", case.dx, case.dw,
                            case.loss_sums, case.scratch)  # fmt: skip
    case.dw.zero_()
    wp.capture_launch(capture.graph)
    assert np.array_equal(case.dw.numpy(), dw)
