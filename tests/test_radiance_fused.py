"""The fused training step: gradients, agreement with the staged one, threads, odd batches."""

import numpy as np
import pytest

from ngp_warp import launch
from ngp_warp.config import GridEncodingConfig, NetworkConfig, OptimizerConfig
from ngp_warp.encodings.grid import resolve
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.kernels.loss import LOSSES
from ngp_warp.radiance import fused
from ngp_warp.radiance.field import RadianceField
from ngp_warp.radiance.settings import RadianceSettings
from tests import radiance_case as case

FULL = {
    "ray_gradients": True,
    "background_gradients": True,
    "exposure": True,
    "n_views": 5,
    "n_latent_dims": 6,
    "depth_weight": 0.3,
    "distortion_weight": 0.2,
    "loss": "l2",
}
CASCADES = {**FULL, "aabb_scale": 4, "cone_angle": 1 / 64}
WIDE = {
    "density_network": NetworkConfig(n_neurons=32, n_hidden_layers=2, activation="softplus"),
    "color_network": NetworkConfig(
        n_neurons=64, n_hidden_layers=1, output_activation="exponential"
    ),
    "color_space": "linear",
    "exposure": True,
}
CASES = {"plain": {"loss": "l2"}, "full": FULL, "cascades": CASCADES, "wide": WIDE}
# pairs and fours have gathers of their own
ENCODINGS = [(4, "float32"), (4, "float16"), (1, "float16"), (8, "float32")]


def encoding(n_features=2, dtype="float32"):
    return resolve(
        GridEncodingConfig(
            n_levels=3, n_features_per_level=n_features, log2_hashmap_size=10,
            finest_resolution=32, dtype=dtype,
        )
    )  # fmt: skip


def make_field(backend="vector", seed=0, **options):
    """A field whose parameters are of the order of 1 and whose cells are some balls."""
    settings = case.make_settings(**({"encoding": encoding(), "steps": 64} | options))
    field = RadianceField(
        settings, optimizer=OptimizerConfig(), seed=seed, device="cpu", backend=backend
    )
    rng = np.random.default_rng(seed)
    field.table.assign(rng.uniform(-1, 1, field.table.value.size).astype(np.float32))
    if field.latents is not None:
        field.latents.assign(rng.uniform(-1, 1, field.latents.value.size).astype(np.float32))
    field.occupancy.bits.assign(
        case.grid_of(settings, case.blobs(settings, radius=0.3), "cpu").bits.numpy()
    )
    field.optimizer.step.fill_(1000)  # batches are whole from here on
    return field


def make_rays(field, n=77, seed=1, **changes):
    rng = np.random.default_rng(seed)
    o, d = case.random_rays(n, seed)
    arrays = {
        "jitter": rng.random((n, 1)),
        "view": rng.integers(-1, max(field.settings.n_views, 1), (n, 1)),
        "weight": rng.choice([0.0, 0.5, 1.0], (n, 1)),
        "target": rng.random((n, 3)),
        "background": rng.random((n, 3)),
        "depth_target": rng.random((n, 1)) * (rng.random((n, 1)) < 0.7),
    } | changes
    if field.settings.exposure:
        arrays["exposure"] = rng.uniform(-0.5, 0.5, (n, 3))
    return case.ray_batch(field.settings, o, d, "cpu", **arrays)


def gradient_stages(field, batch):
    args = (field.optimizer.step, field.n_rays, field.totals, field.last)
    return field._backend.train(batch, *args)


def gradients(field, batch):
    """Gradients of everything after one step without an update, and what it says of the rays."""
    field.table.gradient.zero_()
    case.run(gradient_stages(field, batch))
    found = {name: p.gradient.numpy().copy() for name, p in field.parameters().items()}
    names = ("color", "opacity", "depth", "n_samples", "loss")
    names += ("d_origin", "d_direction", "d_background", "d_exposure")
    return found, {name: getattr(batch, name).numpy().copy() for name in names}


