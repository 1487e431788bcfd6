"""Stratified samples, resampling by weights and compositing: the twins, and the laws."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.kernels import rows
from tests.hierarchical_case import SEED, STEP, Case
from tests.reference import hierarchical as twin
from tests.reference.mlp import from_blocks, to_blocks

# float32 distances of O(1) after a division and a product
TOLERANCE = 2e-6


@pytest.mark.parametrize("random", [False, True])
def test_strata_are_the_twin(random, device):
    it = Case(device)
    segment, t = it.strata(random, near=0.2)
    for r in range(it.n):
        ends = twin.segment(it.origin[r].astype(float), it.direction[r].astype(float), 0.2)
        u = twin.random_numbers(SEED, STEP, r, 8, 0) if random else it.jitter[r]
        assert np.allclose(segment[r], ends, atol=TOLERANCE)
        assert np.allclose(t[r], twin.strata(ends, 8, u), atol=TOLERANCE)
    assert not np.allclose(t, np.roll(t, 1, axis=0), atol=1e-3)


def test_strata_increase_and_each_has_its_own(device):
    it = Case(device, n_samples=64)
    segment, t = it.strata(random=True)
    t, segment = t[:-2], segment[:-2]
    share = (t - segment[:, :1]) / (segment[:, 1:] - segment[:, :1])
    assert np.all(np.diff(t, axis=1) >= 0)
    bins = np.arange(64)
    assert np.all(share * 64 >= bins - 1e-3)
    assert np.all(share * 64 <= bins + 1 + 1e-3)
    # 35 * 64 uniform numbers: their mean is within 4 standard errors of a half
    u = share * 64 - bins
    assert abs(u.mean() - 0.5) < 4 / np.sqrt(12 * u.size)


def test_segments_end_on_the_cube(device):
    it = Case(device)
    segment, _ = it.strata(random=False)
    assert np.all(segment[-2:] == 0)  # they miss
    assert np.all(segment[:-2, 1] > segment[:-2, 0])
    for end in (0, 1):
        p = it.origin + segment[:, end : end + 1] * it.direction
        outside = np.maximum(np.abs(p - 0.5) - 0.5, 0).max(axis=1)
        assert np.all(outside[:-2] < 1e-5)
    inside = np.all((it.origin > 0) & (it.origin < 1), axis=1)
    assert inside.any()
    assert np.all(segment[inside, 0] == 0)


def test_a_ray_along_an_axis(device):
    it = Case(device, n=4)
    it.origin[:] = [[-1, 0.5, 0.5], [-1, 1.5, 0.5], [0.5, 0.5, 3], [0.5, 0.5, 3]]
    it.direction[:] = [[1, 0, 0], [1, 0, 0], [0, 0, -1], [0, 0, 1]]
    segment, _ = it.strata(random=False)
    assert np.array_equal(segment, [[1, 2], [0, 0], [2, 3], [0, 0]])


def test_positions_are_the_rays(device):
    it = Case(device)
    _, t = it.strata(random=True)
    wanted = 2 * (it.origin[:, None] + t[..., None] * it.direction[:, None]) - 1
    assert np.allclose(it.positions(t), wanted, atol=TOLERANCE)


@pytest.mark.parametrize("random", [False, True])
def test_resampling_is_the_twin(random, device):
    it = Case(device)
    segment, t = it.strata(random)
    weights = np.random.default_rng(3).uniform(0.05, 0.2, t.shape).astype(np.float32)
    merged = it.resample(segment, t, weights, random)
    for r in range(it.n):
        u = twin.random_numbers(SEED, STEP, r, it.n_new, 1) if random else it.jitter[r]
        wanted = twin.resample(segment[r].astype(float), t[r], weights[r], it.n_new, u)
        assert np.allclose(merged[r], wanted, atol=10 * TOLERANCE)
    assert not np.allclose(merged, it.resample(segment, t, weights[::-1], random), atol=1e-3)


@pytest.mark.parametrize("kind", ["nothing", "one", "opaque at once", "steep"])
def test_merged_samples_are_sorted_within_the_segment(kind, device):
    it = Case(device, n=200, n_samples=64, n_new=128)
    segment, t = it.strata(random=True)
    weights = np.zeros_like(t)
    rng = np.random.default_rng(0)
    if kind == "one":
        weights[np.arange(200), rng.integers(0, 64, 200)] = 1
    elif kind == "opaque at once":
        weights[:, 0] = 1
    elif kind == "steep":
        weights[:] = np.exp(-40 * rng.random(t.shape))
        weights /= weights.sum(axis=1, keepdims=True)
    merged = it.resample(segment, t, weights, random=True)
    assert np.all(np.isfinite(merged))
    assert np.all(np.diff(merged, axis=1) >= 0)
    assert np.all(merged >= segment[:, :1])
    assert np.all(merged <= segment[:, 1:])
    for r in range(0, 200, 7):
        assert np.all(np.isin(t[r], merged[r]))  # the old ones are kept


def test_new_samples_follow_the_weights(device):
    """Kolmogorov-Smirnov: their distribution is the weights', spread over the intervals."""
    it = Case(device, n=400, n_samples=16, n_new=16)
    it.origin[:], it.direction[:] = [-1, 0.5, 0.5], [1, 0, 0]
    it.jitter[:] = 0.5
    segment, t = it.strata(random=False)
    weights = np.linspace(0.1, 2, 16) ** 2
    merged = it.resample(segment, t, np.tile(weights, (400, 1)), random=True)
    new = np.sort(np.concatenate([m[~np.isin(m, t[0])] for m in merged]))
    assert len(new) > 0.999 * 400 * 16
    cdf = np.concatenate([[0], np.cumsum(weights + twin.FLOOR)])
    wanted = np.interp(new, twin.edges(segment[0], t[0]), cdf / cdf[-1])
    distance = np.abs(wanted - (np.arange(len(new)) + 0.5) / len(new)).max()
    # 1.95 / sqrt(n) has one chance in a thousand of independent numbers; strata lie closer
    assert distance < 1.95 / np.sqrt(len(new))
    uniform = np.abs((new - 1) - (np.arange(len(new)) + 0.5) / len(new)).max()
    assert uniform > 10 * 1.95 / np.sqrt(len(new))


