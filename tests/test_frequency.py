"""The frequency encoding against its float64 twin, and its laws."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.encodings import frequency as encodings
from ngp_warp.encodings.frequency import FrequencyEncoding
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.kernels import frequency as kernels
from tests.reference import frequency
from tests.reference.mlp import from_blocks, to_blocks

# n_dims, n_frequencies, identity: the paper's two, and odd ones
CASES = [(3, 10, True), (3, 4, True), (3, 16, False), (2, 1, False), (1, 3, True), (5, 0, True)]
# a polynomial's 3e-8, and a few roundings of values up to 1
TOLERANCE = 4e-7


def array(values, device):
    return wp.array(to_blocks(values).ravel(), dtype=wp.float32, device=device)


def points(n, n_dims, seed=0):
    return np.random.default_rng(seed).uniform(-2, 2, (n, n_dims)).astype(np.float32)


def encode(case, x, device):
    n_dims, n_frequencies, identity = case
    encoding = FrequencyEncoding(n_dims, n_frequencies, device, identity=identity)
    source = array(x, device)
    y = wp.full(source.size // n_dims * encoding.n_outputs, np.nan, dtype=float, device=device)
    encoding.forward(source, y).run()
    return from_blocks(y.numpy().reshape(-1, encoding.n_outputs, 32), len(x))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_is_the_twin(case, device):
    x = points(70, case[0])
    wanted = frequency.encode(x, *case[1:])
    got = encode(case, x, device)
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() < TOLERANCE
    assert np.abs(got - frequency.encode(x + 1e-3, *case[1:])).max() > 100 * TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_is_the_twin(case, device):
    n_dims, n_frequencies, identity = case
    encoding = FrequencyEncoding(n_dims, n_frequencies, device, identity=identity)
    x = points(70, n_dims)
    dy = np.random.default_rng(1).normal(size=(70, encoding.n_outputs)).astype(np.float32)
    source = array(x, device)
    dx = wp.full(source.size, np.nan, dtype=float, device=device)
    encoding.backward(source, array(dy, device), dx).run()
    got = from_blocks(dx.numpy().reshape(-1, n_dims, 32), 70)
    wanted = frequency.input_gradient(x, dy, n_frequencies, identity)
    largest = 2.0 ** max(n_frequencies - 1, 0) * np.pi
    assert np.abs(got - wanted).max() < 10 * TOLERANCE * largest
    assert np.abs(np.roll(got, 1, axis=0) - wanted).max() > 1000 * TOLERANCE * largest


def test_twin_is_the_slope_of_itself():
    x, h = points(9, 3), 1e-6
    rng = np.random.default_rng(2)
    dy, u = rng.normal(size=(9, 27)), rng.normal(size=(9, 3))
    slope = (dy * (frequency.encode(x + h * u, 4) - frequency.encode(x - h * u, 4))).sum() / (2 * h)
    assert slope == pytest.approx((frequency.input_gradient(x, dy, 4) * u).sum(), rel=1e-6)


def test_sine_and_cosine_lie_on_the_circle_and_repeat(device):
    x = points(96, 3)
    y = encode((3, 10, False), x, device).reshape(96, 10, 2, 3)
    assert np.abs((y**2).sum(axis=2) - 1).max() < 1e-6
    # exact multiples of 1/64, so that x + 2 is no other fraction of a turn
    x = np.round(x * 64) / 64
    assert np.array_equal(encode((3, 10, False), x, device), encode((3, 10, False), x + 2, device))


def test_quarter_turns_are_exact(device):
    x = (np.arange(-16, 17) / 8).astype(np.float32)[:, None]
    y = encode((1, 3, False), x, device)
    assert set(np.unique(np.abs(y[:, 4:]))) == {0.0, 1.0}


def test_rows_beside_the_encoding_stay(device):
    encoding = FrequencyEncoding(3, 2, device)
    x = array(points(40, 3), device)
    y = wp.full(2 * 20 * 32, 7.0, dtype=float, device=device)
    encoding.forward(x, y, 20, 4).run()
    rows = y.numpy().reshape(2, 20, 32)
    assert np.all(rows[:, :4] == 7)
    assert np.all(rows[:, 19:] == 7)
    wanted = frequency.encode(points(40, 3), 2)
    assert np.allclose(from_blocks(rows[:, 4:19], 40), wanted, atol=1e-6)


def test_threads_do_not_matter():
    x = points(32 * 9, 3)
    results = []
    for threads in (1, 3):
        launch.set_num_threads(threads)
        results.append(encode(CASES[0], x, "cpu"))
    launch.set_num_threads(None)
    assert np.array_equal(*results)


@pytest.mark.parametrize("case", [(3, 4, True), (2, 3, False)], ids=str)
def test_the_text_for_cuda_is_the_twin(case, monkeypatch):
    both = kernels._on_both
    monkeypatch.setattr(
        kernels, "_on_both", lambda text: both(text).replace("#ifdef __CUDA_ARCH__", "#if 1")
    )
    monkeypatch.setattr(encodings, "block_items", lambda n_blocks, device: n_blocks * 32)
    monkeypatch.setattr(kernels, "forward_kernel", kernels.forward_kernel.__wrapped__)
    x = points(70, case[0])
    assert np.abs(encode(case, x, "cpu") - frequency.encode(x, *case[1:])).max() < TOLERANCE


def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigError, match="n_frequencies must be from 0 to 20, got 21"):
        FrequencyEncoding(3, 21, "cpu")
    encoding = FrequencyEncoding(3, 4, "cpu")
    with pytest.raises(ShapeError, match="y must have"):
        encoding.forward(
            wp.zeros(96, dtype=float, device="cpu"), wp.zeros(96, dtype=float, device="cpu")
        )
    with pytest.raises(ConfigError, match="first_row"):
        encoding.forward(
            wp.zeros(96, dtype=float, device="cpu"),
            wp.zeros(27 * 32, dtype=float, device="cpu"),
            27,
            1,
        )
