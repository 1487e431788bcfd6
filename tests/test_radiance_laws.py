"""Laws of radiance fields, for every backend: what must hold whatever the field has learnt."""

import numpy as np
import pytest

from ngp_warp.config import NetworkConfig
from ngp_warp.kernels.loss import LOSSES
from ngp_warp.kernels.occupancy import MAX_THRESHOLD
from tests import radiance_case as case
from tests.reference import composite, march, occupancy

BACKGROUND = (0.2, 0.5, 0.8)


def field_of(device, backend, **options):
    return case.make_field(case.make_settings(**options), device, backend)


def rendered(field, o, d, background=BACKGROUND):
    return field.render_rays(o, d, background=background)


def train(field, batch):
    """Run one step with its optimizer; the gradients as they were before it."""
    parameters = field.parameters().values()
    for p in parameters:
        p.gradient.zero_()
    stages = field.train_stages(batch)
    n = len(stages) - len(field.optimizer.update())
    case.run(stages[:n])
    gradients = {name: p.gradient.numpy().copy() for name, p in field.parameters().items()}
    case.run(stages[n:])
    return gradients


def rays_of(o, d):
    return zip(o.astype(float), d.astype(float), strict=True)


def crossing(settings, o, d):
    """Length of each ray's way through the box."""
    spans = [march.span(settings, *ray) for ray in rays_of(o, d)]
    return np.array([max(b - a, 0) for a, b in spans])


def test_zero_density_shows_the_background_exactly(device, backend):
    field = field_of(device, backend)
    case.set_constant(field, -200.0)
    o, d = case.random_rays(100)
    view = rendered(field, o, d)
    assert (view.color == np.float32(BACKGROUND)).all()
    assert (view.opacity == 0).all()
    assert np.isinf(view.depth).all()
    assert view.n_samples.max() > 50


@pytest.mark.parametrize("raw", [-3.0, 0.0, 2.0, 6.0])
@pytest.mark.parametrize("aabb_scale", [1, 4])
def test_constant_density_gives_the_exact_integral(aabb_scale, raw, device, backend):
    field = field_of(device, backend, aabb_scale=aabb_scale)
    case.set_constant(field, raw, 0.4)
    s = field.settings
    o, d = case.random_rays(60)
    view = rendered(field, o, d)
    way = crossing(s, o, d)
    # every step of the box is taken; where the ray ends before it is opaque
    whole = np.exp(-np.exp(raw) * way * aabb_scale) > 2 * s.min_transmittance
    assert (np.abs(view.n_samples * s.min_step - way)[whole] <= 1.001 * s.min_step).all()
    length = np.where(whole, view.n_samples * s.min_step, way) * aabb_scale
    opacity = -np.expm1(-np.exp(raw) * length)
    # a ray that ended early lets min_transmittance pass; float32 products of 500 factors
    np.testing.assert_allclose(view.opacity, opacity, atol=2e-4)
    np.testing.assert_allclose(view.opacity[whole], opacity[whole], atol=3e-5)
    shade = 1 / (1 + np.exp(-0.4))
    color = opacity[:, None] * shade + (1 - opacity[:, None]) * np.array(BACKGROUND)
    np.testing.assert_allclose(view.color, color, atol=2e-4)


def test_steps_that_grow_integrate_too(device, backend):
    field = field_of(device, backend, aabb_scale=8, cone_angle=1 / 32)
    case.set_constant(field, -1.0)
    s = field.settings
    o, d = case.random_rays(40)
    view = rendered(field, o, d)
    points = [march.lattice(s, a, b, 0.5) for a, b in rays_of(o, d)]
    length = np.array([p[:, 1].sum() for p in points]) * s.aabb_scale
    # the last point may fall on either side of the box's face
    last = np.array([p[-1, 1] if len(p) else 0 for p in points]) * s.aabb_scale
    error = np.abs(-np.log1p(-view.opacity.astype(float)) / np.exp(-1) - length)
    thin = length * np.exp(-1) < 8
    assert (error <= 1e-2 * length + last)[thin].all()
    assert np.median(error[thin] / np.maximum(length[thin], 1e-3)) < 1e-3
    assert {len(p) for p in points} != {0}