def mean_loss(field, batch):
    """The loss whose gradient a step computes, in float64."""
    _, rays = gradients(field, batch)
    s, n = field.settings, len(rays["opacity"])
    total = rays["loss"].reshape(-1, 2)[:, 0].astype(np.float64)
    known = (batch.depth_target.numpy() > 0) & (batch.weight.numpy() > 0)
    e = np.abs(rays["depth"].astype(np.float64) - batch.depth_target.numpy())
    depth = s.depth_weight * np.where(e < 0.1, 5 * e * e, e - 0.05) * known
    return (total - depth).sum() / n + depth.sum() / max(known.sum(), 1)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_gradients_are_slopes(options):
    # float32: a stochastic direction through many values, central differences, 1% of agreement
    field = make_field(**options, min_transmittance=0.0)
    batch = make_rays(field)
    found, _ = gradients(field, batch)
    rng = np.random.default_rng(3)
    for name, p in field.parameters().items():
        gradient = found[name].astype(np.float64)
        assert np.abs(gradient).max() > 1e-6, name
        values = p.value.numpy().copy()
        direction = np.sign(gradient) * (rng.random(gradient.shape) < 0.3)
        step = 1e-3
        ends = []
        for side in (step, -step):
            p.assign((values + side * direction).astype(np.float32))
            ends.append(mean_loss(field, batch))
        p.assign(values)
        slope = (ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx((gradient * direction).sum(), rel=1e-2), name
    for name, wanted in (("background", "background_gradients"), ("exposure", "exposure")):
        if not getattr(field.settings, wanted):
            continue
        array = getattr(batch, name)
        _, rays = gradients(field, batch)
        values, gradient = array.numpy().copy(), rays[f"d_{name}"].astype(np.float64)
        assert np.abs(gradient).max() > 1e-6
        ends = []
        for side in (1e-2, -1e-2):
            array.assign((values + side * np.sign(gradient)).astype(np.float32))
            ends.append(mean_loss(field, batch))
        array.assign(values)
        assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(np.abs(gradient).sum(), rel=1e-2)


def check_same(options, **changes):
    """The fused and the staged step give the same rays, gradients and cells."""
    results, met = [], []
    for backend in ("vector", "portable"):
        field = make_field(backend, **options)
        batch = make_rays(field, **changes)
        results.append(gradients(field, batch))
        met.append(field.occupancy.met.numpy().copy())
        assert field.backend == backend
    (ours, rays), (theirs, their_rays) = results
    # a point on a cell's face may be on either side
    assert (met[0] != met[1]).sum() <= 0.01 * met[0].sum()
    assert met[0].any()
    np.testing.assert_array_equal(rays["n_samples"], their_rays["n_samples"])
    assert rays["n_samples"].sum() > 300
    assert all(np.abs(v).max() > 0 for name, v in rays.items() if v.size)
    for name, values in rays.items():
        # float32 sums over a hundred samples of values of the order of 1
        scale = np.abs(their_rays[name]).max(initial=0.0) if name.startswith("d_") else 1.0
        atol = 2e-5 if scale == 1.0 else 5e-4 * scale
        np.testing.assert_allclose(values, their_rays[name], rtol=2e-4, atol=atol, err_msg=name)
    for name, gradient in ours.items():
        scale = np.abs(theirs[name]).max()
        assert scale > 1e-6, name
        np.testing.assert_allclose(gradient / scale, theirs[name] / scale, atol=5e-4, err_msg=name)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_the_staged_step_agrees(options):
    check_same(options)


@pytest.mark.parametrize(("n_features", "dtype"), ENCODINGS)
def test_the_staged_step_agrees_for_every_table(n_features, dtype):
    check_same({"encoding": encoding(n_features, dtype)})


@pytest.mark.slow
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_the_staged_step_agrees_for_every_loss(loss):
    check_same({"loss": loss, "steps": 48})


def test_a_comparison_notices_another_jitter():
    results = []
    for backend, jitter in (("vector", 0.4), ("portable", 0.6)):
        field = make_field(backend)
        results.append(gradients(field, make_rays(field, jitter=jitter))[1]["color"])
    assert np.abs(results[0] - results[1]).max() > 1e-3


def test_the_number_of_threads_changes_nothing():
    results, n_threads = [], launch.num_threads()
    try:
        for threads in (1, 2, 3):
            launch.set_num_threads(threads)
            field = make_field(**CASCADES, max_rays=400)
            batch = make_rays(field, n=333)
            for _ in range(3):
                case.run(field.train_stages(batch))
                case.run(field.occupancy_stages())
            state = [p.value.numpy() for p in field.parameters().values()]
            state += [a.numpy() for a in field.extra_state().values()]
            state += [batch.loss.numpy(), batch.color.numpy()]
            results.append([np.array(a) for a in state])
    finally:
        launch.set_num_threads(n_threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_rendering_shows_what_training_compares():
    field = make_field(**FULL)
    batch = make_rays(field, weight=1.0)
    gradients(field, batch)
    names = ("color", "opacity", "depth", "n_samples")
    trained = {name: getattr(batch, name).numpy().copy() for name in names}
    batch.count.fill_(batch.capacity)
    for name in names:
        getattr(batch, name).zero_()
    case.run(field.render_stages(batch))
    np.testing.assert_array_equal(batch.n_samples.numpy(), trained["n_samples"])
    for name in names:
        # the same samples, summed round by round
        np.testing.assert_allclose(getattr(batch, name).numpy(), trained[name], atol=2e-6)


@pytest.mark.parametrize("n", [1, 15, 100])
def test_rays_that_do_not_count_are_not_looked_at(n):
    field = make_field(**FULL)
    batch, few = make_rays(field, n=101), make_rays(field, n=101)
    for name in ("origin", "direction", "target", "background"):
        array = getattr(few, name).numpy().copy()
        array[3 * n :] = np.nan
        getattr(few, name).assign(array)
    few.color.fill_(5.0)
    found = []
    for rays in (batch, few):
        rays.count.fill_(n)
        found.append(gradients(field, rays)[0])
        assert field.last.numpy()[0] == n
    assert (few.color.numpy()[3 * n :] == 5).all()
    for name, gradient in found[0].items():
        np.testing.assert_array_equal(gradient, found[1][name])


def test_empty_batches_change_nothing_but_the_momentum():
    field = make_field(**FULL)
    o = np.full((10, 3), 3.0, np.float32)
    d = np.tile(np.float32([[0.0, 0.0, 1.0]]), (10, 1))
    away = case.ray_batch(field.settings, o, d, "cpu", weight=1.0, target=0.5, background=0.25)
    ignored = make_rays(field, weight=0.0)
    none = make_rays(field)
    for batch, count in ((away, 10), (ignored, 77), (none, 0)):
        batch.count.fill_(count)
        found, rays = gradients(field, batch)
        assert all((g == 0).all() for g in found.values())
        assert list(field.last.numpy()) == [count, 0, 0, 0]
        assert np.isfinite(rays["loss"]).all()
        assert batch.count.numpy()[0] >= 1
    np.testing.assert_allclose(away.color.numpy(), 0.25, atol=1e-6)
    assert (away.loss.numpy().reshape(-1, 2)[:, 0] > 0).all()


def test_rays_without_room_are_given_up_alike(monkeypatch):
    monkeypatch.setattr(fused, "_SPARE", 1)
    field = make_field(batch_samples=64 * 32, steps=1024, max_rays=2000, max_samples=16)
    batch = make_rays(field, n=1999, weight=1.0)
    found, rays = gradients(field, batch)
    given_up = rays["n_samples"] < 0
    assert 0 < given_up.sum() == field.last.numpy()[3] < 1999
    assert (rays["loss"].reshape(-1, 2)[given_up] == 0).all()
    assert all(np.isfinite(g).all() for g in found.values())
    assert batch.count.numpy()[0] < 1999


def test_a_default_field_trains_and_goes_on_where_it_stopped():
    settings = RadianceSettings(
        encoding=resolve(
            GridEncodingConfig(
                n_levels=8, n_features_per_level=4, finest_resolution=1024, dtype="float16"
            )
        ),
        density_network=NetworkConfig(n_hidden_layers=1),
        color_network=NetworkConfig(output_activation="sigmoid"),
        steps=512,
    )

    def steps(field, batch, n):
        stages = [[field.optimizer.advance()], *field.train_stages(batch)]
        stages += field.occupancy_stages()
        for _ in range(n):
            case.run(stages)

    def make():
        field = RadianceField(settings, optimizer=OptimizerConfig(), seed=3, device="cpu")
        batch = field.make_batch()
        rng = np.random.default_rng(0)
        o, d = case.random_rays(batch.capacity)
        for name, values in (("origin", o), ("direction", d), ("target", rng.random(o.shape))):
            getattr(batch, name).assign(values.astype(np.float32).reshape(-1))
        return field, batch

    field, batch = make()
    field.fill_occupancy()
    before = field.table.value.numpy().copy()
    steps(field, batch, 2)
    moved = field.table.value.numpy() != before
    assert 0.001 < moved.mean() < 1
    assert field.counters()["samples"] > 10_000
    other, other_batch = make()
    for name, p in field.parameters().items():
        other.parameters()[name].load({k: a.numpy() for k, a in p.state().items()})
    for name, a in field.extra_state().items():
        other.extra_state()[name].assign(a.numpy())
    other.optimizer.step.assign(field.optimizer.step)
    for f, b in ((field, batch), (other, other_batch)):
        steps(f, b, 2)
    for a, b in zip(field.parameters().values(), other.parameters().values(), strict=True):
        np.testing.assert_array_equal(a.value.numpy(), b.value.numpy())
    assert int(field.n_rays.numpy()[0]) == int(other.n_rays.numpy()[0])


def test_the_number_of_rays_follows_the_samples():
    field = make_field(batch_samples=2**14, max_rays=4000)
    batch = make_rays(field, n=4000, weight=1.0)
    batch.count.fill_(100)
    for _ in range(30):
        case.run(gradient_stages(field, batch))
    assert field.last.numpy()[1] == pytest.approx(2**14, rel=0.15)


def test_points_agree_with_the_staged_field():
    rng = np.random.default_rng(0)
    points = rng.random((1000, 3)).astype(np.float32)
    _, directions = case.random_rays(1000)
    fields = [make_field(backend) for backend in ("vector", "portable")]
    densities, colors = (
        [f.density(points) for f in fields],
        [f.color(points, directions) for f in fields],
    )
    np.testing.assert_allclose(*densities, rtol=1e-4)
    np.testing.assert_allclose(*colors, atol=1e-5)
    assert densities[0].std() > 0.01 < colors[0].std()


def test_rendered_rays_do_not_depend_on_their_number_or_the_backend(monkeypatch):
    o, d = case.random_rays(300)
    fields = [make_field(backend) for backend in ("vector", "portable")]
    seen = [f.render_rays(o, d, background=(0.2, 0.5, 1.0)) for f in fields]
    some = fields[0].render_rays(o[7:], d[7:], background=(0.2, 0.5, 1.0))
    for name in ("color", "opacity", "depth", "n_samples"):
        a, b = (getattr(s, name) for s in seen)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(a[7:], getattr(some, name), atol=1e-6)
    assert np.isinf(seen[0].depth).any()
    later = fields[0].render_rays(o, d, near=0.3)
    assert later.n_samples.sum() < seen[0].n_samples.sum()
    assert (later.depth[np.isfinite(later.depth)] >= 0.3 - 1e-6).all()


def test_what_cannot_be_fused_is_said():
    bias = NetworkConfig(n_neurons=16, bias=True, output_activation="sigmoid")
    with pytest.raises(ConfigError, match="biases in the color network"):
        make_field(color_network=bias)
    assert make_field("auto", color_network=bias).backend == "portable"
    assert make_field("auto").backend == "vector"
    field = make_field()
    with pytest.raises(ShapeError, match="directions must have shape"):
        field.render_rays(np.zeros((4, 3)), np.zeros((3, 3)))
    with pytest.raises(ShapeError, match="points must have shape"):
        field.density(np.zeros((4, 2)))


def test_memory_of_a_batch_is_its_own():
    # two recorded steps of one field may be run in turns
    field = make_field()
    one, two = make_rays(field, seed=1), make_rays(field, seed=2)
    stages = [gradient_stages(field, b) for b in (one, two)]
    found = []
    for order in ((0, 1), (1, 0)):
        for k in order:
            for batch in (one, two):
                batch.count.fill_(batch.capacity)
            field.table.gradient.zero_()
            case.run(stages[k])
            found.append((k, field.table.gradient.numpy().copy()))
    for k in (0, 1):
        a, b = (g for j, g in found if j == k)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n", [1, 7, 32, 77])
@pytest.mark.parametrize("aabb_scale", [1, 4])
def test_lanes_without_a_ray_end_where_all_cells_lie_inside(n, aabb_scale):
    """A chunk's rays are no multiple of a vector's lanes; the idle lanes have no direction."""
    cone = 1 / 256 if aabb_scale > 1 else 0.0
    settings = case.make_settings(aabb_scale=aabb_scale, cone_angle=cone)
    occupied = np.zeros((settings.n_cascades, case.CELLS, case.CELLS, case.CELLS), bool)
    occupied[:, 56:72, 56:72, 56:72] = True
    field = RadianceField(
        settings, optimizer=OptimizerConfig(), seed=0, device="cpu", visible=occupied
    )
    o, d = case.random_rays(n)
    batch = case.ray_batch(settings, o, d, "cpu")
    case.run(field.train_stages(batch))
    assert np.isfinite(batch.loss.numpy()).all()
    assert field.render_rays(o, d).color.shape == (n, 3)
