"""Torch modules: tiny-cuda-nn's parameters and conventions, and what torch does with modules."""

import copy
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import ngp_warp.torch as tcnn
from ngp_warp import launch
from ngp_warp.errors import ConfigError, ShapeError

ROOT = Path(__file__).resolve().parent.parent
HASH = {"otype": "HashGrid", "n_levels": 16, "n_features_per_level": 2, "log2_hashmap_size": 19,
        "base_resolution": 16, "per_level_scale": 1.38191288}  # fmt: skip
SMALL = {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 10, "base_resolution": 4}
HARMONICS = {"otype": "SphericalHarmonics", "degree": 4}
FUSED = {"otype": "FullyFusedMLP", "activation": "ReLU", "output_activation": "None",
         "n_neurons": 64, "n_hidden_layers": 2}  # fmt: skip
CUTLASS = {"otype": "CutlassMLP"}
IMAGE = {"otype": "HashGrid", "log2_hashmap_size": 15, "per_level_scale": 1.5}
COMPOSITE = {
    "otype": "Composite",
    "nested": [
        {"otype": "TriangleWave", "n_frequencies": 12, "n_dims_to_encode": 3},
        {"otype": "OneBlob", "n_bins": 4, "n_dims_to_encode": 5},
        {"otype": "Identity"},
    ],
}

# 16 levels from 16^3 to 2048^3 vertices, of at most 2^19: 6,098,120 entries of 2
GRID_3D = 12_196_240
COUNTS = [
    # (inputs, outputs, encoding, network, parameters)
    # photo: 354,184 entries of 2; 32 -> 64 -> 64 -> 16 (3 of them count)
    (2, 3, IMAGE, FUSED, 708_368 + 32 * 64 + 64 * 64 + 64 * 16),
    # distance field: 32 -> 64 -> 64 -> 16 (1)
    (3, 1, HASH, FUSED, GRID_3D + 7168),
    # radiance field, density: 32 -> 64 -> 16 (16)
    (3, 16, HASH, {**FUSED, "n_hidden_layers": 1}, GRID_3D + 32 * 64 + 64 * 16),
    # its colours: 16 harmonics and 16 others -> 64 -> 64 -> 16 (3)
    (19, 3, {"otype": "Composite", "nested": [{**HARMONICS, "n_dims_to_encode": 3},
                                              {"otype": "Identity"}]}, FUSED, 7168),
    # volume: 32 -> 64 -> 64 -> 16 (4)
    (3, 4, HASH, FUSED, GRID_3D + 7168),
    # the defaults of an MLP: 16 (3 and ones) -> 5 x 128 -> 16 (1)
    (3, 1, None, CUTLASS, 16 * 128 + 4 * 128 * 128 + 128 * 16),
    # without hidden layers: 16 (5) -> 32 (20)
    (5, 20, None, {**CUTLASS, "n_hidden_layers": 0}, 16 * 32),
    # 72 sines are padded to 80: 80 -> 50 -> 16
    (3, 3, {"otype": "Frequency"}, {**CUTLASS, "n_neurons": 50, "n_hidden_layers": 1},
     80 * 50 + 50 * 16),
    # 36 + 20 + 2 = 58 features are padded to 64: 64 -> 16 -> 16
    (10, 2, COMPOSITE, {"otype": "MegakernelMLP", "n_neurons": 16, "n_hidden_layers": 1},
     64 * 16 + 16 * 16),
    # 8 levels of 4 features: 2,920,448 entries
    (3, None, {"otype": "HashGrid", "n_levels": 8, "n_features_per_level": 4}, None, 11_681_792),
    # 8^3, 16^3 and 32^3 vertices
    (3, None, {"otype": "DenseGrid", "n_levels": 3, "base_resolution": 8, "per_level_scale": 2.0},
     None, 2 * (512 + 4096 + 32768)),
    (3, None, HARMONICS, None, 0),
]  # fmt: skip


def make(n_in, n_out, encoding, network):
    if network is None:
        return tcnn.Encoding(n_in, encoding)
    if encoding is None:
        return tcnn.Network(n_in, n_out, network)
    return tcnn.NetworkWithInputEncoding(n_in, n_out, encoding, network)


