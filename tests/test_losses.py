"""The losses against their float64 twin, and their laws."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.losses import loss_and_gradient
from tests.reference import losses, mlp

N, N_OUT = 77, 3


def run(loss, p, t, device, n=N, n_points=None):
    arrays = [wp.array(mlp.to_blocks(a, 1e30).ravel(), device=device) for a in (p, t)]
    d = wp.full(arrays[0].size, 7.0, dtype=float, device=device)
    sums = wp.zeros(arrays[0].size // (32 * p.shape[1]) * 2, dtype=float, device=device)
    item = loss_and_gradient(
        *arrays, n_points or n, p.shape[1], loss, d_prediction=d, sums=sums, device=device
    )
    item.run()
    return d.numpy().reshape(-1, p.shape[1], 32), sums.numpy().reshape(-1, 2)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N, N_OUT)).astype(np.float32), rng.normal(size=(N, N_OUT)).astype(
        np.float32
    )


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_loss_is_the_twin(loss, device):
    p, t = batch()
    p[::3] = t[::3] + 0.03 * p[::3]  # both sides of Huber's bend
    d, sums = run(loss, p, t, device)
    value, gradient = losses.loss(loss, p, t)
    # a handful of float32 operations, relative to the largest slope 1 / 0.01
    np.testing.assert_allclose(
        mlp.from_blocks(d, N) * N * N_OUT, gradient, rtol=2e-5, atol=1e-6 * np.abs(gradient).max()
    )
    for block in range(3):
        part = slice(32 * block, 32 * block + 32)
        np.testing.assert_allclose(sums[block, 0], value[part].sum(), rtol=1e-4)
        np.testing.assert_allclose(sums[block, 1], ((p - t)[part] ** 2).sum(), rtol=1e-4)
    wrong, _ = losses.loss(loss, np.roll(p, 1, axis=0), t)
    assert not np.allclose(sums[:, 0].sum(), wrong.sum(), rtol=1e-4)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_gradient_is_the_slope_of_the_value(loss):
    """The twin's gradient against finite differences, its denominator held constant."""
    p, t = (a.astype(np.float64) for a in batch(1))
    value, gradient = losses.loss(loss, p, t)
    h = 1e-7
    up, down = losses.loss(loss, p + h, t)[0], losses.loss(loss, p - h, t)[0]
    if loss in {"relative_l2", "smape"}:
        factor = {
            "relative_l2": lambda q: q**2 + 0.01,
            "smape": lambda q: 0.5 * (np.abs(q) + np.abs(t)) + 0.01,
        }[loss]
        up, down = up * factor(p + h) / factor(p), down * factor(p - h) / factor(p)
    np.testing.assert_allclose((up - down) / (2 * h), gradient, rtol=1e-4, atol=1e-4)
    assert np.all(value >= 0)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_padding_counts_for_nothing(loss, device):
    p, t = batch()
    d, sums = run(loss, p, t, device)
    assert np.all(d[2, :, N - 64 :] == 0.0)
    assert np.all(np.isfinite(sums))
    p[:], t[:] = t, t
    d, sums = run(loss, p, t, device)
    assert np.all(d == 0.0)
    assert np.all(sums == 0.0)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_values_stay_finite_over_many_magnitudes(loss, device):
    p = np.array([[10.0**e] for e in range(-30, 16)], np.float32)
    d, sums = run(loss, p, -p, device, n=len(p))
    assert np.all(np.isfinite(d))
    assert np.all(np.isfinite(sums))


def test_threads_do_not_matter():
    p, t = batch()
    results = []
    for threads in (1, 3):
        launch.set_num_threads(threads)
        results.append(run("huber", p, t, "cpu"))
    launch.set_num_threads(None)
    for one, three in zip(*results, strict=True):
        assert np.array_equal(one, three)


def test_a_range_of_blocks_leaves_the_others_alone(device):
    p, t = batch()
    arrays = [wp.array(mlp.to_blocks(a).ravel(), device=device) for a in (p, t)]
    d = wp.full(arrays[0].size, 7.0, dtype=float, device=device)
    sums = wp.full(6, 7.0, dtype=float, device=device)
    loss_and_gradient(
        *arrays, N, N_OUT, "l2", d_prediction=d, sums=sums, device=device, first_block=1, n_blocks=1
    ).run()
    whole, whole_sums = run("l2", p, t, device)
    got = d.numpy().reshape(-1, N_OUT, 32)
    assert np.all(got[[0, 2]] == 7.0)
    assert np.array_equal(got[1], whole[1])
    assert np.array_equal(sums.numpy().reshape(-1, 2)[1], whole_sums[1])


def test_bad_arguments_are_refused(device):
    x, sums = wp.zeros(96, dtype=float, device=device), wp.zeros(2, dtype=float, device=device)
    with pytest.raises(ConfigError, match="loss must be one of l2"):
        loss_and_gradient(x, x, 3, 3, "l3", d_prediction=x, sums=sums, device=device)
    with pytest.raises(ShapeError, match="target must have 96 values, got 2"):
        loss_and_gradient(x, sums, 3, 3, "l2", d_prediction=x, sums=sums, device=device)
