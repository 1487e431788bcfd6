"""Gradients of a small network by one kernel: against the twin and two kernels, and its traffic.

On the emulated device, whose thread blocks have four warps and barriers as on a GPU; what other
tests say of both ways is in test_mlp_cuda.py.
"""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import warp as wp

from ngp_warp.kernels import mlp_cuda, mlp_cuda_fused, mlp_cuda_network, mlp_cuda_stages
from ngp_warp.kernels.mlp_cuda_layout import MlpLayout
from tests.emulator.variables import PtxError
from tests.reference import losses, mlp
from tests.test_mlp_cuda import HALF_TWIN, Case, error

REFERENCE = (32, 64, 2, 3, "relu", "none")
COLOR = (32, 64, 2, 3, "relu", "sigmoid")
# n_in, n_neurons, n_hidden_layers, n_out, activation, output_activation; points
CASES = [
    (REFERENCE, 300),
    (COLOR, 257),
    ((32, 64, 1, 16, "relu", "none"), 128),
    ((19, 64, 2, 1, "softplus", "tanh"), 129),
    ((64, 64, 1, 5, "squareplus", "exponential"), 31),
    ((17, 64, 1, 9, "sine", "none"), 96),
    ((3, 32, 1, 3, "tanh", "leaky_relu"), 1),
    ((40, 32, 2, 17, "sigmoid", "softplus"), 140),
    ((5, 32, 2, 3, "sine", "sigmoid"), 100),
    ((33, 32, 3, 20, "leaky_relu", "none"), 127),
    ((2, 16, 1, 1, "none", "sine"), 33),
    ((16, 16, 2, 50, "exponential", "none"), 260),
    ((50, 16, 3, 4, "sine", "squareplus"), 65),
    ((16, 16, 9, 16, "tanh", "none"), 70),
    ((16, 32, 4, 3, "relu", "none"), 129),
]
# float32 sums in another order, of products of the same halves
SUMS = 1e-5


@pytest.fixture
def device(emulated_cuda):
    return "cuda:0"


@pytest.fixture
def few_chunks(monkeypatch):
    """Thread blocks that take several turns, though there are few points."""
    monkeypatch.setattr(mlp_cuda_network, "most_chunks", lambda device: 2)


def gradient(case, seed=1):
    """dL/dy of each point, and the scale that suits it."""
    dy = np.random.default_rng(seed).normal(size=(case.n, case.n_out))
    return dy / (case.n * case.n_out), 128.0 * case.n * case.n_out


@pytest.mark.usefixtures("few_chunks")
@pytest.mark.parametrize(("config", "n"), CASES, ids=str)
def test_backward_is_the_twin_and_two_kernels(device, config, n):
    case, two = Case(config, n, device), Case(config, n, device, fused=False)
    assert case.kernels.fused
    dy, scale = gradient(case)
    dx, dw = case.backward(dy, scale)
    dx_twin, dw_twin = case.twin_gradients(dy, True, scale)
    assert error(dx, dx_twin) < HALF_TWIN
    assert error(dw, dw_twin) < HALF_TWIN
    dx_two, dw_two = two.backward(dy, scale)
    assert np.array_equal(dx, dx_two)
    assert error(dw, dw_two) < SUMS


@pytest.mark.usefixtures("few_chunks")
@pytest.mark.parametrize("loss", losses.LOSSES)
def test_training_is_the_twin_and_two_kernels(device, loss):
    config = (20, 32, 2, 3, "tanh", "sigmoid")
    case, two = Case(config, 333, device), Case(config, 333, device, fused=False)
    dx, dw = case.train(loss)
    value, slope = losses.loss(loss, case.twin(half=True), case.target)
    count = case.n * case.n_out
    dx_twin, dw_twin = case.twin_gradients(slope / count, True, 128.0 * count)
    assert error(dx, dx_twin) < HALF_TWIN
    assert error(dw, dw_twin) < HALF_TWIN
    sums = case.loss_sums.numpy().reshape(-1, 2)
    assert np.allclose(sums[:, 0].sum(), value.sum(), rtol=1e-4)  # float32 sums of 96 values
    dx_two, dw_two = two.train(loss)
    assert np.array_equal(dx, dx_two)
    assert error(dw, dw_two) < SUMS
    assert np.array_equal(case.loss_sums.numpy(), two.loss_sums.numpy())


