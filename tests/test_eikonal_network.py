"""Networks with the eikonal term against the float64 twin, itself against differences; laws."""

import numpy as np
import pytest

from ngp_warp import launch
from ngp_warp.config import NetworkConfig
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.kernels import eikonal as kernels
from ngp_warp.networks import unfused
from ngp_warp.networks.eikonal import FusedEikonal, make_eikonal_network
from ngp_warp.networks.eikonal_unfused import UnfusedEikonal
from ngp_warp.networks.mlp import FusedMLP, make_network
from tests.eikonal_case import OUTPUTS, EikonalCase, error
from tests.reference import losses, mlp

ACTIVATIONS = sorted(mlp.ACTIVATIONS)
# Float32 sums of up to 130 O(1) products through up to 4 layers, there and back; 1 - 1 / |g| where
# |g| is near 1 cancels, and a point in v counts by its own distance from 1.
TOLERANCE = 5e-5
FUSED = [
    (32, {"n_neurons": 64}),
    (32, {"n_neurons": 64, "activation": "softplus"}),
    (5, {"n_neurons": 16, "n_hidden_layers": 3, "activation": "sine"}),
    (37, {"n_neurons": 128, "n_hidden_layers": 1, "output_activation": "tanh"}),
]
UNFUSED = [
    (5, {"n_hidden_layers": 0, "bias": True, "output_activation": "sigmoid"}),
    (9, {"n_neurons": 70, "n_hidden_layers": 4, "skip_layer": 2, "bias": True}),
    (
        18,
        {
            "n_neurons": 24,
            "n_hidden_layers": 3,
            "skip_layer": 1,
            "bias": True,
            "activation": "sine",
            "output_activation": "sine",
        },
    ),
    (7, {"n_neurons": 130, "n_hidden_layers": 2, "activation": "softplus", "bias": True}),
]
SMOOTH = [*FUSED[1:], *UNFUSED[2:], (6, {"n_neurons": 9, "n_hidden_layers": 2, "skip_layer": 1,
                                         "activation": "squareplus"})]  # fmt: skip


# the fused pass for a CPU alone, the others for every device
CASES = [(case, "fused") for case in FUSED]
CASES += [(case, backend) for case in FUSED + UNFUSED for backend in ("auto", "portable")]


def make(case, backend, device, **options):
    if backend == "fused" and device != "cpu":
        pytest.skip("the fused pass is for a CPU")
    return EikonalCase(*case, device, backend, **options)


def check(got, wanted, factor=1.0):
    for name in OUTPUTS:
        assert error(got[name], wanted[name]) < factor * TOLERANCE, name


@pytest.mark.parametrize(("case", "backend"), CASES, ids=str)
def test_pass_is_the_twin(case, backend, device):
    it = make(case, backend, device)
    got, wanted = it.train(), it.twin()
    check(got, wanted)
    assert error(np.roll(got["dw"], 1), wanted["dw"]) > 0.1
    # the term is in the gradients: without it they are others
    assert error(got["dw"], it.twin(weight=0.0)["dw"]) > 0.01


