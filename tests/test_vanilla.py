"""The original NeRF against a float64 twin of the whole step, and its laws."""

from dataclasses import replace

import numpy as np
import pytest

from ngp_warp import launch
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.radiance import vanilla, vanilla_network
from ngp_warp.radiance.batch import make_batch
from ngp_warp.radiance.vanilla import VanillaField, VanillaSettings, vanilla_optimizer
from tests.hierarchical_case import rays
from tests.reference import frequency, hierarchical, mlp

SMALL = VanillaSettings(
    n_coarse=6,
    n_fine=9,
    position_frequencies=3,
    direction_frequencies=2,
    n_neurons=18,
    n_hidden_layers=3,
    skip_layer=2,
    n_head_neurons=7,
)


class Case:
    """A field, a batch of rays with random targets, backgrounds and weights."""

    def __init__(self, device, settings=SMALL, n=21, seed=1, **options):
        self.settings, self.device, self.n = settings, device, n
        self.seed = seed
        options = {"optimizer": vanilla_optimizer(), **options}
        self.field = VanillaField(settings, seed=seed, device=device, **options)
        # away from zero, so that every layer has gradients of O(1)
        rng = np.random.default_rng(0)
        values = self.field.weights.value.numpy().copy()
        self.w = (values + rng.normal(0, 0.2, values.shape)).astype(np.float32)
        self.field.weights.assign(self.w)
        self.batch = make_batch(settings, n, device)
        self.origin, self.direction = rays(n)
        self.target, self.background = rng.random((2, n, 3)).astype(np.float32)
        self.weight = rng.uniform(0, 2, n).astype(np.float32)
        self.jitter = rng.random(n).astype(np.float32)
        names = ("origin", "direction", "target", "background", "weight", "jitter")
        for name in names:
            getattr(self.batch, name).assign(getattr(self, name).ravel())

    def step(self):
        """Run one step up to the parameters' update; return the flat gradient."""
        n_updates = len(self.field.optimizer.update())
        stages = self.field.train_stages(self.batch)[:-n_updates]
        self.field.optimizer.advance().run()
        run(stages)
        return self.field.weights.gradient.numpy().copy()

    def loss(self):
        return (self.batch.loss.numpy().reshape(-1, 2)[:, 0]).sum() / (3 * self.n)


def run(stages):
    for stage in stages:
        launch.run_all(stage)