@pytest.mark.usefixtures("few_chunks")
def test_runs_repeat_bit_by_bit(device):
    case = Case(REFERENCE, 500, device)
    first = case.train("huber")
    case.dx.fill_(7.0)
    case.dw.fill_(7.0)
    case.scratch.partials.fill_(7.0)
    for got, wanted in zip(case.train("huber"), first, strict=True):
        assert np.array_equal(got, wanted)


@pytest.mark.usefixtures("few_chunks")
@pytest.mark.parametrize("n", [0, 1, 40, 128, 300, 383, 600])
def test_what_does_not_count_is_not_looked_at(device, n):
    # 2 thread blocks of 3 and 2 groups of 128: the count ends between and in groups and blocks
    case = Case((20, 32, 2, 3, "tanh", "none"), 600, device)
    dy, scale = gradient(case)
    kept = dy.copy()
    kept[n:] = 0
    dx, dw = case.backward(kept, scale)
    dy[n:] = 1e4
    case.dx.fill_(7.0)
    case.dw.fill_(7.0)
    found = case.backward(dy, scale, wp.array([n], dtype=int, device=device))
    assert np.array_equal(found[0], dx)
    assert np.array_equal(found[1], dw)
    assert dw.any() == (n > 0)
    assert not case.dx.numpy()[-(-n // 32) :].any()


def test_activations_stay_on_the_chip(device, emulated_cuda, monkeypatch):
    # four groups of 128 points for each thread block, as 2^18 points have five
    monkeypatch.setattr(mlp_cuda_network, "most_chunks", lambda device: 2)
    n, written = 1024, {}
    for fused in (True, False):
        case = Case(REFERENCE, n, device, fused=fused)
        assert (case.scratch.activations is None) == fused
        emulated_cuda.traffic = {}
        try:
            case.train("huber")
            traffic = {name.strip("_"): t for name, t in emulated_cuda.traffic.items()}
        finally:
            emulated_cuda.traffic = None
        (found,) = (t for name, t in traffic.items() if "propagate" in name)
        written[fused] = found.bytes["write"] / n
        read = sum(t.bytes["read"] for name, t in traffic.items() if "weight_grad" in name)
        assert (read == 0) == fused
    # dx alone is 128 bytes, a block's losses 8, and each thread block has 6,336 sums
    assert written[True] == 128 + 8 / 32 + 2 * 4 * 6336 / n
    assert written[False] > 128 + 600


def meetings(text):
    return text.count("meet();")


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ((16, 16, 2, 3, "relu", "none"), 6),
        # slopes apart from h: what a layer's dW reads stays until the next turn
        ((8, 32, 1, 4, "sine", "none"), 3),
        ((8, 16, 2, 4, "sine", "none"), 4),
    ],
)
def test_every_meeting_is_needed(device, emulated_cuda, monkeypatch, config, wanted):
    """Without one of them two warps race in shared memory; with all of them none do."""
    monkeypatch.setattr(mlp_cuda_network, "most_chunks", lambda device: 1)
    monkeypatch.setattr(emulated_cuda, "looks_for_races", True)
    Case(config, 256, device).train("l2")
    pieces = mlp_cuda_stages.gradient_text(MlpLayout(*config), "l2").split("meet();")
    assert len(pieces) == wanted + 1
    for i in range(wanted):
        joined = [*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]]
        text = "meet();".join(joined)
        monkeypatch.setattr(mlp_cuda_stages, "gradient_text", lambda *_, text=text: text)
        mlp_cuda_stages.make_stage.cache_clear()
        try:
            with pytest.raises(PtxError, match="a race"):
                Case(config, 256, device).train("l2")
        finally:
            mlp_cuda_stages.make_stage.cache_clear()