@pytest.mark.parametrize("cone", [0.0, 1 / 32])
def test_pictures_have_steps_of_their_own(cone, device, backend):
    few = {"aabb_scale": 2 if cone else 1, "max_samples": 40}
    coarse = field_of(device, backend, **few, steps=64, cone_angle=cone, render_steps=128)
    few["max_samples"] *= 2
    fine = field_of(device, backend, **few, steps=128, cone_angle=cone / 2)
    o, d = case.random_rays(100)
    for field in (coarse, fine):
        case.set_random(field, scale=2.0)
    got, wanted = (rendered(field, o, d) for field in (coarse, fine))
    for name in ("color", "opacity", "depth", "n_samples"):
        assert np.array_equal(getattr(got, name), getattr(wanted, name)), name
    assert 40 < got.n_samples.max() <= 80
    # and training still has the longer ones
    batches = [case.ray_batch(f.settings, o, d, device, jitter=0.5) for f in (coarse, fine)]
    for field, batch in zip((coarse, fine), batches, strict=True):
        case.run(field.train_stages(batch))
    long, short = (batch.n_samples.numpy() for batch in batches)
    assert 0 < long.max() <= 40 < short.max()


@pytest.mark.parametrize("exponent", range(-8, 9, 2))
def test_weights_sum_to_at_most_one(exponent, device, backend):
    field = field_of(device, backend)
    case.set_random(field, scale=2.0)
    o, d = case.random_rays(100)
    weights = field.weights.value.numpy().copy()
    n = case.n_density_params(field)
    # the raw densities' row, so that they spread over many magnitudes
    weights[:n] *= exponent / 2
    field.weights.assign(weights)
    view = field.render_rays(o, d, background=(1.0, 1.0, 1.0))
    assert (view.opacity >= 0).all()
    # sums of up to 128 float32 differences
    assert (view.opacity <= 1 + 1e-6).all()
    # every colour is a mean of colours from 0 to 1
    assert (view.color >= 0).all()
    assert (view.color <= 1 + 1e-5).all()


def test_a_monte_carlo_of_the_definition_agrees(device, backend):
    field = field_of(device, backend, steps=64)
    case.set_random(field, 1, scale=2.0)
    occupied = case.sparse(field)
    s, twin, n_draws = field.settings, case.twin_of(field), 20000
    o, d = case.random_rays(400, 3)
    view = rendered(field, o, d)
    rng, n_checked = np.random.default_rng(0), 0
    for r in np.argsort(np.abs(view.opacity - 0.5))[:12]:
        ray, direction = o[r].astype(float), d[r].astype(float)
        samples = march.march(s, occupied, ray, direction, 0.5)
        if len(samples) != view.n_samples[r]:
            continue  # a point on a cell's face
        t, dt = samples.T
        x = ray + t[:, None] * direction
        turned = np.repeat(direction[None], len(x), axis=0)
        raw, rgb = twin.evaluate(x, turned, np.zeros(len(x), int), case.n_density_params(field))
        seen = free_paths(t, dt, composite.density(raw) * s.aabb_scale, rgb, n_draws, rng)
        error = seen.std(axis=0) / n_draws**0.5
        assert (np.abs(view.color[r] - seen.mean(axis=0)) < 4 * error + 1e-4).all()
        n_checked += 1
    assert n_checked >= 8


def free_paths(t, dt, density, rgb, n, rng):
    """Colours [n, 3] of the first collisions of n photons, by delta tracking.

    The medium has density_i from t_i to t_i + dt_i, and nothing elsewhere.
    """
    majorant = density.max()
    place, flying = np.full(n, t[0]), np.ones(n, bool)
    seen = np.tile(BACKGROUND, (n, 1))
    while flying.any():
        place[flying] += rng.exponential(1 / majorant, flying.sum())
        i = np.searchsorted(t, place, side="right") - 1
        inside = flying & (i >= 0) & (place < (t + dt)[i])
        hit = inside & (rng.random(n) * majorant < density[i])
        seen[hit] = rgb[i[hit]]
        flying &= ~hit & (place < t[-1] + dt[-1])
    return seen


def test_an_opaque_field_is_seen_where_it_begins(device, backend):
    field = field_of(device, backend, steps=256)
    case.set_constant(field, 12.0)
    o, d = case.random_rays(60)
    view = rendered(field, o, d)
    entry = np.array([march.span(field.settings, *ray)[0] for ray in rays_of(o, d)])
    hit = crossing(field.settings, o, d) > field.settings.min_step
    np.testing.assert_allclose(view.opacity[hit], 1, atol=1e-4)
    first = entry + 0.5 * field.settings.min_step
    np.testing.assert_allclose(view.depth[hit], first[hit], atol=1e-4)


def test_rays_beside_the_box_see_nothing(device, backend):
    field = field_of(device, backend)
    case.set_constant(field, 5.0)
    o = np.array([[-1.0, 2, 0.5], [0.5, 0.5, -1], [0.5, 0.5, 3]], np.float32)
    d = np.array([[1.0, 0, 0], [0, 0, -1], [0, 0, 1]], np.float32)
    view = rendered(field, o, d)
    assert (view.color == np.float32(BACKGROUND)).all()
    assert (view.n_samples == 0).all()


