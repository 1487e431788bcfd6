"""Compositing against the float64 twin, its gradients against central differences; laws."""

import itertools

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.config import Loss
from ngp_warp.kernels import composite as kernels
from ngp_warp.kernels import packed, radiance_counts
from ngp_warp.kernels.lanes import lane_items
from ngp_warp.kernels.loss import LOSSES
from ngp_warp.kernels.ray_lanes import ray_items
from tests import radiance_case as case
from tests.reference import composite as twin

GRADIENTS = ("raw", "colors", "background", "stops")


def make_rays(n_rays=12, seed=0, **changes):
    """Rays with 0 to 30 samples, everything the loss may ask for."""
    rng = np.random.default_rng(seed)
    rays = []
    for r in range(n_rays):
        n = rng.integers(0, 30) if r else 0
        t = np.sort(rng.uniform(0.5, 1.5, n))
        ray = {
            "raw": rng.uniform(0, 3.5, n),
            "colors": rng.uniform(0.1, 0.9, (n, 3)),
            "t": t,
            "length": rng.uniform(0.005, 0.02, n),
            "background": rng.uniform(0.1, 0.9, 3),
            "target": rng.uniform(0.1, 0.9, 3),
            "weight": [1.0, 0.7, 0.0][r % 3],
            "stops": rng.uniform(-0.5, 0.5, 3),
            "depth_target": rng.uniform(0.1, 1.5) * (r % 4 > 0),
            "span": (0.45, 1.6),
        }
        rays.append(ray | changes)
    return rays


def thickness(ray, settings):
    return twin.density(ray["raw"]) * ray["length"] * settings.aabb_scale


def with_thickness(rays, settings):
    return [ray | {"thickness": thickness(ray, settings)} for ray in rays]