def field(**changes):
    return tcnn.NetworkWithInputEncoding(3, 3, SMALL, {**FUSED, "n_neurons": 16, **changes})


@pytest.mark.parametrize(("n_in", "n_out", "encoding", "network", "wanted"), COUNTS)
def test_parameter_counts_are_the_references(n_in, n_out, encoding, network, wanted):
    module = make(n_in, n_out, encoding, network)
    assert module.params.shape == (wanted,)
    assert module.params.dtype == torch.float32
    assert module.n_input_dims == n_in
    x = torch.rand(33, n_in)
    assert module(x).shape == (33, module.n_output_dims)
    if n_out:
        assert module.n_output_dims == n_out


def test_an_encoding_alone_is_not_padded():
    grid = {"otype": "HashGrid", "n_levels": 2, "n_features_per_level": 4}
    nested = [{**grid, "n_dims_to_encode": 2}, {"otype": "Identity"}]
    assert tcnn.Encoding(5, {"otype": "Composite", "nested": nested}).n_output_dims == 11
    assert tcnn.Encoding(3, {"otype": "Frequency"}).n_output_dims == 72
    assert tcnn.Encoding(3, HARMONICS).n_output_dims == 16


def test_a_network_reads_matrices_row_by_row_and_ones_in_its_padding():
    network = tcnn.Network(3, 2, {**CUTLASS, "n_neurons": 5, "n_hidden_layers": 2})
    p = network.params.detach().numpy()
    w1, w2, w3 = p[:80].reshape(5, 16), p[80:105].reshape(5, 5), p[105:].reshape(16, 5)
    x = np.random.default_rng(0).random((40, 3), np.float32)
    h = np.maximum(np.hstack([x, np.ones((40, 13))]) @ w1.T, 0)
    wanted = np.maximum(h @ w2.T, 0) @ w3[:2].T
    assert np.abs(wanted).max() > 0.01
    assert np.allclose(network(torch.from_numpy(x)).detach(), wanted, atol=1e-6)


@pytest.mark.parametrize("n_in", [65, 300, 4096])
def test_networks_take_many_inputs(n_in):
    # features of other networks, appearance vectors
    network = tcnn.Network(n_in, 2, {**CUTLASS, "n_neurons": 16, "n_hidden_layers": 1})
    width = -(-n_in // 16) * 16
    w1, w2 = network.params.detach().split([16 * width, 16 * 16])
    x = torch.rand(40, n_in, requires_grad=True)
    padded = torch.nn.functional.pad(x, (0, width - n_in), value=1)
    wanted = torch.relu(padded @ w1.view(16, width).T) @ w2.view(16, 16)[:2].T
    y = network(x)
    assert wanted.abs().max() > 0.01
    assert torch.allclose(y, wanted, atol=1e-5)
    dx, wanted_dx = (torch.autograd.grad(out.sum(), x)[0] for out in (y, wanted))
    assert torch.allclose(dx, wanted_dx, atol=1e-5)


def test_padded_rows_change_nothing_and_get_no_gradient():
    module = field()
    x = torch.rand(50, 3)
    y = module(x)
    y.sum().backward()
    n_weights = 16 * 16 + 16 * 16 + 16 * 16
    rows = slice(n_weights - 13 * 16, n_weights)
    assert module.params.grad[rows].abs().max() == 0
    assert module.params.grad[rows.start - 16 : rows.start].abs().max() > 0
    with torch.no_grad():
        module.params[rows] = 1e6
    assert torch.equal(module(x), y)


def test_initial_parameters_have_the_references_distributions():
    first, again, other = (field(**more).params for more in ({}, {}, {"n_neurons": 64}))
    assert torch.equal(first, again)
    seeded = tcnn.NetworkWithInputEncoding(3, 3, SMALL, {**FUSED, "n_neurons": 16}, seed=1)
    assert not torch.equal(first, seeded.params)
    n_weights = 16 * 64 + 64 * 64 + 64 * 16
    weights, table = other[:n_weights], other[n_weights:]
    assert table.abs().max() <= 1e-4 < 1.05 * table.abs().max()
    assert abs(table.mean()) < 1e-5
    bound = np.sqrt(6 / (16 + 64))
    assert 0.95 * bound < weights[: 16 * 64].abs().max() <= bound
    sine = field(activation="Sine", n_neurons=64).params[: 16 * 64]
    assert 0.95 * 30 / 16 < sine.abs().max() <= 30 / 16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_floating_dtype_and_layout(dtype, device):
    module = field().to(device)
    wide = torch.rand(70, 6, device=device).to(dtype)
    x = wide[:, ::2].requires_grad_()
    y = module(x)
    y.float().sum().backward()
    assert y.dtype == module.dtype == (torch.float32 if device == "cpu" else torch.float16)
    assert y.is_contiguous()
    # bit by bit the same as what it is made into
    assert torch.equal(y, module(wide[:, ::2].float().contiguous()))
    transposed = wide.float()[:, ::2].t().contiguous().t()
    assert torch.equal(y, module(transposed))
    assert wide.grad is None
    assert torch.autograd.grad(module(x).float().sum(), x)[0].dtype == dtype


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 1000])
@pytest.mark.parametrize("make_one", [field, lambda: tcnn.Encoding(3, SMALL),
                                      lambda: tcnn.Network(3, 2, FUSED),
                                      lambda: field(activation="SiLU")])  # fmt: skip