def test_empty_cells_are_not_looked_at(device, backend):
    field = field_of(device, backend)
    case.set_constant(field, 3.0)
    occupied = case.sparse(field)
    s = field.settings
    o, d = case.random_rays(80)
    view = rendered(field, o, d)
    lists = [march.march(s, occupied, a, b, 0.5) for a, b in rays_of(o, d)]
    s_expected = np.array([len(p) for p in lists]) * s.min_step * np.exp(3.0)
    wanted = -np.expm1(-s_expected)
    # a point on a cell's face may be on either side
    close = np.abs(view.opacity - wanted) < 2e-4
    assert close.mean() > 0.95
    assert (np.abs(view.opacity - wanted) < 4 * np.exp(3.0) * s.min_step).all()
    assert (wanted > 0).mean() > 0.2


def test_a_cell_above_the_threshold_is_occupied_after_its_update(device, backend):
    field = field_of(device, backend, aabb_scale=2)
    case.set_random(field, scale=1.0)
    field.fill_occupancy()
    grid = field.occupancy
    stages = field.occupancy_stages()
    field.optimizer.step.fill_(300)
    case.run(stages)
    n = grid.count.numpy()[0]
    thickness = grid.density.numpy()[:n] * np.float32(grid.thickness)
    used = np.ones((2, 128, 128, 128), bool)
    cells = [occupancy.cells_of(i, used) for i in occupancy.updated(300, 2)]
    cells = tuple(np.concatenate(parts) for parts in zip(*cells, strict=True))
    assert len(cells[0]) == n
    above = thickness > grid.threshold.numpy()[0]
    assert grid.occupied()[cells][above].all()
    assert above.any()


@pytest.mark.parametrize("options", [{}, {"aabb_scale": 4, "cone_angle": 1 / 64}])
@pytest.mark.parametrize("times", [0.9, 1.1])
def test_training_meets_the_cells_of_dense_samples(times, options, device, backend):
    # densities for which the shortest step is just below or above the threshold
    field = field_of(device, backend, **options)
    s = field.settings
    density = times * MAX_THRESHOLD / field.occupancy.thickness
    case.set_constant(field, np.log(density))
    occupied = case.sparse(field)
    field.optimizer.step.fill_(1000)
    batch = batch_of(field, 80)
    train(field, batch)
    o, d = (a.numpy().reshape(-1, 3) for a in (batch.origin, batch.direction))
    wanted = np.zeros(occupied.shape, bool)
    for ray, jitter in zip(rays_of(o, d), batch.jitter.numpy(), strict=True):
        light = 1.0
        for t, dt in march.march(s, occupied, *ray, float(jitter)):
            if light < s.min_transmittance:
                break
            light *= np.exp(-density * dt * s.aabb_scale)
            wanted[march.cell_of(s, ray[0] + t * ray[1], dt)] = times > 1
    found = field.occupancy.met.numpy().reshape(wanted.shape).astype(bool)
    assert (wanted.sum() > 300) == (times > 1)
    # a point on a cell's face may be on either side
    assert (found != wanted).sum() <= 0.01 * wanted.sum()


def batch_of(field, n=32, **changes):
    rng = np.random.default_rng(0)
    o, d = case.random_rays(n)
    arrays = {
        "jitter": rng.random((n, 1)),
        "target": rng.random((n, 3)),
        "background": rng.random((n, 3)),
        "depth_target": rng.random((n, 1)),
        "weight": rng.choice([0.5, 1.0], (n, 1)),
        "view": rng.integers(-1, 3, (n, 1)),
    }
    if field.settings.exposure:
        arrays["exposure"] = rng.uniform(-0.5, 0.5, (n, 3))
    return case.ray_batch(field.settings, o, d, field.device, **(arrays | changes))


FULL = {
    "background_gradients": True,
    "exposure": True,
    "n_views": 3,
    "n_latent_dims": 4,
    "depth_weight": 0.1,
    "distortion_weight": 0.1,
}


@pytest.mark.parametrize("exponent", range(-8, 9, 4))
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_finite_over_16_magnitudes(loss, exponent, device, backend):
    field = field_of(device, backend, loss=loss, **FULL)
    case.set_constant(field, exponent * np.log(10))
    batch = batch_of(field)
    gradients = train(field, batch)
    out = [batch.color, batch.opacity, batch.depth, batch.loss, batch.d_background]
    for array in [*gradients.values(), *(a.numpy() for a in (*out, batch.d_exposure))]:
        assert np.isfinite(array).all()
    for p in field.parameters().values():
        assert np.isfinite(p.value.numpy()).all()
    if device == "cpu" or exponent > -8:  # on CUDA gradients of such a density are below all halves
        assert (np.abs(gradients["network"]) > 0).any()


