"""Torch modules in the hands of their users: what models and training loops do to them."""

import copy
import multiprocessing
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ngp_warp.torch as tcnn
from ngp_warp import launch
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.torch import functions, layout, memory

GRID = {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 10, "base_resolution": 4}
MLP = {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 2}
COMPOSITE = {
    "otype": "Composite",
    "nested": [{"otype": "Frequency", "n_frequencies": 3, "n_dims_to_encode": 2}, GRID],
}
MAKERS = {
    "encoding": lambda: tcnn.Encoding(3, GRID),
    "network": lambda: tcnn.Network(3, 2, MLP),
    "one output": lambda: tcnn.Network(3, 1, MLP),
    "both": lambda: tcnn.NetworkWithInputEncoding(3, 4, GRID, MLP),
    "in torch": lambda: tcnn.NetworkWithInputEncoding(3, 4, GRID, {**MLP, "activation": "SiLU"}),
}


@pytest.fixture(params=MAKERS.values(), ids=MAKERS)
def module(request):
    """A module with parameters of O(1), so that differences show."""
    module = request.param()
    with torch.no_grad():
        module.params.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    return module


# the larger one's memory comes from NumPy
@pytest.mark.parametrize("n", [40, memory._LARGE])
def test_outputs_may_be_changed_in_place(module, n):
    x = torch.rand(n, 3)
    module(x).mul(2).clamp(min=0).sum().backward()
    wanted, module.params.grad = module.params.grad, None
    torch.nn.functional.relu(module(x).mul_(2), inplace=True).sum().backward()
    # torch's own products of many points have no fixed order: float32 sums of up to 2^20 terms
    assert torch.allclose(module.params.grad, wanted, atol=1e-5 * wanted.abs().max().item())
    y = module(x)
    y[:, :1].zero_()
    assert not y[:, 0].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_torchs_default_dtype_changes_nothing(module, dtype):
    x = torch.rand(40, 3, requires_grad=True)
    wanted = torch.autograd.grad(module(x).square().sum(), (x, module.params))
    torch.set_default_dtype(dtype)
    try:
        again = copy.deepcopy(module)
        assert again.dtype == torch.float32
        found = torch.autograd.grad(again(x).square().sum(), (x, again.params))
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_config_may_be_changed_afterwards():
    encoding, network = copy.deepcopy(COMPOSITE), dict(MLP)
    module = tcnn.NetworkWithInputEncoding(5, 2, encoding, network)
    x = torch.rand(40, 5)
    y = module(x)
    encoding["nested"][1]["n_levels"] = 7
    network["n_neurons"] = 64
    assert module.encoding_config == COMPOSITE
    assert module.network_config == MLP
    # a copy makes its kernels anew
    assert torch.equal(copy.deepcopy(module)(x), y)