def test_any_number_of_points(make_one, n):
    module = make_one()
    x = torch.rand(n, 3, requires_grad=True)
    y = module(x)
    y.square().sum().backward()
    assert y.shape == (n, module.n_output_dims)
    assert x.grad.shape == x.shape
    assert module.params.grad.shape == module.params.shape
    # a point does not see the others
    if n > 1:
        assert torch.allclose(module(x[1:2]), y[1:2], atol=1e-6)
        part = torch.autograd.grad(module(x[:-1]).square().sum(), x)[0]
        assert torch.allclose(part[:-1], x.grad[:-1], atol=1e-6)


def test_long_batches_without_gradients_go_in_parts():
    module = field()
    x = torch.rand(150_001, 3)
    with torch.no_grad():
        y = module(x)
    assert torch.equal(y, module(x))


def test_outputs_are_float32_unless_asked():
    x = torch.rand(4, 3)
    assert tcnn.Encoding(3, SMALL)(x).dtype == torch.float32
    half = tcnn.Encoding(3, SMALL, dtype=torch.float16)
    assert half(x).dtype == half.dtype == torch.float16
    assert half.params.dtype == torch.float32
    half(x).sum().backward()
    assert half.params.grad.dtype == torch.float32
    with pytest.raises(ConfigError, match="dtype must be"):
        tcnn.Encoding(3, SMALL, dtype=torch.float64)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(3), r"must have shape \[n, 3\], got \[3\]"),
        (torch.rand(2, 4, 3), r"got \[2, 4, 3\]"),
        (torch.rand(4, 2), r"got \[4, 2\]"),
        (torch.ones(4, 3, dtype=torch.complex64), "must be real, got torch.complex64"),
        (torch.rand(4, 3, device="meta"), "parameters' device cpu, got meta"),
        (np.ones((4, 3), np.float32), "must be a tensor, got ndarray"),
    ],
)
def test_wrong_inputs_are_shape_errors(x, message):
    with pytest.raises(ShapeError, match=message):
        field()(x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"otype": "ResNet"}, "ResNet is not supported"),
        ({"otype": "Transformer"}, "no network 'Transformer'; there are FullyFusedMLP"),
        ({"activation": "GELU"}, "activation must be one of None, ReLU"),
        ({"feedback_alignment": True}, "feedback_alignment is not supported"),
        ({"n_neurons": 48}, "one of 16, 32, 64, 128, 256, got 48"),
        ({"n_neurons": 64.0}, "n_neurons must be an integer, got 64.0"),
        ({"n_neurons": True}, "n_neurons must be an integer, got True"),
        ({"n_hidden_layers": 0}, "at least 1, got 0"),
        ({"n_hidden_layers": -1}, "from 0 to 64, got -1"),
    ],
)
def test_wrong_networks_are_config_errors(changes, message):
    with pytest.raises(ConfigError, match=message):
        field(**changes)


