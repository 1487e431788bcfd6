"""The tensor-core network behind the protocol that all networks share.

On "cpu" its instructions are emulated, as in test_mlp_cuda.py.
"""

from dataclasses import replace

import numpy as np
import pytest
import warp as wp

from ngp_warp.config import NetworkConfig
from ngp_warp.kernels import mlp_cuda_network
from ngp_warp.networks.fused_cuda import FusedCudaMLP
from ngp_warp.networks.unfused import UnfusedMLP
from tests.reference import mlp

N, N_IN, N_OUT = 70, 20, 3
CONFIG = NetworkConfig(n_neurons=32, activation="tanh", output_activation="sigmoid")
# Half operands (2^-11 each) through three products, against float32.
HALF = 1e-2


@pytest.fixture(autouse=True)
def cooperative_blocks(monkeypatch):
    monkeypatch.setattr(wp.config, "enable_cpu_blocks", True)


class Batch:
    """The same batch for every network: flat blocked arrays."""

    def __init__(self, network, device):
        rng = np.random.default_rng(0)
        self.device, self.network = device, network
        self.w = wp.array(network.initial_weights(1), dtype=wp.float32, device=device)
        self.x = self.array(rng.uniform(-1, 1, (N, N_IN)))
        self.target = self.array(rng.uniform(0, 1, (N, N_OUT)))
        self.dy = self.array(rng.normal(size=(N, N_OUT)))
        self.y = wp.zeros_like(self.dy)
        self.dx = wp.zeros_like(self.x)
        self.dw = wp.zeros_like(self.w)

    def array(self, values):
        return wp.array(mlp.to_blocks(values).ravel(), dtype=wp.float32, device=self.device)

    def forward(self):
        run(self.network.forward(self.w, self.x, self.y))
        return self.y.numpy().copy()

    def backward(self, **scale):
        run(self.network.backward(self.w, self.x, self.dy, self.dx, self.dw, **scale))
        return self.dx.numpy().copy(), self.dw.numpy().copy()

    def train(self):
        items, losses = self.network.train(
            self.w, self.x, self.target, N, "huber", self.dx, self.dw
        )
        run(items)
        sums = losses.numpy().reshape(-1, 2).sum(axis=0)
        return self.dx.numpy().copy(), self.dw.numpy().copy(), sums


def run(items):
    for item in items:
        item.run()


def error(got, wanted):
    assert np.all(np.isfinite(got))
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


@pytest.fixture
def batches(device):
    """The network on tensor cores, and in float32."""
    return (
        Batch(FusedCudaMLP(CONFIG, N_IN, N_OUT, device), device),
        Batch(UnfusedMLP(CONFIG, N_IN, N_OUT, device), device),
    )


def test_weights_are_laid_out_alike(batches):
    half, single = batches
    assert np.array_equal(half.w.numpy(), single.w.numpy())
    assert half.network.n_params == single.network.n_params


def test_forward_agrees(batches):
    half, single = batches
    y, wanted = half.forward(), single.forward()
    points = [mlp.from_blocks(v.reshape(-1, N_OUT, 32), N) for v in (y, wanted)]
    assert error(*points) < HALF
    assert error(np.roll(points[0], 1, axis=0), points[1]) > HALF


def test_gradients_agree(batches):
    half, single = batches
    for got, wanted in zip(half.backward(), single.backward(), strict=True):
        assert error(got, wanted) < HALF
    for got, wanted in zip(half.train(), single.train(), strict=True):
        assert error(got, wanted) < HALF


def test_small_gradients_need_their_scale(batches):
    half, single = batches
    for batch in batches:
        batch.dy.assign(batch.dy.numpy() * 1e-10)
    wanted = single.backward()
    for got, exact in zip(half.backward(gradient_scale=1e11), wanted, strict=True):
        assert error(got, exact) < HALF
    # without it every delta is below the smallest half
    assert error(half.backward()[1], wanted[1]) > HALF


def test_padding_has_no_gradient(batches):
    half, _ = batches
    dx, _, _ = half.train()
    assert np.all(dx.reshape(-1, N_IN, 32)[-1, :, N - 64 :] == 0.0)


def test_blocks_that_do_not_count_are_left_out(batches):
    half, _ = batches
    wanted = half.forward().reshape(-1, N_OUT, 32)
    count = wp.array([33], dtype=int, device=half.device)
    half.y.fill_(7.0)
    run(half.network.forward(half.w, half.x, half.y, count))
    y = half.y.numpy().reshape(-1, N_OUT, 32)
    assert np.array_equal(y[:2], wanted[:2])
    assert np.all(y[2:] == 7)
    count.fill_(N)
    run(half.network.forward(half.w, half.x, half.y, count))
    assert np.array_equal(half.y.numpy().reshape(y.shape), wanted)


@pytest.mark.parametrize("n", [0, 1, 33, 64, N])
def test_gradients_of_points_that_do_not_count_are_left_out(n, batches, monkeypatch):
    # one kernel, then two; a block a slice: slices that count as a whole, in part and not at all
    network = batches[0].network
    for fused, slice_blocks in ((True, 4096), (False, 4096), (False, 1)):
        monkeypatch.setattr(network, "kernels", replace(network.kernels, fused=fused))
        monkeypatch.setattr(mlp_cuda_network, "SLICE_BLOCKS", slice_blocks)
        half = Batch(network, batches[0].device)
        count = wp.array([n], dtype=int, device=half.device)
        dy = half.dy.numpy().reshape(-1, N_OUT, 32)
        kept = mlp.from_blocks(dy, N)
        kept[n:] = 0
        half.dy.assign(mlp.to_blocks(kept).ravel())
        dx, dw = half.backward()
        # what is behind is not looked at, and what earlier steps left is overwritten
        kept[n:] = 1e4
        half.dy.assign(mlp.to_blocks(kept).ravel())
        half.dx.fill_(7.0)
        half.dw.fill_(7.0)
        found = half.backward(count=count)
        assert np.array_equal(found[0], dx)
        assert np.array_equal(found[1], dw)
        assert found[1].any() == (n > 0)
        assert not found[0].reshape(-1, N_IN, 32)[-(-n // 32) :].any()


def test_a_count_that_is_not_read_would_be_noticed(batches):
    half, _ = batches
    count = wp.array([33], dtype=int, device=half.device)
    few = half.backward(count=count)
    assert not np.array_equal(few[1], half.backward()[1])


def test_no_points_are_no_work(device):
    network = FusedCudaMLP(CONFIG, N_IN, N_OUT, device)
    none = wp.zeros(0, dtype=float, device=device)
    w = wp.array(network.initial_weights(1), dtype=wp.float32, device=device)
    dw = wp.zeros_like(w)
    assert network.forward(w, none, none) == []
    assert network.backward(w, none, none, none, dw) == []
    items, losses = network.train(w, none, none, 0, "l2", none, dw)
    assert items == []
    assert losses.size == 0