class Twin:
    """The whole field in float64."""

    def __init__(self, it, w=None):
        self.it, s = it, it.settings
        self.flat = np.asarray(it.w if w is None else w, np.float64)
        n_x = 3 * (1 + 2 * s.position_frequencies)
        n_d = 3 * (1 + 2 * s.direction_frequencies)
        self.sizes = [
            ((n_x, s.n_neurons, s.n_hidden_layers, 1 + s.n_neurons, True, s.skip_layer), "none"),
            ((s.n_neurons + n_d, s.n_head_neurons, 1, 3, True, None), "sigmoid"),
        ]

    def networks(self):
        """Return [(start, end, sizes, output activation)]: trunk and head, coarse and fine."""
        found, first = [], 0
        for _ in range(2):
            for sizes, activation in self.sizes:
                n_in, width, hidden, n_out, _, skip = sizes
                layers = [(width if i else 0) + (n_in if i in (0, skip) else 0) + 1 for i in
                          range(hidden + 1)]  # fmt: skip
                n = sum(k * (n_out if i == hidden else width) for i, k in enumerate(layers))
                found.append((first, first + n, sizes, activation))
                first += n
        assert first == len(self.flat)
        return found

    def _mlp(self, index, x):
        first, end, sizes, activation = self.networks()[index]
        matrices, biases = mlp.split_parameters(self.flat[first:end], *sizes)
        options = {"biases": biases, "skip_layer": sizes[5]}
        return matrices, (x, "relu", activation), options

    def forward(self, index, x):
        matrices, (x, *names), options = self._mlp(index, x)
        return mlp.forward(matrices, x, *names, **options)[0]

    def backward(self, index, x, dy):
        matrices, (x, *names), options = self._mlp(index, x)
        return mlp.backward(matrices, x, dy, *names, **options)

    def inputs(self, level, points, directions):
        """Return the inputs of trunk and head, and (raw density, colour)."""
        s = self.it.settings
        x = frequency.encode(2 * points - 1, s.position_frequencies)
        y = self.forward(2 * level, x)
        d = frequency.encode(directions, s.direction_frequencies)
        h = np.hstack([y[:, 1:], d])
        return x, h, y[:, 0], self.forward(2 * level + 1, h)

    def samples(self, r, training):
        """Yield (level, segment, t) of a ray."""
        it, s = self.it, self.it.settings
        origin, direction = it.origin[r].astype(float), it.direction[r].astype(float)
        ends = hierarchical.segment(origin, direction, s.near)
        u = it.jitter[r].astype(float), it.jitter[r].astype(float)
        if training:
            seed = it.field._seed
            counts = (s.n_coarse, s.n_fine)
            u = [hierarchical.random_numbers(seed, 1, r, n, axis) for axis, n in enumerate(counts)]
        t = hierarchical.strata(ends, s.n_coarse, u[0])
        yield 0, ends, t
        weights = self.shade(0, r, ends, t)[3]
        yield 1, ends, hierarchical.resample(ends, t, weights, s.n_fine, u[1])

    def shade(self, level, r, ends, t):
        it = self.it
        points = it.origin[r].astype(float) + t[:, None] * it.direction[r].astype(float)
        directions = np.tile(it.direction[r].astype(float), (len(t), 1))
        *_, raw, rgb = self.inputs(level, points, directions)
        scale = vanilla_network.DENSITY_SCALE * it.settings.aabb_scale
        background = it.background[r].astype(float)
        activation = it.settings.density_activation
        return hierarchical.composite(ends, t, raw, rgb, scale, background, activation)

    def render(self, r):
        """Return (colour, opacity, depth) of the fine network."""
        found = [self.shade(level, r, *rest)[:3] for level, *rest in self.samples(r, False)]
        return found[1]

    def loss_and_gradient(self, samples):
        """Return the loss and its gradient, of samples [ray][level] = (segment, t)."""
        it, total = self.it, 0.0
        gradient = np.zeros(len(self.flat))
        parts = self.networks()
        for r, levels in enumerate(samples):
            for level, (ends, t) in enumerate(levels):
                points = it.origin[r].astype(float) + t[:, None] * it.direction[r].astype(float)
                directions = np.tile(it.direction[r].astype(float), (len(t), 1))
                x, h, raw, rgb = self.inputs(level, points, directions)
                scale = vanilla_network.DENSITY_SCALE * it.settings.aabb_scale
                background, name = it.background[r], it.settings.density_activation
                args = ends, t, raw, rgb, scale, background
                error = hierarchical.composite(*args, name)[0] - it.target[r]
                total += it.weight[r] * error @ error / (3 * it.n)
                g = 2 * it.weight[r] * error / (3 * it.n)
                d_raw, d_rgb = hierarchical.composite_gradient(*args, g, name)
                dh, dw = self.backward(2 * level + 1, h, d_rgb)
                gradient[slice(*parts[2 * level + 1][:2])] += dw
                dy = np.column_stack([d_raw, dh[:, : it.settings.n_neurons]])
                gradient[slice(*parts[2 * level][:2])] += self.backward(2 * level, x, dy)[1]
        return total, gradient

    def all_samples(self):
        return [[rest for _, *rest in self.samples(r, True)] for r in range(self.it.n)]


def error(got, wanted):
    assert np.all(np.isfinite(got))
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_step_is_the_twin(activation, device):
    it = Case(device, replace(SMALL, density_activation=activation))
    gradient = it.step()
    twin = Twin(it)
    loss, wanted = twin.loss_and_gradient(twin.all_samples())
    assert it.loss() == pytest.approx(loss, rel=1e-5)
    # a sample near a ReLU's edge may fall on its other side
    assert error(gradient, wanted) < 1e-3
    for first, end, *_ in twin.networks():
        assert error(gradient[first:end], wanted[first:end]) < 3e-3
        assert np.linalg.norm(wanted[first:end]) > 1e-3
    assert error(np.roll(gradient, 1), wanted) > 0.5


def test_twin_is_the_slope_of_itself():
    """Central differences by a few weights of every layer; the samples stay where they are."""
    it = Case("cpu", replace(SMALL, density_activation="softplus"), n=6)
    twin = Twin(it)
    samples = twin.all_samples()
    gradient = twin.loss_and_gradient(samples)[1]
    rng, h = np.random.default_rng(1), 1e-6
    for first, end, *_ in twin.networks():
        for i in rng.integers(first, end, 8):
            values = []
            for sign in (1, -1):
                moved = it.w.astype(np.float64)
                moved[i] += sign * h
                values.append(Twin(it, moved).loss_and_gradient(samples)[0])
            slope = (values[0] - values[1]) / (2 * h)
            # a ReLU of the hidden layers may change sides within the difference
            assert slope == pytest.approx(gradient[i], rel=1e-3, abs=1e-7)


