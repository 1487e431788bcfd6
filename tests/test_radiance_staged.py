"""The staged training step against the float64 twin of the whole field; its gradients; laws."""

import numpy as np
import pytest
import warp as wp
from capture_case import use_cuda_kernels

from ngp_warp import launch
from ngp_warp.config import GridEncodingConfig, NetworkConfig, OptimizerConfig
from ngp_warp.encodings.grid import GridEncoding, resolve
from ngp_warp.errors import ConfigError
from ngp_warp.optimizer import make_table, make_weights
from ngp_warp.radiance.occupancy import OccupancyGrid
from ngp_warp.radiance.staged import StagedRadiance, initial_weights
from tests import radiance_case as case
from tests.reference.radiance import FieldTwin

UNFUSED = {
    "density_network": NetworkConfig(n_neurons=24, n_hidden_layers=2, bias=True, skip_layer=1),
    "color_network": NetworkConfig(n_neurons=20, bias=True, output_activation="sigmoid"),
}
FULL = {
    "ray_gradients": True,
    "background_gradients": True,
    "exposure": True,
    "n_views": 5,
    "n_latent_dims": 3,
    "depth_weight": 0.3,
    "distortion_weight": 0.2,
}
CASES = [{}, FULL, FULL | UNFUSED, FULL | {"aabb_scale": 4, "cone_angle": 1 / 64}]


@pytest.fixture
def _one_thread():
    # emulated lanes meet in static memory
    launch.set_num_threads(1)
    yield
    launch.set_num_threads(None)


def after_start(device):
    """A step whose batches are whole."""
    return wp.array([1000], dtype=wp.int64, device=device)


class Field:
    """A staged field with parameters of the order of 1.

    ``repeatable``: on CUDA too the table's gradients are the same bits each time.
    """

    def __init__(self, device, seed=0, *, repeatable=False, **options):
        # all samples count, so that the loss is differentiable
        smooth = GridEncodingConfig(
            n_levels=3, n_features_per_level=2, log2_hashmap_size=10, finest_resolution=16,
            interpolation="smoothstep",
        )  # fmt: skip
        base = {"encoding": resolve(smooth), "min_transmittance": 0.0, "steps": 48}
        self.settings = s = case.make_settings(**(base | options))
        rng, self.device = np.random.default_rng(seed), device
        self.encoding = GridEncoding(3, s.encoding, device)
        table = rng.uniform(-1, 1, self.encoding.n_params).astype(np.float32)
        weights = initial_weights(s, self.encoding.n_outputs, device, seed)
        weights += rng.uniform(-0.1, 0.1, weights.size).astype(np.float32)
        optimizer = OptimizerConfig()
        fixed_point = repeatable and device != "cpu"
        self.table = make_table(
            table, self.encoding.n_features, optimizer, device, fixed_point=fixed_point
        )
        self.weights = make_weights(weights, optimizer, device)
        self.latents = None
        if s.n_latent_dims:
            n = s.n_views * s.n_latent_dims
            values = rng.uniform(-1, 1, n).astype(np.float32)
            self.latents = make_weights(values, optimizer, device)
        self.occupancy = case.grid_of(s, case.blobs(s, radius=0.3), device)
        self.staged = StagedRadiance(
            s, self.encoding, self.table, self.weights, self.latents, self.occupancy
        )

    def twin(self):
        shape = (-1, self.settings.n_latent_dims)
        return FieldTwin(
            self.settings,
            self.encoding.levels,
            self.weights.value.numpy(),
            self.table.value.numpy().reshape(-1, self.encoding.n_features),
            None if self.latents is None else self.latents.value.numpy().reshape(shape),
        )

    def train(self, batch):
        """Run one step; return the counts."""
        totals, last = (wp.zeros(4, dtype=wp.int64, device=self.device) for _ in range(2))
        n_rays = wp.zeros(1, dtype=int, device=self.device)
        case.run(self.staged.train(batch, after_start(self.device), n_rays, totals, last))
        return last.numpy(), n_rays.numpy()[0]