LAYOUTS = [
    MlpLayout(n_in, width, layers, n_out, activation, "none")
    for n_in, width, layers, n_out, activation in itertools.product(
        (1, 16, 33, 64, 100, 256), (16, 32, 64, 128), (1, 2, 3, 4), (1, 16, 17, 64, 250),
        ("relu", "sine"),
    )
]  # fmt: skip


def test_what_fits_is_in_static_shared_memory():
    for layout in LAYOUTS:
        tiles = layout.in_tiles + layout.out_tiles
        kept = 2 if layout.activation == "sine" else 1
        tiles += layout.n_hidden_layers * layout.hidden_tiles * kept
        # a tile of 32 points and 16 halves is 1 KB; Warp's own are 512 bytes
        fits = mlp_cuda_fused.fits(layout)
        assert not fits or 4 * 1024 * tiles + 512 <= 48 * 1024
        assert not fits or layout.n_neurons < 128
    fused = {n.n_neurons for n in LAYOUTS if mlp_cuda_fused.fits(n)}
    assert fused == {16, 32, 64}


@pytest.mark.parametrize("n_out", [1, 3, 16])
def test_networks_of_the_primitives_fit(n_out):
    for layers in (1, 2):
        assert mlp_cuda_fused.fits(MlpLayout(32, 64, layers, n_out, "relu", "none"))


def test_warps_share_every_tile():
    for matrix in (m for n in LAYOUTS for m in mlp_cuda_fused._matrices(n)):
        (down, across), (rows, columns) = matrix.warps, matrix.share
        assert down * across == mlp_cuda_fused.WARPS
        assert down * rows >= matrix.grid[0] > (down * rows - rows if rows > 1 else 0)
        assert across * columns >= matrix.grid[1]


def test_chunks_are_as_many_as_run_at_a_time(device):
    blocks = [0, 1, 4, 5, 1584, 1585, 2**13, 2**20]
    for where in ("cpu", device):
        chunks = [mlp_cuda_network.n_chunks(n, where) for n in range(3000)]
        assert [mlp_cuda_network.n_chunks(n, where) for n in blocks] == [0, 1, 1, 2] + [396] * 4
        # scratch for many points is enough for fewer
        assert chunks == sorted(chunks)


@pytest.mark.parametrize(
    ("n_processors", "shared_kib", "wanted"),
    [(132, 227, 396), (108, 163, 324), (128, 99, 256), (1, 47, 1)],
    ids=["H100", "A100", "RTX 4090", "least"],
)
def test_chunks_fill_a_device(n_processors, shared_kib, wanted, monkeypatch):
    one = SimpleNamespace(
        is_cuda=True, sm_count=n_processors, max_shared_memory_per_block=shared_kib << 10
    )
    monkeypatch.setattr(wp, "get_device", lambda name: one)
    assert mlp_cuda_network.most_chunks("cuda:0") == wanted


def test_scratch_of_more_points_will_do(device):
    case = Case(REFERENCE, 200, device)
    dx, dw = case.train("l2")
    case.scratch = mlp_cuda.make_scratch(case.kernels, 5000, device)
    again = case.train("l2")
    assert np.array_equal(again[0], dx)
    assert np.array_equal(again[1], dw)


def test_a_captured_pass_repeats(device):
    case = Case(COLOR, 200, device)
    dx, dw = case.train("l2")
    target = case.array(mlp.to_blocks(case.target))
    with wp.ScopedCapture(device) as capture:
        mlp_cuda.train_pass(case.kernels, case.w, case.bx, target, 200, "l2", case.dx, case.dw,
                            case.loss_sums, case.scratch)  # fmt: skip
    case.dx.zero_()
    case.dw.zero_()
    wp.capture_launch(capture.graph)
    assert np.array_equal(mlp.from_blocks(case.dx.numpy(), 200), dx)
    assert np.array_equal(case.dw.numpy(), dw)