def test_other_wrong_settings_are_config_errors():
    with pytest.raises(ConfigError, match="network must be an object"):
        tcnn.Network(3, 1, [])  # pyright: ignore
    with pytest.raises(ConfigError, match="n_output_dims must be"):
        tcnn.Network(3, 0, CUTLASS)
    with pytest.raises(ConfigError, match="seed must be"):
        tcnn.Network(3, 1, CUTLASS, seed=-1)


def test_unknown_settings_are_ignored_with_a_warning():
    with pytest.warns(UserWarning, match="a grid has no setting 'include_xyz', 'bins', ignored"):
        module = tcnn.Encoding(3, {**SMALL, "include_xyz": True, "bins": 2})
    assert torch.equal(module.params, tcnn.Encoding(3, SMALL).params)
    with pytest.warns(UserWarning, match="a network has no setting 'n_neuron', ignored; .* otype"):
        changed = field(n_neuron=3)
    assert torch.equal(changed.params, field().params)


def test_whole_numbers_are_taken_as_points():
    points = torch.tensor([[0, 1, 0], [1, 1, 0]])
    for x in (points, points.to(torch.uint8), points.to(torch.bool)):
        assert torch.equal(field()(x), field()(points.float()))


def test_names_are_case_insensitive():
    config = {"otype": "cutlassMLP", "activation": "LEAKYRELU", "output_activation": "sigmoid"}
    text = repr(tcnn.Network(3, 1, config))
    assert "n_input_dims=3, n_output_dims=1, seed=1337, dtype=torch.float32" in text
    assert "'otype': 'CutlassMLP', 'activation': 'LeakyReLU'" in text


def test_feedback_alignment_may_be_declined():
    assert torch.equal(field(feedback_alignment=False).params, field().params)


def test_a_state_dict_is_the_flat_parameters():
    module = field()
    other = tcnn.NetworkWithInputEncoding(3, 3, SMALL, {**FUSED, "n_neurons": 16}, seed=2)
    x = torch.rand(40, 3)
    assert list(module.state_dict()) == ["params"]
    assert not torch.equal(module(x), other(x))
    other.load_state_dict(module.state_dict())
    assert torch.equal(module(x), other(x))
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict({"params": torch.zeros(3)})


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_their_own(copied):
    module = field()
    x = torch.rand(40, 3)
    y = module(x)
    other = copied(module)
    assert torch.equal(other(x), y)
    with torch.no_grad():
        other.params.mul_(2)
    assert torch.equal(module(x), y)
    assert not torch.equal(other(x), y)
    assert repr(other) == repr(module)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_parameters_of_another_dtype_are_read_as_float32(dtype):
    module = field()
    wanted = copy.deepcopy(module)
    module.to(dtype)
    with torch.no_grad():
        wanted.params.copy_(module.params.float())
    x = torch.rand(40, 3)
    y = module(x)
    assert torch.equal(y, wanted(x))
    y.sum().backward()
    wanted(x).sum().backward()
    assert module.params.grad.dtype == dtype
    assert torch.equal(module.params.grad, wanted.params.grad.to(dtype))


def test_evaluation_needs_no_graph():
    module = field()
    x = torch.rand(40, 3)
    y = module(x)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(module(x), y)
    with torch.inference_mode():
        assert module(torch.rand(40, 3)).is_inference()


def test_autocast_changes_nothing():
    module = field(activation="SiLU")
    x = torch.rand(40, 3, requires_grad=True)
    y = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = module(x)
    assert torch.equal(again, y)


# torch's own, of every tensor that has a graph where a compiled model breaks
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_it_lives_in_a_compiled_model():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.field = field()

        def forward(self, x):
            return self.field(x * 0.5).exp()

    model = Model()
    x = torch.rand(40, 3)
    # "eager": what torch's own compiler does with the rest is not looked at, and needs gcc
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(compiled(x), model(x))
    compiled(x).sum().backward()
    assert model.field.params.grad.abs().max() > 0


def test_data_parallel_on_a_cpu_is_the_module():
    module = field()
    x = torch.rand(40, 3)
    assert torch.equal(torch.nn.DataParallel(module)(x), module(x))