def make_batch(field, n=24, seed=1, **changes):
    """A batch, and the same as float64 arrays for the twin."""
    rng = np.random.default_rng(seed)
    o, d = case.random_rays(n, seed)
    arrays = {
        "origin": o,
        "direction": d,
        "jitter": rng.random((n, 1)),
        "view": rng.integers(-1, max(field.settings.n_views, 1), (n, 1)),
        "weight": rng.choice([0.0, 0.5, 1.0], (n, 1)),
        "target": rng.random((n, 3)),
        "background": rng.random((n, 3)),
        "depth_target": rng.random((n, 1)) * (rng.random((n, 1)) < 0.7),
    } | changes
    stops = rng.uniform(-0.5, 0.5, (n, 3)).astype(np.float32)
    exposure = {"exposure": stops} if field.settings.exposure else {}
    batch = case.ray_batch(field.settings, device=field.device, **_renamed(arrays), **exposure)
    values = {name: getattr(batch, name).numpy().astype(np.float64) for name in arrays}
    values = {n: v.reshape(-1, 3) if v.size == 3 * len(o) else v for n, v in values.items()}
    values["view"] = values["view"].astype(int)
    return batch, values | {"stops": stops.astype(np.float64)}


def _renamed(arrays):
    rest = {name: v for name, v in arrays.items() if name not in ("origin", "direction")}
    return {"o": arrays["origin"], "d": arrays["direction"], **rest}


def samples_of(field, batch, values):
    """(t, dt) of every ray, and where each enters and leaves the box."""
    samples = case.march(field.settings, field.occupancy, batch)
    span = samples.span.numpy().reshape(-1, 3).astype(np.float64)
    values["span"] = span[:, [0, 2]]
    lists = case.sample_lists(samples)
    return [(t.astype(np.float64), dt.astype(np.float64)) for t, dt, _ in lists]


def slope(function, e=1e-5):
    return (function(e) - function(-e)) / (2 * e)


@pytest.mark.parametrize("options", CASES, ids=["plain", "full", "unfused", "cascades"])
def test_gradients_of_a_step_are_the_twins(options, device):
    field = Field(device, **options)
    batch, values = make_batch(field)
    samples = samples_of(field, batch, values)
    n_density = field.staged.density_network.n_params
    field.train(batch)
    twin = field.twin()
    rng = np.random.default_rng(5)
    limit = case.tolerance(2e-3, 2e-2, device, field.settings.color_network)  # half: 2^-11 each

    def check(name, target, gradient):
        """Along random directions in all of it and in a part of it."""
        gradient = np.asarray(gradient, np.float64).reshape(target.shape)
        assert np.abs(gradient).max() > 1e-4, name
        for share in (1.0, 0.3, 0.3, 0.05):
            v = rng.normal(size=target.shape) * (rng.random(target.shape) < share)

            def moved(e, v=v):
                target[...] += e * v
                result = twin.loss(values, samples, n_density)
                target[...] -= e * v
                return result

            wanted = slope(moved)
            # float32 sums of some hundred samples
            scale = np.linalg.norm(gradient) * np.linalg.norm(v) / v.size**0.5
            assert abs((gradient * v).sum() - wanted) <= limit * (abs(wanted) + scale), name

    check("weights", twin.weights, field.weights.gradient.numpy())
    check("table", twin.table, field.table.gradient.numpy())
    if "ray_gradients" in options:
        check("latents", twin.latents, field.latents.gradient.numpy())
        check("origin", values["origin"], batch.d_origin.numpy())
        check("background", values["background"], batch.d_background.numpy())
        check("stops", values["stops"], batch.d_exposure.numpy())
        # the twin's direction has length 1 in the harmonics: along the sphere alone
        d = values["direction"]
        g = batch.d_direction.numpy().reshape(-1, 3).astype(np.float64)
        v = rng.normal(size=d.shape)
        v -= (v * d).sum(axis=1, keepdims=True) * d

        def turned(e):
            return twin.loss(values | {"direction": d + e * v}, samples, n_density)

        assert abs((g * v).sum() - slope(turned)) < limit * np.linalg.norm(g)