@pytest.mark.parametrize("backend", ["fused", "auto", "portable"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_the_twin(name, backend, device):
    case = (9, {"n_neurons": 16, "activation": name, "output_activation": name})
    it = make(case, backend, device)
    # softplus' and squareplus' second derivatives reach 10 times their slope
    check(it.train(), it.twin(), 10.0)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_is_the_twin(name, device):
    it = make(FUSED[1], "fused" if device == "cpu" else "auto", device)
    check(it.train(name), it.twin(name), 10.0)  # a relative loss magnifies by up to 1 / 0.01


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_the_twins_gradients_are_differences(case):
    it = EikonalCase(*case, "cpu", "auto", n=12)
    wanted, rng, h = it.twin(), np.random.default_rng(3), 1e-6

    def slope(name, start, direction):
        ends = (it.twin(**{name: start + s * h * direction})["total"] for s in (1, -1))
        return (next(ends) - next(ends)) / (2 * h)

    w, y, jacobian = (a.astype(np.float64) for a in (it.w, it.y, it.jacobian))
    u = rng.normal(size=w.shape)
    assert slope("w", w, u) == pytest.approx(wanted["dw"] @ u, rel=1e-6)
    u = rng.normal(size=y.shape)
    assert slope("y", y, u) == pytest.approx((wanted["d_features"] * u).sum(), rel=1e-6)
    u = rng.normal(size=jacobian.shape)
    along = np.einsum("nk,nd,nkd", wanted["slope"], wanted["v"], u)
    assert slope("jacobian", jacobian, u) == pytest.approx(along, rel=1e-6)


@pytest.mark.parametrize("case", FUSED, ids=str)
def test_without_weight_it_is_the_plain_pass(case, device):
    it = make(case, "fused" if device == "cpu" else "auto", device)
    got, y = it.train(weight=0.0), it.y.astype(np.float64)
    c = it.config
    matrices = it.twin_network().matrices
    names = c.activation, c.output_activation
    prediction = mlp.forward(matrices, y, *names)[0]
    dy = losses.loss("l2", prediction, it.target)[1] / it.n
    d_features, dw = mlp.backward(matrices, y, dy, *names)
    assert error(got["d_features"], d_features) < TOLERANCE
    assert error(got["dw"], dw) < TOLERANCE
    assert np.all(got["v"] == 0.0)


@pytest.mark.parametrize("backend", ["fused", "auto"])
def test_a_gradient_of_length_one_costs_nothing(backend, device):
    # f = w . y with J = [unit vector, 0, ...] times 1 / w
    it = make((16, {"n_neurons": 16, "activation": "none"}), backend, device)
    slope = it.twin()["slope"][0]
    direction = np.array([0.48, -0.6, 0.64])
    it.jacobian = np.zeros_like(it.jacobian)
    it.jacobian[:, 0] = direction / slope[0]
    got = it.train()
    # |g| = 1 up to a few eps; v is 2 * 0.7 / 70 times that
    assert got["residual"] < 70 * 1e-11
    assert np.abs(got["v"]).max() < 1e-7
    it.jacobian *= 2
    assert it.train()["residual"] == pytest.approx(70.0, rel=1e-4)


@pytest.mark.parametrize("backend", ["fused", "auto"])
def test_a_gradient_of_zero_has_no_direction(backend, device):
    it = make(FUSED[1], backend, device)
    it.jacobian[:] = 0.0
    got = it.train()
    assert got["residual"] == it.n
    assert np.all(got["v"] == 0.0)
    check(got | {"v": 1.0}, it.twin() | {"v": 1.0})


@pytest.mark.parametrize("backend", ["fused", "auto"])
def test_results_stay_finite(backend, device):
    for scale in (np.exp(-60), np.exp(10)):
        it = make(FUSED[1], backend, device)
        it.jacobian *= np.float32(scale)
        for name, values in it.train().items():
            assert np.all(np.isfinite(values)), name


@pytest.mark.parametrize("case", [FUSED[0], FUSED[1]], ids=str)
def test_two_dimensions(case, device):
    it = make(case, "fused" if device == "cpu" else "auto", device, n_dims=2)
    check(it.train(), it.twin())


@pytest.mark.parametrize("backend", ["fused", "auto", "portable"])
def test_padding_counts_for_nothing_and_runs_repeat(backend, device):
    it = make(FUSED[1], backend, device)
    first = it.train()
    for other in (it.train(fill=-3.0), it.train(repeat=2)):
        for name in OUTPUTS:
            assert np.array_equal(first[name], other[name]), name


@pytest.mark.parametrize(("case", "backend"), [(FUSED[0], "fused"), (UNFUSED[1], "auto")], ids=str)
def test_threads_do_not_matter(case, backend):
    results = []
    for threads in (1, 3):
        launch.set_num_threads(threads)
        results.append(EikonalCase(*case, "cpu", backend, n=32 * 70).train())
    launch.set_num_threads(None)
    for name in OUTPUTS:
        assert np.array_equal(results[0][name], results[1][name])


@pytest.fixture
def cudas_text(monkeypatch):
    """Run the text for a CUDA thread, one point at a time, on the CPU."""
    caches = [kernels.eikonal_kernel, kernels.tangent_kernel, kernels.delta_kernel]
    both = kernels._on_both

    def only_cuda(text):
        return both(text).replace("#ifdef __CUDA_ARCH__", "#if 1")

    monkeypatch.setattr(kernels, "_on_both", only_cuda)
    monkeypatch.setattr(kernels, "block_items", lambda n_blocks, device: n_blocks * 32)
    for factory in caches:
        factory.cache_clear()
    yield
    for factory in caches:
        factory.cache_clear()


@pytest.mark.parametrize("case", [FUSED[1], UNFUSED[1], UNFUSED[2]], ids=str)
@pytest.mark.usefixtures("cudas_text")
def test_the_text_for_cuda_is_the_twin(case):
    it = EikonalCase(*case, "cpu", "portable")
    check(it.train(), it.twin())


def test_slices_add_up(device, monkeypatch):
    wanted = make(UNFUSED[1], "auto", device, n=32 * 9 + 5).train()
    it = make(UNFUSED[1], "auto", device, n=32 * 9 + 5)
    monkeypatch.setattr(unfused, "_SLICE_MIN_BLOCKS", 2)
    monkeypatch.setattr(it.network._kernels, "SLICE_FLOATS", 1)
    got = it.train()
    for name in ("d_features", "slope", "v"):
        assert np.array_equal(got[name], wanted[name])
    assert error(got["dw"], wanted["dw"]) < 1e-6  # float32 sums in another order
    assert not np.array_equal(got["dw"], wanted["dw"])


def test_the_network_decides():
    fused = make_network(NetworkConfig(), 32, 1, "cpu")
    assert isinstance(fused, FusedMLP)
    assert isinstance(make_eikonal_network(fused, 3, "cpu"), FusedEikonal)
    plain = make_network(NetworkConfig(bias=True), 32, 1, "cpu")
    assert isinstance(make_eikonal_network(plain, 3, "cpu"), UnfusedEikonal)
    with pytest.raises(ConfigError, match="1 output, this one has 3"):
        make_eikonal_network(make_network(NetworkConfig(), 32, 3, "cpu"), 3, "cpu")


@pytest.mark.parametrize("backend", ["fused", "auto"])
def test_errors_name_the_array(backend, device):
    it = make(FUSED[0], backend, device)
    it.jacobian = it.jacobian[:, :, :2]
    with pytest.raises(ShapeError, match="jacobian must have"):
        it.train()