def scene(it, seed=4):
    """Segments, samples, raw densities on both sides of zero, colours, backgrounds."""
    rng = np.random.default_rng(seed)
    segment, t = it.strata(random=True)
    raw = rng.normal(0.3, 2, t.shape).astype(np.float32)
    rgb = rng.random((*t.shape, 3)).astype(np.float32)
    return segment, t, raw, rgb, rng.random((it.n, 3)).astype(np.float32)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_composite_is_the_twin(activation, device):
    it = Case(device)
    values = scene(it)
    color, opacity, depth, weights, after = it.composite(*values, 3.0, activation)
    for r in range(it.n):
        segment, t, raw, rgb, background = (v[r].astype(float) for v in values)
        wanted = twin.composite(segment, t, raw, rgb, 3.0, background, activation)
        got = color[r], opacity[r], depth[r], weights[r]
        for one, other in zip(got, wanted, strict=True):
            assert np.allclose(one, other, atol=5 * TOLERANCE)
    assert np.all(weights.sum(axis=1) <= 1 + 1e-6)
    assert np.allclose(after[:, -1], 1 - opacity, atol=TOLERANCE)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_composite_gradient_is_the_twin(activation, device):
    it = Case(device)
    values = scene(it)
    rng = np.random.default_rng(6)
    target, weight = rng.random((it.n, 3)), rng.uniform(0, 2, it.n)
    loss, d_raw, d_rgb = it.gradient(*values, target, weight, 3.0, activation)
    for r in range(it.n):
        segment, t, raw, rgb, background = (v[r].astype(float) for v in values)
        args = segment, t, raw, rgb, 3.0, background
        error = twin.composite(*args, activation)[0] - target[r]
        assert np.allclose(loss[r], [weight[r] * error @ error, error @ error], atol=1e-5)
        g = error * 2 * weight[r] / (3 * it.n)
        wanted = twin.composite_gradient(*args, g, activation)
        # the gradients are as small as 1 / n
        assert np.allclose(d_raw[r], wanted[0], atol=20 * TOLERANCE / it.n)
        assert np.allclose(d_rgb[r], wanted[1], atol=20 * TOLERANCE / it.n)
    assert np.abs(d_raw).max() > 1e-3
    assert not np.allclose(d_raw, np.roll(d_raw, 1, axis=1), atol=1e-3)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_twin_is_the_slope_of_itself(activation):
    values = [v[0].astype(float) for v in scene(Case("cpu"))]
    segment, t, raw, rgb, background = values
    g, h = np.array([0.3, -1.0, 0.7]), 1e-6

    def light(raw, rgb):
        args = segment, t, raw, rgb, 3.0, background, activation
        return twin.composite(*args)[0] @ g

    d_raw, d_rgb = twin.composite_gradient(segment, t, raw, rgb, 3.0, background, g, activation)
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=raw.shape), rng.normal(size=rgb.shape)
    slope = (light(raw + h * u, rgb + h * v) - light(raw - h * u, rgb - h * v)) / (2 * h)
    assert slope == pytest.approx((d_raw * u).sum() + (d_rgb * v).sum(), rel=1e-6)