@pytest.mark.parametrize("more", [-16, 16])
def test_other_parameters_must_be_as_many(module, more):
    n = module.params.numel()
    module.params = torch.nn.Parameter(torch.zeros(n + more))
    message = rf"params must have shape \[{n}\], as the config says, got \[{n + more}\]"
    with pytest.raises(ShapeError, match=message):
        module(torch.rand(4, 3))
    module.params = torch.nn.Parameter(torch.zeros(2, n // 2))
    with pytest.raises(ShapeError, match="params must have shape"):
        module(torch.rand(4, 3))


def test_dimensions_and_seeds_may_be_numpys():
    module = tcnn.Encoding(np.int64(3), GRID, seed=np.uint32(5))
    assert (type(module.n_input_dims), type(module.seed)) == (int, int)
    assert torch.equal(module.params, tcnn.Encoding(3, GRID, seed=5).params)


def test_an_empty_batch_has_gradients_twice(module):
    x = torch.rand(0, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    assert slope.shape == (0, 3)
    slope.norm(dim=1).sum().backward()
    assert x.grad.shape == (0, 3)
    assert not module.params.grad.any()


def test_more_values_than_can_be_counted_are_refused():
    with pytest.raises(ShapeError, match=r"2147483647 values .* got 2147483648; split the batch"):
        memory.flat(torch.zeros(1).expand(2**31))


def test_sparse_inputs_are_refused(module):
    with pytest.raises(ShapeError, match=r"must be strided, got torch.sparse_coo; use its to_d"):
        module(torch.rand(4, 3).to_sparse())


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_traces_are_refused(module):
    # they would hold uninitialized memory as the result
    with pytest.raises(ConfigError, match="cannot be traced"):
        torch.jit.trace(module, (torch.rand(40, 3),))


@pytest.mark.parametrize("activation", ["Softplus", "SiLU"])
def test_gradients_under_autocast_are_not_rounded(activation):
    network = {**MLP, "activation": activation}
    module = tcnn.NetworkWithInputEncoding(3, 4, {"otype": "Frequency"}, network)
    x = torch.rand(40, 3, requires_grad=True)

    def slopes_and_their_gradient():
        (slope,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
        loss = (slope.norm(dim=1) - 1).square().mean()
        return slope, torch.autograd.grad(loss, module.params)[0]

    wanted = slopes_and_their_gradient()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = slopes_and_their_gradient()
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_slopes_cost_no_gradients_of_weights(monkeypatch):
    # three products on the way to y, three on the way back to x
    products = []
    original = functions._product
    monkeypatch.setattr(functions, "_product", lambda *args: products.append(1) or original(*args))
    module = tcnn.NetworkWithInputEncoding(3, 4, GRID, {**MLP, "activation": "SiLU"})
    x = torch.rand(40, 3, requires_grad=True)
    torch.autograd.grad(module(x).sum(), x, create_graph=True)
    assert len(products) == 6


def _send(module, x, connection):
    with torch.no_grad():
        connection.send(module(x).numpy())


# torch's own threads are of no use in the child, and are not used there
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_computes_too():
    module, x = tcnn.NetworkWithInputEncoding(3, 4, GRID, MLP), torch.rand(4000, 3)
    launch.set_num_threads(3)
    try:
        with torch.no_grad():
            wanted = module(x).numpy()  # the threads are there now
        fork = multiprocessing.get_context("fork")
        here, there = fork.Pipe()
        child = fork.Process(target=_send, args=(module, x, there))
        child.start()
        try:
            assert here.poll(60), "the child does not end"
            assert np.array_equal(here.recv(), wanted)
        finally:
            child.kill()
            child.join()
    finally:
        launch.set_num_threads(None)


@pytest.mark.parametrize("n", [1, 20, 32, 40])
@pytest.mark.parametrize("n_rows", [1, 3])
def test_torchs_way_out_of_blocks_is_contiguous(n, n_rows, monkeypatch):
    # as on CUDA
    monkeypatch.setattr(layout, "_is_for_torch", lambda tensor, n_rows: True)
    x = torch.rand(n, n_rows)
    back = layout.from_blocked(layout.to_blocked(x), n)
    assert torch.equal(back, x)
    assert back.is_contiguous()


@pytest.mark.parametrize("begin", [0, 1])
def test_tables_begin_at_whole_16_bytes_where_kernels_need_it(begin):
    # an odd width, and parameters that are a slice of others
    network = {"otype": "CutlassMLP", "n_neurons": 5, "n_hidden_layers": 2}
    module = tcnn.NetworkWithInputEncoding(3, 4, GRID, network)
    native = copy.copy(module._native("cpu"))
    assert native.n_weights % 4 == 1
    params = torch.rand(begin + native.n_params)[begin:]
    native.device = "cuda:0"
    for found, wanted in zip(map(native._read, native._split(params)), native._split(params),
                             strict=True):  # fmt: skip
        assert found.ptr % 16 == 0
        assert np.array_equal(found.numpy(), wanted)
    native.device = "cpu"
    gradient = native._zero_gradient()
    assert gradient.shape == params.shape
    assert not gradient.any()
    assert native._split(gradient)[1].data_ptr() % 16 == 0


def test_parameters_may_be_slices_of_others(module):
    x = torch.rand(40, 3)
    wanted = torch.autograd.grad(module(x).square().sum(), module.params)[0]
    whole = torch.cat([torch.zeros(1), module.params.detach()])
    torch.nn.utils.vector_to_parameters(whole, [torch.nn.Parameter(torch.zeros(1)), module.params])
    assert module.params.data_ptr() % 16 == 4
    found = torch.autograd.grad(module(x).square().sum(), module.params)[0]
    assert torch.equal(found, wanted)


class _Stage:
    """A launch of nothing that tells when it is freed."""

    commands = ()

    def __init__(self, events):
        self.events = events

    def __del__(self):
        self.events.append("freed")


class _Stream:
    def __init__(self, events):
        self.events = events

    def wait_stream(self, other):
        self.events.append("null stream waits")


@pytest.mark.parametrize("current", ["side", "null"])
def test_scratch_memory_is_freed_in_the_order_of_torchs_stream(monkeypatch, current):
    events = []
    streams = {"side": _Stream(events), "null": _Stream(events)}

    class Context:
        def __init__(self, device):
            pass

        def __enter__(self):
            events.append("enter")

        def __exit__(self, *error):
            events.append("exit")

    cuda = SimpleNamespace(
        current_stream=lambda device: streams[current],
        default_stream=lambda device: streams["null"],
        is_current_stream_capturing=lambda: False,
        device=lambda device: torch.no_grad(),
    )
    monkeypatch.setattr(memory, "on_torch_stream", Context)
    monkeypatch.setattr(memory.torch, "cuda", cuda)
    memory.run(lambda: [[_Stage(events)]], torch.device("cuda"))
    waits = ["null stream waits"] if current == "side" else []
    assert events == ["enter", *waits, "freed", "exit"]