def test_rendering_is_the_twin(device):
    it = Case(device)
    run(it.field.render_stages(it.batch))
    color = it.batch.color.numpy().reshape(-1, 3)
    opacity, depth = it.batch.opacity.numpy(), it.batch.depth.numpy()
    twin = Twin(it)
    for r in range(it.n):
        got = np.hstack([color[r], opacity[r], depth[r]])
        assert np.allclose(got, np.hstack(twin.render(r)), atol=1e-4)
    assert np.all(it.batch.n_samples.numpy() == 6 + 15)


def test_render_rays_and_points_agree_with_the_twin(device):
    it = Case(device)
    twin = Twin(it)
    it.jitter[:] = 0.5
    found = it.field.render_rays(it.origin, it.direction, background=it.background)
    for r in range(it.n):
        color, opacity, depth = twin.render(r)
        assert np.allclose(found.color[r], color, atol=1e-4)
        assert found.opacity[r] == pytest.approx(opacity, abs=1e-4)
        if opacity > 0.01:
            assert found.depth[r] == pytest.approx(depth / opacity, abs=1e-3)
    assert np.all(np.isinf(found.depth[-2:]))  # they miss the box
    assert np.all(found.n_samples == 21)
    points = np.random.default_rng(0).random((50, 3))
    directions = np.tile(it.direction[0], (50, 1))
    *_, raw, rgb = twin.inputs(1, points, directions)
    density = it.field.density(points)
    assert np.allclose(density, 3 * np.maximum(raw, 0), atol=1e-4)
    assert density.max() > 0.1
    assert np.allclose(it.field.color(points, directions), rgb, atol=1e-5)


def test_chunks_of_rays_and_points_agree(device, monkeypatch):
    it = Case(device, n=50)
    args = it.origin, it.direction
    whole = it.field.render_rays(*args)
    points = np.random.default_rng(0).random((100, 3))
    density = it.field.density(points)
    monkeypatch.setattr(vanilla, "_RENDER_RAYS", {"cpu": 16, "cuda": 16})
    monkeypatch.setattr(vanilla, "_QUERY_POINTS", 32)
    other = Case(device, n=50)
    parts = other.field.render_rays(*args)
    for name in ("color", "opacity", "depth"):
        assert np.array_equal(getattr(parts, name), getattr(whole, name))
    assert np.array_equal(other.field.density(points), density)
    assert other.field.render_rays(np.zeros((0, 3)), np.zeros((0, 3))).color.shape == (0, 3)
    assert other.field.density(np.zeros((0, 3))).shape == (0,)


@pytest.mark.parametrize("n_rays", [1, 8])
def test_slices_add_up(n_rays, device, monkeypatch):
    whole = Case(device)
    wanted = whole.step()
    monkeypatch.setattr(VanillaField, "_slice_rays", lambda *_, **__: n_rays)
    it = Case(device)
    gradient = it.step()
    assert np.array_equal(it.batch.color.numpy(), whole.batch.color.numpy())
    assert np.array_equal(it.batch.loss.numpy(), whole.batch.loss.numpy())
    assert error(gradient, wanted) < 1e-5  # float32 sums in another order


def test_slices_follow_from_the_memory():
    field = VanillaField(VanillaSettings(), optimizer=vanilla_optimizer(), seed=0, device="cpu")
    n = field._slice_rays(1024)
    floats = n * 192 * field._network.training_rows()
    assert field._network.trunk.slice_floats / 2 < floats <= field._network.trunk.slice_floats
    assert field.n_params == 2 * 595844


def test_only_rays_that_count_are_trained_on(device):
    it = Case(device)
    it.batch.count.fill_(10)
    it.batch.color.fill_(7.0)
    gradient = it.step()
    assert np.all(it.batch.color.numpy()[30:] == 7)
    fewer = Case(device, n=10)
    for name in ("origin", "direction", "target", "background", "weight"):
        getattr(fewer.batch, name).assign(getattr(it, name)[:10].ravel())
    assert error(gradient, fewer.step()) < 1e-5
    it.batch.weight.zero_()
    assert np.all(it.step() == 0)


def test_threads_do_not_matter_and_steps_differ():
    results = []
    for threads in (1, 3):
        launch.set_num_threads(threads)
        it = Case("cpu")
        stages = [[it.field.optimizer.advance()], *it.field.train_stages(it.batch)]
        losses = []
        for _ in range(3):
            run(stages)
            losses.append(it.batch.loss.numpy().copy())  # on a CPU it is a view
        results.append([*losses, it.field.weights.value.numpy()])
    launch.set_num_threads(None)
    for one, three in zip(*results, strict=True):
        assert np.array_equal(one, three)
    assert not np.array_equal(results[0][0], results[0][1])