@pytest.mark.parametrize("options", CASES, ids=["plain", "full", "unfused", "cascades"])
def test_a_ray_is_the_twins(options, device):
    field = Field(device, **options)
    batch, values = make_batch(field)
    samples = samples_of(field, batch, values)
    last, _ = field.train(batch)
    rays = field.twin().rays(values, samples, field.staged.density_network.n_params)
    from tests.reference import composite

    losses = batch.loss.numpy().reshape(-1, 2)
    atol = case.tolerance(2e-5, 5e-4, device, field.settings.color_network)
    for r, ray in enumerate(rays):
        color, opacity, depth = composite.blend(
            ray["thickness"], ray["colors"], ray["t"], ray["background"]
        )
        if field.settings.exposure:
            color = composite.expose(color, ray["stops"], field.settings.color_space)
        np.testing.assert_allclose(batch.color.numpy()[3 * r : 3 * r + 3], color, atol=atol)
        np.testing.assert_allclose(batch.opacity.numpy()[r], opacity, atol=atol)
        np.testing.assert_allclose(batch.depth.numpy()[r], depth, atol=atol)
        np.testing.assert_allclose(losses[r, 0], sum(composite.ray_loss(ray, field.settings)),
                                   rtol=1e-4, atol=1e-6)  # fmt: skip
        assert batch.n_samples.numpy()[r] == len(samples[r][0])
    n = sum(len(t) for t, _ in samples)
    assert list(last) == [24, n, n, 0]
    assert n > 100


def test_rendering_shows_what_training_compares(device):
    field = Field(device, **FULL)
    batch, _ = make_batch(field, weight=1.0)
    field.train(batch)
    names = ("color", "opacity", "depth", "n_samples")
    trained = [getattr(batch, name).numpy().copy() for name in names]
    batch.count.fill_(24)
    for name in names:
        getattr(batch, name).zero_()
    case.run(field.staged.render(batch))
    for name, wanted in zip(names, trained, strict=True):
        np.testing.assert_array_equal(getattr(batch, name).numpy(), wanted)


def test_rays_without_room_can_be_rendered_again(device):
    field = Field(device, steps=1024)
    o, d = case.random_rays(200)
    batch = case.ray_batch(field.settings, o, d, device, jitter=0.5)
    case.run(field.staged.render(batch, capacity=2**20))
    n, color = batch.n_samples.numpy().copy(), batch.color.numpy().reshape(-1, 3).copy()
    assert (n >= 0).all()
    case.run(field.staged.render(batch, capacity=1024))
    fits = batch.n_samples.numpy() >= 0
    assert 0 < fits[n > 0].sum() < (n > 0).sum()
    np.testing.assert_array_equal(batch.color.numpy().reshape(-1, 3)[fits], color[fits])
    rest = case.ray_batch(field.settings, o[~fits], d[~fits], device, jitter=0.5)
    case.run(field.staged.render(rest, capacity=1024))
    assert rest.n_samples.numpy()[0] == n[~fits][0]


def test_rays_without_room_are_not_trained(device):
    field = Field(device, steps=1024, batch_samples=32)
    o, d = case.random_rays(200)
    batch = case.ray_batch(field.settings, o, d, device, jitter=0.5, target=0.7)
    last, n_rays = field.train(batch)
    given_up = batch.n_samples.numpy() < 0
    assert given_up.sum() == last[3] > 0
    assert (batch.loss.numpy().reshape(-1, 2)[given_up] == 0).all()
    assert last[0] == 200
    assert last[1] > 1280 >= last[2] > 0
    # fewer rays next time, on both counts
    assert n_rays == batch.count.numpy()[0] < 200


def test_rays_that_do_not_count_are_not_looked_at(device):
    field = Field(device, repeatable=True, **FULL)
    batch, _ = make_batch(field, n=48)
    few, _ = make_batch(field, n=48)
    few.count.fill_(20)
    for name in ("origin", "direction"):
        array = getattr(few, name).numpy().copy()
        array[60:] = np.nan
        getattr(few, name).assign(array)
    few.color.fill_(5.0)
    field.train(few)
    gradients = [p.gradient.numpy().copy() for p in (field.weights, field.table, field.latents)]
    assert (few.color.numpy()[60:] == 5).all()
    assert all(np.isfinite(g).all() for g in gradients)
    assert np.isfinite(few.d_origin.numpy()[:60]).all()
    batch.count.fill_(20)
    field.table.gradient.zero_()
    field.train(batch)
    for g, p in zip(gradients, (field.weights, field.table, field.latents), strict=True):
        np.testing.assert_array_equal(g, p.gradient.numpy())


