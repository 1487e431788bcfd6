"""A whole training step of a field: the loss falls, steps repeat, kernels of both kinds agree."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch, samplers
from ngp_warp.config import GridEncodingConfig, NetworkConfig, OptimizerConfig
from ngp_warp.encodings import grid
from ngp_warp.encodings.grid import GridEncoding, resolve
from ngp_warp.field import Field
from ngp_warp.networks.unfused import UnfusedMLP
from ngp_warp.optimizer import Adam, make_table
from ngp_warp.recording import recorded_step

N = 2048
ENCODING = resolve(
    GridEncodingConfig(
        n_levels=6, log2_hashmap_size=10, base_resolution=8, per_level_scale=1.6
    )
)  # fmt: skip


@wp.kernel(enable_backward=False)
def waves(begin: int, x: wp.array(dtype=float), target: wp.array(dtype=float)):
    i = begin + wp.tid()
    block = i / 32
    u, v = x[block * 64 + i % 32], x[block * 64 + 32 + i % 32]
    target[(block * 2) * 32 + i % 32] = 0.5 + 0.4 * wp.sin(20.0 * u + 3.0 * v)
    target[(block * 2 + 1) * 32 + i % 32] = u * v


class Training:
    """A small field that learns two waves."""

    def __init__(self, device, *, deterministic=False, average=0.0, dtype="float32", **network):
        self.device = device
        self.optimizer_config = OptimizerConfig(ema_decay=average)
        self.field = Field(
            2,
            2,
            encoding=GridEncodingConfig(**{**vars(ENCODING), "dtype": dtype}),
            network=NetworkConfig(**{"n_neurons": 32, "n_hidden_layers": 1, **network}),
            optimizer=self.optimizer_config,
            seed=3,
            device=device,
            deterministic=deterministic,
        )

    def use_portable(self, fixed_point):
        """Put the kernels that serve CUDA in the place of the CPU's."""
        f = self.field
        f.encoding = GridEncoding(2, f.encoding.config, self.device, "portable")
        f.network = UnfusedMLP(f.network.config, f.network.n_in, 2, self.device, "portable")
        f.table = make_table(
            f.encoding.initial_table(3),
            f.encoding.n_features,
            self.optimizer_config,
            self.device,
            fixed_point=fixed_point,
        )
        f.optimizer = Adam(self.optimizer_config, [f.weights, f.table], self.device, "portable")

    def run(self, n_steps, graph=True):
        """Train; return the mean loss of every step."""
        f = self.field
        x, target = f.zeros(N, 2), f.zeros(N, 2)
        training, sums = f.train_stages(x, target, N, "l2")
        stages = [
            [f.optimizer.advance()],
            [samplers.sample("stratified", 2, 5, f.optimizer.step, x, self.device)],
            [launch.record(waves, N, [x, target], self.device)],
            *training,
        ]
        if not graph:
            stages[0][0].capturable = False
        step = recorded_step(stages, self.device)
        del stages, training, x, target
        f.optimizer.n_steps.assign(np.array([n_steps], np.int64))
        losses = []
        for _ in range(n_steps):
            step()
            losses.append(sums.numpy().reshape(-1, 2)[:, 0].sum() / (2 * N))
        return np.array(losses)

    def state(self):
        return {
            f"{name}.{part}": array.numpy().copy()
            for name, p in self.field.parameters().items()
            for part, array in p.state().items()
        }


def same(a, b):
    assert a.keys() == b.keys()
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "settings",
    [{}, {"deterministic": True}, {"average": 0.9, "dtype": "float16"}, {"bias": True}],
    ids=str,
)
def test_the_loss_falls(device, settings):
    losses = Training(device, **settings).run(50)
    assert np.all(np.isfinite(losses))
    assert losses[-1] < 0.1 * losses[0]


def test_deterministic_runs_are_bit_identical(device):
    runs = [Training(device, deterministic=True) for _ in range(2)]
    losses = [it.run(50) for it in runs]
    assert np.array_equal(*losses)
    assert same(runs[0].state(), runs[1].state())
    runs[0].run(1)
    assert not same(runs[0].state(), runs[1].state())


def test_flags_change_nothing(device, monkeypatch):
    """On CUDA a plane's large table has them, and others do not."""
    runs = []
    for large in (2**24, 0):
        monkeypatch.setitem(grid._LARGE, 2, large)
        runs.append(Training(device, deterministic=True))
        runs[-1].run(20)
    flagged = [it.field.table.touched is not None for it in runs]
    assert flagged == [device == "cpu", True]
    assert same(runs[0].state(), runs[1].state())
    assert not runs[1].field.table.touched.numpy().any()


def test_a_graph_is_its_launches(device):
    """On CUDA a captured step against one that is launched; on a CPU there is no graph."""
    runs = [Training(device, deterministic=True) for _ in range(2)]
    losses = [it.run(20, graph) for it, graph in zip(runs, (True, False), strict=True)]
    assert np.array_equal(*losses)
    assert same(runs[0].state(), runs[1].state())


@pytest.mark.parametrize("fixed_point", [False, True])
def test_kernels_of_both_devices_train_alike(fixed_point):
    vector, portable = Training("cpu"), Training("cpu")
    portable.use_portable(fixed_point)
    a, b = vector.run(20), portable.run(20)
    # the sums' order differs, and Adam's first steps magnify the last bits of tiny gradients
    np.testing.assert_allclose(a, b, rtol=2e-2)
    assert not np.array_equal(a, b)
    assert np.all(portable.field.table.touched.numpy() == 0)
    assert np.all(portable.field.table.gradient.numpy() == 0)
    counts = [it.field.table.count.numpy() for it in (vector, portable)]
    assert np.array_equal(*counts)


def test_queries_and_gradients_agree_with_the_last_state(device):
    it = Training(device)
    it.run(50)
    points = np.random.default_rng(0).random((100, 2))
    values, jacobian = it.field.value_and_gradient(points)
    wanted = 0.5 + 0.4 * np.sin(20 * points[:, 0] + 3 * points[:, 1])
    assert np.abs(values[:, 0] - wanted).mean() < 0.1
    assert np.array_equal(values, it.field.query(points))
    slope = 8 * np.cos(20 * points[:, 0] + 3 * points[:, 1])
    assert np.corrcoef(jacobian[:, 0, 0], slope)[0, 1] > 0.8