def test_it_learns_a_ball(device):
    """A red ball before blue: the loss falls by a factor of ten."""
    settings = replace(SMALL, n_coarse=16, n_fine=16, n_neurons=32, n_head_neurons=16)
    optimizer = replace(vanilla_optimizer(), learning_rate=5e-3)
    field = VanillaField(settings, optimizer=optimizer, seed=0, device=device)
    batch = make_batch(settings, 128, device)
    stages = [[field.optimizer.advance()], *field.train_stages(batch)]
    rng, losses = np.random.default_rng(0), []
    for _ in range(150):
        origin = rng.normal(size=(128, 3))
        origin = 0.5 + 1.5 * origin / np.linalg.norm(origin, axis=1, keepdims=True)
        direction = rng.uniform(0.2, 0.8, (128, 3)) - origin
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        off = 0.5 - origin
        miss = np.linalg.norm(off - (off * direction).sum(1, keepdims=True) * direction, axis=1)
        blue = np.tile([0.0, 0.0, 1.0], (128, 1))
        batch.origin.assign(origin.astype(np.float32).ravel())
        batch.direction.assign(direction.astype(np.float32).ravel())
        batch.background.assign(blue.astype(np.float32).ravel())
        target = np.where(miss[:, None] < 0.25, [1.0, 0.0, 0.0], blue)
        batch.target.assign(target.astype(np.float32).ravel())
        run(stages)
        losses.append(batch.loss.numpy()[::2].mean())
    assert np.mean(losses[-10:]) < 0.1 * losses[0]
    view = field.render_rays([[-1, 0.5, 0.5]], [[1, 0, 0]], background=(0, 0, 1))
    assert view.opacity[0] > 0.8
    assert 1.1 < view.depth[0] < 1.6  # the ball begins at 1.25


def test_average_is_what_is_evaluated(device):
    it = Case(device, optimizer=replace(vanilla_optimizer(), ema_decay=0.5))
    run([[it.field.optimizer.advance()], *it.field.train_stages(it.batch)])
    after = it.field.weights.value.numpy().copy()  # on a CPU it is a view
    assert not np.array_equal(after, it.w)
    run([[it.field.optimizer.advance()], *it.field.train_stages(it.batch)])
    last = it.field.weights.value.numpy().copy()
    it.field.use_average()
    wanted = (0.25 * after + 0.5 * last) / 0.75
    assert np.allclose(it.field.weights.value.numpy(), wanted, atol=1e-6)
    assert not np.allclose(last, wanted, atol=1e-6)


def test_near_is_where_rays_begin(device):
    it = Case(device)
    nearer = Case(device, replace(SMALL, near=1.0))
    wanted = nearer.field.render_rays(it.origin, it.direction)
    found = it.field.render_rays(it.origin, it.direction, near=1.0)
    whole = it.field.render_rays(it.origin, it.direction)
    for name in ("color", "opacity", "depth"):
        # rays that begin later, instead of samples that do: float32 rounding of positions
        a, b = getattr(found, name), getattr(wanted, name)
        assert a == pytest.approx(b, abs=2e-6), name
        assert not np.allclose(a, getattr(whole, name), atol=1e-3), name


def test_interface():
    it = Case("cpu", trainable=False)
    assert set(it.field.parameters()) == {"network"}
    assert it.field.extra_state() == {}
    assert it.field.occupancy is None
    assert it.field.occupancy_stages() == []
    assert it.field.make_batch().capacity == SMALL.max_rays
    assert it.field.counters() == {"rays": 0, "samples": 0}
    assert it.field.weights.gradient.size == 0
    assert it.field.render_rays(it.origin, it.direction).color.shape == (21, 3)
    with pytest.raises(ConfigError, match="has no latent vectors"):
        it.field.render_rays(it.origin, it.direction, latent=0)
    with pytest.raises(ShapeError, match=r"directions must have shape \[21, 3\], got \[20, 3\]"):
        it.field.render_rays(it.origin, it.direction[:20])
    with pytest.raises(ShapeError, match=r"points must be real numbers of shape \[n, 3\]"):
        it.field.density(np.zeros((4, 2)))
    with pytest.raises(ConfigError, match="n_coarse must be from 2 to 4096, got 1"):
        VanillaSettings(n_coarse=1)
    with pytest.raises(ConfigError, match=r"skip_layer must be from 1 to 2, got 5"):
        VanillaSettings(n_hidden_layers=3)