class Case:
    """Rays in the kernels' arrays, every sample kept."""

    def __init__(self, rays, settings, device):
        self.rays, self.settings, self.device = rays, settings, device
        n = [len(ray["t"]) for ray in rays]
        self.parts = np.split(np.arange(sum(n)), np.cumsum(n)[:-1])
        capacity = (sum(n) // 32 + 2) * 32
        self.batch = case.ray_batch(
            settings, np.zeros((len(rays), 3)), np.ones((len(rays), 3)), device,
            **{name: np.array([ray[name] for ray in rays]).reshape(len(rays), -1)
               for name in ("weight", "target", "background", "depth_target")},
        )  # fmt: skip
        stops = np.array([ray["stops"] for ray in rays], np.float32)
        if settings.exposure:
            self.batch.exposure.assign(stops.reshape(-1))
        self.kept = packed.Kept()
        self.kept.n = wp.array(n, dtype=int, device=device)
        self.kept.end = wp.array(np.cumsum(n), dtype=int, device=device)
        self.kept.distance = self.samples("t", capacity)
        self.kept.length = self.samples("length", capacity)
        self.kept.thickness = self.array(
            np.concatenate([thickness(ray, settings) for ray in rays]), capacity
        )
        colors = np.zeros((capacity, 3), np.float32)
        colors[: sum(n)] = np.concatenate([ray["colors"] for ray in rays])
        self.rgb = self.array(colors.reshape(-1, 32, 3).transpose(0, 2, 1), capacity * 3)
        self.in_, self.out = kernels.Rays(), kernels.Composited()
        names = ["count", "weight", "target", "background", "depth_target", "exposure", "n_samples"]
        for name in names:
            setattr(self.in_, name, getattr(self.batch, name))
        self.in_.span = self.array(
            np.array([[ray["span"][0], 0, ray["span"][1]] for ray in rays]), len(rays) * 3
        )
        for name in ("color", "opacity", "depth", "loss", "d_background", "d_exposure"):
            setattr(self.out, name, getattr(self.batch, name))
        self.capacity = capacity

    def array(self, values, size):
        flat = np.zeros(size, np.float32)
        flat[: values.size] = np.asarray(values, np.float32).reshape(-1)
        return wp.array(flat, device=self.device)

    def samples(self, name, capacity):
        return self.array(np.concatenate([ray[name] for ray in self.rays]), capacity)

    def train(self):
        s, n_rays = self.settings, len(self.rays)
        counts = wp.zeros(kernels.DEPTH_CHUNKS, dtype=float, device=self.device)
        args = [self.batch.count, self.batch.capacity, kernels.DEPTH_CHUNKS]
        args += [self.batch.depth_target, self.batch.weight, counts]
        n_items = lane_items(kernels.DEPTH_CHUNKS, self.device)
        launch.launch(radiance_counts.depth_kernel, n_items, args, self.device)
        shape = kernels.CompositeShape(
            s.loss, s.color_space, s.exposure, s.background_gradients, s.distortion_weight > 0.0
        )
        self.weights, behind, self.d_raw = (
            wp.zeros(self.capacity, dtype=float, device=self.device) for _ in range(3)
        )
        self.d_rgb = wp.zeros(self.capacity * 3, dtype=float, device=self.device)
        args = [self.in_, self.kept, self.rgb, counts, s.depth_weight, s.distortion_weight]
        args += [self.weights, behind, self.out, self.d_rgb, self.d_raw]
        n_items = ray_items(n_rays, self.device)
        launch.launch(kernels.train_kernel(shape), n_items, args, self.device)
        return self

    def gradients(self):
        """Per ray: gradients by name."""
        d_rgb = self.d_rgb.numpy().reshape(-1, 3, 32).transpose(0, 2, 1).reshape(-1, 3)
        d_background = self.batch.d_background.numpy().reshape(-1, 3)
        d_stops = self.batch.d_exposure.numpy().reshape(-1, 3)
        d_raw = self.d_raw.numpy()
        return [
            {"raw": d_raw[p], "colors": d_rgb[p], "background": d_background[r], "stops": s}
            for r, (p, s) in enumerate(zip(self.parts, d_stops, strict=True))
        ]


def full_settings(**changes):
    options = {"exposure": True, "background_gradients": True, "aabb_scale": 4}
    options |= {"depth_weight": 0.3, "distortion_weight": 0.2, "min_transmittance": 0.0}
    return case.make_settings(**(options | changes))


def differences(rays, settings, name, r):
    """Central differences of the twin's loss in one quantity of ray r.

    The colour's loss is linearised, for some losses take their denominator as constant.
    """
    slopes = [twin.shown_slope(ray, settings) for ray in with_thickness(rays, settings)]
    out = np.zeros(np.shape(rays[r][name]))
    for i in np.ndindex(out.shape):
        values = []
        for sign in (1, -1):
            moved = rays[r][name].copy()
            moved[i] += sign * 1e-6
            changed = [*rays[:r], rays[r] | {name: moved}, *rays[r + 1 :]]
            values.append(twin.mean_loss(with_thickness(changed, settings), settings, slopes))
        out[i] = (values[0] - values[1]) / 2e-6
    return out


CASES = [{"loss": loss} for loss in LOSSES]
CASES += [{"color_space": "linear"}, {"depth_weight": 0.0}, {"distortion_weight": 0.0}]


@pytest.mark.parametrize("options", CASES, ids=str)
def test_losses_and_gradients_are_the_twins(options, device):
    settings, rays = full_settings(**options), make_rays()
    got = Case(rays, settings, device).train()
    losses = got.batch.loss.numpy().reshape(-1, 2)
    wanted = [sum(twin.ray_loss(ray, settings)) for ray in with_thickness(rays, settings)]
    np.testing.assert_allclose(losses[:, 0], wanted, rtol=2e-5, atol=1e-6)
    gradients = got.gradients()
    for r, name in itertools.product(range(len(rays)), GRADIENTS):
        expected = differences(rays, settings, name, r)
        # float32 sums of 30 samples; gradients are of the order of 1e-2
        np.testing.assert_allclose(gradients[r][name], expected, rtol=2e-4, atol=2e-6)
    assert max(np.abs(g["raw"]).max(initial=0) for g in gradients) > 1e-4
    assert max(np.abs(g["stops"]).max(initial=0) for g in gradients) > 1e-4


def long_rays():
    """Rays of up to 200 samples, through which some light passes."""
    rays = []
    for seed, n in enumerate([200, 0, 8, 65, 1, 130, 9]):
        rng = np.random.default_rng(seed)
        ray = make_rays(2, seed)[1] | {"t": np.sort(rng.uniform(0.5, 1.5, n))}
        ray |= {"raw": rng.uniform(-4, -0.5, n), "colors": rng.uniform(0.1, 0.9, (n, 3))}
        rays.append(ray | {"length": rng.uniform(0.005, 0.02, n)})
    return rays


def test_long_rays_are_the_twins(device):
    settings, rays = full_settings(), long_rays()
    got = Case(rays, settings, device).train()
    wanted = [sum(twin.ray_loss(ray, settings)) for ray in with_thickness(rays, settings)]
    # float32 sums of 200 samples
    np.testing.assert_allclose(got.batch.loss.numpy()[::2], wanted, rtol=1e-4, atol=1e-6)
    assert 0.05 < got.batch.opacity.numpy()[0] < 0.95
    for r, name in itertools.product((0, 3, 4), GRADIENTS):
        expected = differences(rays, settings, name, r)
        np.testing.assert_allclose(got.gradients()[r][name], expected, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("distortion_weight", [0.0, 0.2])
def test_a_ray_has_the_same_bits_among_other_rays(distortion_weight, device):
    settings, rays = full_settings(distortion_weight=distortion_weight), long_rays() + make_rays()
    forth = Case(rays, settings, device).train()
    back = Case(rays[::-1], settings, device).train()
    for name in ("color", "opacity", "depth", "loss"):
        a, b = (getattr(c.batch, name).numpy().reshape(len(rays), -1) for c in (forth, back))
        np.testing.assert_array_equal(a, b[::-1])
    for a, b in zip(forth.gradients(), back.gradients()[::-1], strict=True):
        for name in GRADIENTS:
            np.testing.assert_array_equal(a[name], b[name])


def test_the_comparison_can_fail(device):
    settings, rays = full_settings(), make_rays()
    gradients = Case(rays, settings, device).train().gradients()
    expected = differences(rays, settings, "raw", 4)
    assert not np.allclose(np.roll(gradients[4]["raw"], 1), expected, rtol=2e-4, atol=2e-6)


def test_colour_opacity_and_depth_are_the_twins(device):
    settings, rays = case.make_settings(aabb_scale=2), make_rays()
    got = Case(rays, settings, device)
    kernel = kernels.render_kernel(settings.exposure, settings.color_space)
    n_items = ray_items(len(rays), device)
    launch.launch(kernel, n_items, [got.in_, got.kept, got.rgb, got.out], device)
    rendered = {name: getattr(got.batch, name).numpy() for name in ("color", "opacity", "depth")}
    for r, ray in enumerate(rays):
        color, opacity, depth = twin.blend(
            thickness(ray, settings), ray["colors"], ray["t"], ray["background"]
        )
        # sums of 30 float32 values below 1
        np.testing.assert_allclose(rendered["color"][3 * r : 3 * r + 3], color, atol=3e-6)
        np.testing.assert_allclose(rendered["opacity"][r], opacity, atol=3e-6)
        np.testing.assert_allclose(rendered["depth"][r], depth, atol=5e-6)
    got.train()
    for name, values in rendered.items():
        np.testing.assert_array_equal(getattr(got.batch, name).numpy(), values)


def test_rays_without_weight_have_no_gradient(device):
    got = Case(make_rays(weight=0.0), full_settings(), device).train()
    assert (got.batch.loss.numpy() == 0).all()
    for array in (got.d_raw, got.d_rgb, got.batch.d_background, got.batch.d_exposure):
        assert (array.numpy() == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("color_space", ["srgb", "linear"])
def test_everything_is_finite_over_16_magnitudes(loss: Loss, color_space, device):
    settings = full_settings(loss=loss, color_space=color_space)
    for exponent in range(-8, 9):
        raw = np.full(30, exponent * np.log(10)) + np.linspace(-1, 1, 30)
        ray = make_rays(2)[1] | {"raw": raw, "colors": np.full((30, 3), 0.5)}
        ray |= {"t": np.linspace(0.5, 1.5, 30), "length": np.full(30, 0.03)}
        black = ray | {"colors": np.zeros((30, 3)), "background": np.zeros(3)}
        got = Case([ray, black, ray | {"raw": raw * 30}], settings, device).train()
        names = ("color", "opacity", "depth", "loss", "d_background", "d_exposure")
        arrays = [*(getattr(got.batch, name) for name in names), got.d_raw, got.d_rgb, got.weights]
        assert all(np.isfinite(a.numpy()).all() for a in arrays)
        for p in got.parts:
            assert 0 <= got.weights.numpy()[p].sum() <= 1 + 1e-6


def test_a_density_beyond_the_clamp_can_fall_again(device):
    # a thin sample of more than e^15 before a background that the target prefers
    ray = make_rays(2)[1] | {"raw": np.array([16.0]), "colors": np.array([[0.9, 0.9, 0.9]])}
    ray |= {"t": np.array([1.0]), "length": np.array([1e-7]), "target": np.array([0.2, 0.2, 0.2])}
    ray |= {"background": np.array([0.2, 0.2, 0.2]), "stops": np.zeros(3), "depth_target": 0.0}
    got = Case([ray], full_settings(), device).train()
    assert got.d_raw.numpy()[0] > 1e-3


@pytest.mark.parametrize("min_transmittance", [0.0, 1e-4, 0.3])
def test_a_ray_ends_where_nothing_passes(min_transmittance, device):
    rng = np.random.default_rng(0)
    n = np.array([0, 40, 24, 9, 120, 31])
    total = int(n.sum())
    raw, length = rng.uniform(2, 5, total), rng.uniform(0.005, 0.02, total)
    geometry = case.geometry_of(raw, device)
    arrays = [wp.array(v, dtype=int, device=device) for v in (n, np.cumsum(n))]
    thickness_ = wp.zeros(total, dtype=float, device=device)
    n_kept = wp.zeros(len(n), dtype=int, device=device)
    args = [*arrays, geometry, 16, wp.array(length, dtype=float, device=device), 2.0]
    args += [min_transmittance, thickness_, n_kept]
    launch.launch(packed.transmittance_kernel, ray_items(len(n), device), args, device)
    wanted = twin.density(raw) * length * 2
    parts = np.split(np.arange(total), np.cumsum(n)[:-1])
    kept = [twin.kept(wanted[p], min_transmittance) for p in parts]
    np.testing.assert_array_equal(n_kept.numpy(), kept)
    for p, k in zip(parts, kept, strict=True):
        np.testing.assert_allclose(thickness_.numpy()[p[:k]], wanted[p[:k]], rtol=1e-5)
    assert min_transmittance == 0 or 0 < kept[1] < 40
