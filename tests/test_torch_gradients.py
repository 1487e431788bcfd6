"""Gradients of torch modules to second order against float64 twins, for all inputs at once.

With S = <v, dx> + <u, d params>, dy being held, S is the derivative of <y, dy> along (v, u): its
gradients are the derivatives along (v, u) of y, dx and d params, which the twin gives by central
differences of its first order.
"""

import numpy as np
import pytest
import torch
import torch_case
from torch_case import ENCODINGS, PADDINGS, encoding_runner, error, field_runner

import ngp_warp.torch as tcnn
from ngp_warp.errors import ConfigError
from tests.reference import mlp

# float32 sums of some tens of O(1) terms, positions rounded to 2^-19 of a cell (test_encodings.py)
TOLERANCE = 3e-5
# behind a network of three layers: sums of sums; on CUDA its operands have 11 bits
NETWORK_TOLERANCE = {"cpu": 1e-4, "cuda": 3e-2}
ACTIVATIONS = ["None", "ReLU", "LeakyReLU", "Exponential", "Sine", "Sigmoid", "SiLU", "Squareplus",
               "Softplus", "Tanh"]  # fmt: skip


@pytest.fixture(params=ENCODINGS.values(), ids=ENCODINGS)
def runner(request, device):
    return encoding_runner(request.param, device)


@pytest.fixture(autouse=True)
def twins_know_silu(monkeypatch):
    monkeypatch.setitem(mlp.ACTIVATIONS, "silu", torch_case.ACTIVATIONS["silu"])


def assert_close(got, wanted, tolerance):
    for a, b in zip(got, wanted, strict=True):
        assert error(a, b) < tolerance
        if np.abs(b).max(initial=0) > 0.1:
            assert error(-a, b) > 0.1 > tolerance  # a wrong sign would be noticed


def test_an_encodings_first_order(runner):
    assert_close(runner.first(), runner.twin_first(), TOLERANCE)


def test_an_encodings_second_order(runner):
    assert_close(runner.second(), runner.twin_second(), 3 * TOLERANCE)


def test_an_encodings_second_order_in_the_points_alone(runner):
    assert_close(runner.second(False), runner.twin_second(False), 3 * TOLERANCE)


@pytest.mark.parametrize("name", PADDINGS)
def test_a_fields_first_and_second_order(name, device):
    runner = field_runner(name, device)
    tolerance = NETWORK_TOLERANCE[device.partition(":")[0]]
    assert_close(runner.first(), runner.twin_first(), tolerance)
    assert_close(runner.second(), runner.twin_second(), 3 * tolerance)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_to_second_order(activation):
    # the output's own differs, so that both are told apart
    other = ACTIVATIONS[(ACTIVATIONS.index(activation) + 3) % len(ACTIVATIONS)]
    runner = field_runner("HashGrid smoothstep 3D", "cpu", activation, other)
    assert_close(runner.first(), runner.twin_first(), 1e-4)
    assert_close(runner.second(), runner.twin_second(), 3e-4)


@pytest.mark.parametrize(("n_neurons", "n_hidden_layers", "n_out"), [(40, 3, 17), (16, 0, 2)])
def test_networks_of_any_width_and_depth(n_neurons, n_hidden_layers, n_out):
    shape = {"n_neurons": n_neurons, "n_hidden_layers": n_hidden_layers, "n_out": n_out}
    runner = field_runner("frequency", "cpu", "Tanh", otype="CutlassMLP", **shape)
    assert_close(runner.first(), runner.twin_first(), 1e-4)
    assert_close(runner.second(), runner.twin_second(), 3e-4)


def test_another_point_would_be_noticed():
    runner = field_runner("HashGrid smoothstep 3D", "cpu")
    wanted = runner.twin_first()
    runner.x = np.roll(runner.x, 1, axis=0)
    for got, value in zip(runner.first(), wanted, strict=True):
        assert error(got, value) > 1e-2


def test_both_ways_of_the_first_order_agree():
    # with create_graph the network is torch's, without it is ours
    runner = field_runner("HashGrid smoothstep 3D", "cpu")
    x = runner.tensor(runner.x, True)
    wanted = x, runner.module.params
    for kept in (False, True):
        y = runner.module(x)
        found = torch.autograd.grad(y.square().sum(), wanted, create_graph=kept)
        assert all(g.requires_grad == kept for g in found)
        if not kept:
            first = found
    for a, b in zip(first, found, strict=True):
        assert error(a.numpy(), b.detach().numpy()) < 1e-4


def test_an_eikonal_loss_learns():
    """From almost constant to slopes of one: only second order tells it how."""
    torch.manual_seed(0)
    grid = {"otype": "DenseGrid", "n_levels": 2, "base_resolution": 4, "per_level_scale": 2.0,
            "interpolation": "Smoothstep"}  # fmt: skip
    network = {"otype": "FullyFusedMLP", "activation": "Softplus", "n_neurons": 32,
               "n_hidden_layers": 1}  # fmt: skip
    model = tcnn.NetworkWithInputEncoding(3, 1, grid, network)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(80):
        x = torch.rand(256, 3, requires_grad=True)
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        loss = (slope.norm(dim=1) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.8
    assert losses[-1] < 0.1


@pytest.mark.parametrize("name", ["frequency", "HashGrid smoothstep 3D"])
def test_a_third_order_is_refused(name):
    runner = encoding_runner(ENCODINGS[name], "cpu")
    x = runner.tensor(runner.x, True)
    (slope,) = torch.autograd.grad(runner.module(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    with pytest.raises(ConfigError, match="not a third time"):
        second.sum().backward()


def test_only_what_is_asked_for_is_computed(monkeypatch):
    from ngp_warp.torch.native import Native

    asked = []
    original = Native.backward
    monkeypatch.setattr(Native, "backward", lambda *args: asked.append(args[5]) or original(*args))
    runner = field_runner("HashGrid smoothstep 3D", "cpu")
    x, params = runner.tensor(runner.x, True), runner.module.params
    torch.autograd.grad(runner.module(x).sum(), x)
    torch.autograd.grad(runner.module(x).sum(), params)
    torch.autograd.grad(runner.module(x * 1).sum(), x)
    runner.module(x.detach()).sum().backward()
    runner.module(x).sum().backward()
    params.requires_grad_(False)
    runner.module(x).sum().backward()
    wanted = [(True, False), (False, True), (True, False), (False, True), (True, True)]
    assert asked == [*wanted, (True, False)]
    assert not runner.module(x.detach()).requires_grad