def test_a_smaller_step_leaves_nothing_of_a_larger_one(device):
    field = Field(device, repeatable=True, **FULL)
    alone, after = make_batch(field, seed=3)[0], make_batch(field, seed=3)[0]
    many, _ = make_batch(field, seed=4, n=24, weight=1.0)
    n_rays = wp.zeros(1, dtype=int, device=device)
    totals, last = (wp.zeros(4, dtype=wp.int64, device=device) for _ in range(2))
    stages = field.staged.train(many, after_start(device), n_rays, totals, last)
    case.run(stages)
    results = []
    field.table.gradient.zero_()
    for name in ("origin", "direction", "jitter", "weight", "target", "background", "view",
                 "depth_target", "exposure"):  # fmt: skip
        getattr(many, name).assign(getattr(after, name))
    for batch, run in ((many, lambda: case.run(stages)), (alone, lambda: field.train(alone))):
        batch.count.fill_(5)
        run()
        results.append([p.gradient.numpy().copy() for p in (field.weights, field.latents)])
        results[-1].append(field.table.gradient.numpy().copy())
        field.table.gradient.zero_()
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_number_of_threads_changes_nothing(device):
    if device != "cpu":
        pytest.skip("threads are a CPU's")
    results, n_threads = [], launch.num_threads()
    try:
        for threads in (1, 3):
            launch.set_num_threads(threads)
            field = Field(device, **FULL)
            batch, _ = make_batch(field)
            field.train(batch)
            arrays = (field.weights.gradient, field.table.gradient, field.latents.gradient)
            arrays += (batch.loss, batch.d_direction, batch.d_origin)
            results.append([a.numpy().copy() for a in arrays])
    finally:
        launch.set_num_threads(n_threads)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_densities_at_points_are_the_twins(device):
    field = Field(device)
    x = np.random.default_rng(0).random((64, 3)).astype(np.float32)
    points = wp.array(x.reshape(2, 32, 3).transpose(0, 2, 1).reshape(-1), device=device)
    density, count = (
        wp.zeros(64, dtype=float, device=device),
        wp.array([64], dtype=int, device=device),
    )
    case.run(field.staged.density(points, density, count))
    n = field.staged.density_network.n_params
    raw, _ = field.twin().evaluate(x, np.tile([[0, 0, 1.0]], (64, 1)), np.zeros(64, int), n)
    rtol = case.tolerance(1e-4, 2e-3, device, field.settings.density_network)
    np.testing.assert_allclose(density.numpy(), np.exp(raw), rtol=rtol)


def test_the_grid_and_the_field_agree_on_density(device):
    field = Field(device)
    grid = OccupancyGrid(field.settings, device)
    grid.fill(field.staged.density)
    thickness = grid.values.numpy()
    assert thickness.min() > 0
    assert grid.occupied().any()


def test_gradients_of_rays_need_an_interpolation_that_has_some(device):
    encoding = resolve(GridEncodingConfig(finest_resolution=32, interpolation="nearest"))
    with pytest.raises(ConfigError, match="gradients of rays need interpolation"):
        Field(device, encoding=encoding, ray_gradients=True)


@pytest.mark.usefixtures("_one_thread")
def test_what_a_longer_step_left_counts_for_nothing(monkeypatch):
    """CUDA's networks leave out the samples that are not there."""
    use_cuda_kernels(monkeypatch)
    found = []
    for longer_first in (False, True):
        field = Field("cpu", **FULL)
        batch, _ = make_batch(field, weight=np.ones((24, 1)))
        totals, last = (wp.zeros(4, dtype=wp.int64, device="cpu") for _ in range(2))
        n_rays = wp.zeros(1, dtype=int, device="cpu")
        stages = field.staged.train(batch, after_start("cpu"), n_rays, totals, last)
        if longer_first:
            case.run(stages)
            field.table.gradient.zero_()
            field.table.touched.zero_()
        weight = np.zeros(24, np.float32)
        weight[3:8] = 1
        batch.weight.assign(weight)
        batch.count.fill_(24)
        case.run(stages)
        gradients = [p.gradient.numpy() for p in (field.table, field.weights, field.latents)]
        found.append([*gradients, batch.d_origin.numpy(), last.numpy()])
    assert 0 < found[0][-1][2] < 500
    assert all(a.any() for a in found[0])
    for fresh, after in zip(*found, strict=True):
        assert np.array_equal(fresh, after)