def test_transforms_of_functions_are_refused_with_a_reason():
    module = field()
    with pytest.raises(ConfigError, match=r"torch.func's transforms"):
        torch.func.vmap(lambda x: module(x[None])[0])(torch.rand(4, 3))


def test_threads_get_what_one_gets():
    module = field()
    xs = [torch.rand(3000, 3) for _ in range(4)]

    def gradient(x):
        return torch.autograd.grad(module(x).square().sum(), module.params)[0]

    wanted = [gradient(x) for x in xs]
    found = [[] for _ in xs]

    def work(i):
        found[i] += [gradient(xs[i]) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(xs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for gradients, one in zip(found, wanted, strict=True):
        assert len(gradients) == 5
        assert all(torch.equal(g, one) for g in gradients)


def test_the_number_of_threads_changes_nothing():
    results = []
    for n_threads in (1, 4):
        launch.set_num_threads(n_threads)
        torch.manual_seed(0)
        module, x = field(), torch.rand(5000, 3, requires_grad=True)
        y = module(x)
        y.square().sum().backward()
        results.append((y, x.grad, module.params.grad))
    launch.set_num_threads(None)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_step_of_an_optimizer_is_seen():
    # the kernels read the parameters' own memory, and keep no copy
    module = field()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    x, losses = torch.rand(500, 3), []
    for _ in range(40):
        loss = (module(x) - x).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]


def test_gradients_add_up_over_backward_passes():
    module = field()
    x = torch.rand(50, 3)
    module(x).sum().backward()
    once = module.params.grad.clone()
    module(x).sum().backward()
    assert torch.equal(module.params.grad, 2 * once)


def test_memory_that_is_large_is_zero_and_aligned():
    from ngp_warp.torch.memory import _LARGE, allocate

    for n in (7, _LARGE, _LARGE + 3):
        zeros = allocate((n,), "cpu", zero=True)
        assert zeros.shape == (n,)
        assert not zeros.any()
        assert allocate((n,), "cpu").data_ptr() % 64 == 0


@pytest.mark.parametrize("n_rows", [1, 2, 3, 40])
@pytest.mark.parametrize("n", [0, 1, 32, 77])
def test_blocks_are_the_twins_and_their_gradients_the_inverse(n, n_rows):
    from ngp_warp.torch.layout import from_blocked, to_blocked
    from tests.reference import layout

    x = torch.rand(n, n_rows, requires_grad=True)
    blocked = to_blocked(x)
    assert blocked.shape == (-(-n // 32), n_rows, 32)
    padded = np.zeros((len(blocked) * 32, n_rows), np.float32)
    padded[:n] = x.detach()
    if n:
        assert np.array_equal(blocked.detach(), layout.to_blocked(padded))
    back = from_blocked(blocked, n)
    assert torch.equal(back, x)
    w = torch.rand(n, n_rows)
    (g,) = torch.autograd.grad((back.square() * w).sum(), x, create_graph=True)
    assert torch.equal(g, 2 * x * w)
    (second,) = torch.autograd.grad(g.sum(), x)
    assert torch.equal(second, 2 * w)
    assert not torch.equal(back.flip(0), x) or n < 2


def test_the_default_size_trains():
    # the sizes that models have, with gradients in every level
    module = tcnn.NetworkWithInputEncoding(3, 1, HASH, FUSED)
    x = torch.rand(2000, 3)
    module(x).sum().backward()
    gradient = module.params.grad
    assert torch.isfinite(gradient).all()
    assert 0 < (gradient != 0).sum() <= 7168 + 2000 * 8 * 16 * 2
    assert gradient[7168:].view(-1, 2)[-(2**19) :].abs().max() > 0


def test_helpers():
    tcnn.free_temporary_memory()
    assert tcnn.supports_jit_fusion() is False
    assert issubclass(tcnn.Encoding, tcnn.Module)
    assert field().loss_scale == 128


def test_the_package_is_light_until_it_is_asked_for():
    code = (
        "import sys, ngp_warp; assert not {'torch', 'ngp_warp.torch'} & set(sys.modules);"
        "import ngp_warp.torch as tcnn; print(tcnn.Network.__module__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "ngp_warp.torch.modules\n"