@pytest.mark.parametrize("density", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("random", [False, True])
def test_a_constant_density_is_integrated_exactly(density, random, device):
    it = Case(device, n_samples=5)
    segment, t = it.strata(random)
    rgb = np.full((*t.shape, 3), 0.25)
    background = np.full((it.n, 3), 0.75)
    raw = np.full_like(t, density)
    color, opacity, _, _, _ = it.composite(segment, t, raw, rgb, background, 2.0)
    passed = np.exp(-2.0 * density * np.diff(segment, axis=1))
    assert np.allclose(opacity, 1 - passed[:, 0], atol=TOLERANCE)
    assert np.allclose(color, 0.25 + 0.5 * passed, atol=TOLERANCE)


def test_nothing_shows_the_background(device):
    it = Case(device)
    segment, t, raw, rgb, background = scene(it)
    color, opacity, depth, _, _ = it.composite(segment, t, -np.abs(raw), rgb, background)
    assert np.array_equal(color, background)
    assert np.all(opacity == 0)
    assert np.all(depth == 0)


def test_gradients_are_finite_over_16_magnitudes(device):
    it = Case(device, n_samples=33)
    segment, t, raw, rgb, background = scene(it)
    raw = (np.sign(raw) * np.logspace(-8, 8, 33)).astype(np.float32)
    target, weight = np.zeros((it.n, 3)), np.ones(it.n)
    for values in it.gradient(segment, t, raw, rgb, background, target, weight):
        assert np.all(np.isfinite(values))


def test_rays_that_do_not_count_are_left_alone(device):
    it = Case(device, count=20)
    segment, t = it.strata(random=True)
    assert np.all(segment[20:] == 0)
    assert np.all(t[20:] == 0)
    raw, rgb = np.ones_like(t), np.ones((*t.shape, 3))
    background, target = np.zeros((it.n, 3)), np.ones((it.n, 3))
    color = it.composite(segment, t, raw, rgb, background)[0]
    assert np.all(np.isnan(color[20:]))
    loss, d_raw, d_rgb = it.gradient(segment, t, raw, rgb, background, target, np.ones(it.n))
    assert np.all(np.isnan(loss[20:]))
    assert np.all(d_raw[20:] == 0)
    assert np.all(d_rgb[20:] == 0)
    assert np.abs(d_raw[:20]).max() > 0


def test_slices_are_the_whole(device):
    whole = Case(device)
    segment, t = whole.strata(random=True)
    part_segment, part = whole.strata(random=True, first=10, n=9)
    assert np.array_equal(part, t[10:19])
    assert np.array_equal(part_segment, segment[10:19])
    weights = np.ones_like(t)
    merged = whole.resample(segment, t, weights, random=True)
    assert np.array_equal(
        merged[10:19], whole.resample(part_segment, part, weights[10:19], random=True, first=10)
    )


def test_threads_do_not_matter():
    results = []
    for threads in (1, 3):
        launch.set_num_threads(threads)
        it = Case("cpu", n=100)
        values = scene(it)
        merged = it.resample(*values[:2], np.abs(values[2]), random=True)
        gradients = it.gradient(*values, values[4] * 0.5, np.ones(it.n))
        results.append([*values[:2], merged, *gradients])
    launch.set_num_threads(None)
    for one, three in zip(*results, strict=True):
        assert np.array_equal(one, three, equal_nan=True)


def test_rows_are_copied(device):
    rng = np.random.default_rng(0)
    source = rng.random((70, 9)).astype(np.float32)
    target = wp.full(3 * 12 * 32, 7.0, dtype=float, device=device)
    args = [wp.array(to_blocks(source).ravel(), device=device), 9, 2, 5, 12, 4, target]
    n_items = rows.copy_items(3, 5, device)
    launch.launch(rows.copy_rows_kernel(), n_items, args, device)
    found = from_blocks(target.numpy().reshape(3, 12, 32), 70)
    assert np.array_equal(found[:, 4:9], source[:, 2:7])
    assert np.all(found[:, :4] == 7)
    assert np.all(found[:, 9:] == 7)


def test_rows_are_spread(device):
    source = np.random.default_rng(0).random((40, 4)).astype(np.float32)
    target = wp.full(9 * 6 * 32, 7.0, dtype=float, device=device)
    args = [wp.array(to_blocks(source).ravel(), device=device), 4, 7, 6, 2, target]
    launch.launch(rows.spread_rows, 40 * 7, args, device)
    found = from_blocks(target.numpy().reshape(9, 6, 32), 280)
    assert np.array_equal(found[:, 2:], np.repeat(source, 7, axis=0))
    assert np.all(found[:, :2] == 7)