@pytest.mark.parametrize("default_size", [False, True])
def test_gradients_are_those_of_the_definition(default_size, device, backend):
    sizes = {
        "density_network": NetworkConfig(n_hidden_layers=1),
        "color_network": NetworkConfig(output_activation="sigmoid"),
    }
    options = FULL | {"min_transmittance": 0.0, "steps": 48} | (sizes if default_size else {})
    field = field_of(device, backend, **options)
    case.set_random(field, scale=1.0)
    field.latents.assign(np.linspace(-1, 1, 12).astype(np.float32))
    case.sparse(field)
    batch = batch_of(field, 24)
    twin, values, samples = case.twin_case(field, batch)
    gradients = train(field, batch)
    rng = np.random.default_rng(1)
    arrays = {"network": twin.weights, "encoding": twin.table, "latents": twin.latents}
    arrays |= {"background": values["background"], "stops": values["stops"]}
    gradients["background"] = batch.d_background.numpy()
    gradients["stops"] = batch.d_exposure.numpy()
    for name, target in arrays.items():
        v = rng.normal(size=target.shape)
        g = gradients[name].reshape(target.shape).astype(np.float64)

        def loss_at(e, target=target, v=v):
            target[...] += e * v
            result = twin.loss(values, samples, case.n_density_params(field))
            target[...] -= e * v
            return result

        wanted = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5
        # float32 sums of some hundred samples
        size = np.linalg.norm(g) * np.linalg.norm(v) / v.size**0.5
        # half operands: 2^-11 each, through three layers and back
        limit = case.tolerance(3e-3, 1e-2, device, field.settings.color_network)
        assert abs((g * v).sum() - wanted) < limit * (abs(wanted) + size), name
        assert np.abs(g).max() > 1e-4, name


def test_the_table_moved_by_a_row_is_noticed(device, backend):
    field = field_of(device, backend)
    case.set_random(field, scale=1.0)
    o, d = case.random_rays(50)
    before = rendered(field, o, d)
    table = field.parameters()["encoding"]
    table.assign(np.roll(table.value.numpy(), field.encoding.n_features))
    after = rendered(field, o, d)
    assert np.abs(before.color - after.color).max() > 1e-2


def test_training_brings_colours_to_their_targets(device, backend):
    field = field_of(device, backend)
    field.fill_occupancy()
    o, d = case.random_rays(200, 4)
    batch = case.ray_batch(
        field.settings, o, d, device, jitter=0.5, target=(0.8, 0.3, 0.1), background=BACKGROUND
    )
    stages = [*field.train_stages(batch), *field.occupancy_stages()]
    hit = crossing(field.settings, o, d) > 0.2
    errors = []
    for _ in range(150):
        field.optimizer.advance().run()
        batch.count.fill_(200)
        case.run(stages)
        errors.append(batch.loss.numpy().reshape(-1, 2)[hit, 1].mean())
    assert errors[-1] < 0.05 * errors[0]


def test_backends_agree(device, backend):
    if backend == "portable":
        pytest.skip("the vector backend is compared with it")
    results = []
    for name in ("vector", "portable"):
        field = field_of(device, name, aabb_scale=4, cone_angle=1 / 64, steps=256, **FULL)
        case.set_random(field, scale=1.0)
        field.latents.assign(np.linspace(-1, 1, 12).astype(np.float32))
        case.sparse(field)
        o, d = case.random_rays(300)
        view = rendered(field, o, d)
        batch = batch_of(field, 64)
        gradients = train(field, batch)
        results.append((view, batch, gradients))
    (view, batch, gradients), (view_p, batch_p, gradients_p) = results
    # a point on a cell's face may be on either side
    for a, b in ((view.color, view_p.color), (view.opacity, view_p.opacity)):
        assert (np.abs(a - b) < 1e-4).mean() > 0.97
    for name in ("color", "opacity", "depth", "loss", "d_background", "d_exposure"):
        a, b = getattr(batch, name).numpy(), getattr(batch_p, name).numpy()
        assert (np.abs(a - b) < 1e-4 * (1 + np.abs(b))).mean() > 0.95, name
    for name, g in gradients.items():
        error = np.linalg.norm(g - gradients_p[name]) / np.linalg.norm(gradients_p[name])
        assert error < 0.03, name
