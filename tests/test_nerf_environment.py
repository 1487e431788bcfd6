"""The environment map: its twin, its gradient, its seam and poles, and that it learns."""

from types import SimpleNamespace

import numpy as np
import pytest
import warp as wp
from reference import environment as reference

from ngp_warp import launch
from ngp_warp.config import OptimizerConfig
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.optimizer import Adam
from ngp_warp.primitives.nerf.environment import Environment
from ngp_warp.radiance.batch import make_batch

SPACES = pytest.mark.parametrize("space", ["srgb", "linear"])
SIZE = (16, 8)
FEATURES = SimpleNamespace(ray_gradients=False, exposure=False, background_gradients=True)


def directions_of(rng, n):
    d = rng.normal(size=(n, 3))
    d[:6] = np.concatenate([np.eye(3), -np.eye(3)])  # both poles, and the seam
    return (d / np.linalg.norm(d, axis=1, keepdims=True)).astype(np.float32)


def make(space, device, rng, **kwargs):
    environment = Environment(space, device, size=SIZE, **kwargs)
    texels = rng.normal(size=(SIZE[1], SIZE[0], 4)).astype(np.float32)
    environment.texels.value.assign(texels.ravel())
    return environment, texels[:, :, :3].astype(float)


def backward(environment, directions, d_colors, alpha=None):
    """Run the gradient without its step; return it as float64 [height, width, 4]."""
    n, device = len(directions), environment.device
    batch = make_batch(FEATURES, n, device)
    batch.direction.assign(directions.ravel())
    batch.d_background.assign(d_colors.astype(np.float32).ravel())
    opaque = np.ones(n, np.float32) if alpha is None else alpha.astype(np.float32)
    draw = SimpleNamespace(alpha=wp.array(opaque, dtype=wp.float32, device=device))
    stages = environment.stages_after(batch, draw, Adam(OptimizerConfig(), [], device))
    for stage in stages[:2]:
        launch.run_all(stage)
    gradient = environment.texels.gradient.numpy()
    scale = 1.0 if device == "cpu" else 2.0**-44
    return gradient.reshape(SIZE[1], SIZE[0], 4) * scale


@SPACES
def test_the_twin_sees_the_same(space, device):
    rng = np.random.default_rng(0)
    environment, texels = make(space, device, rng)
    directions = directions_of(rng, 200)
    found = environment.colors(directions)
    wanted = [reference.color(texels, d, space) for d in directions]
    # float32 angles times 16 texels
    assert found == pytest.approx(np.array(wanted), abs=2e-5)
    assert found.min() > 0


def test_there_is_no_seam(device):
    environment, _ = make("srgb", device, np.random.default_rng(1))
    z = np.linspace(-0.9, 0.9, 20)
    r = np.sqrt(1 - z**2)
    sides = [np.stack([-r, s * 1e-6 * r, z], axis=1) for s in (1, -1)]
    left, right = (environment.colors(side) for side in sides)
    assert left == pytest.approx(right, abs=1e-4)


@SPACES
def test_gradients_are_those_of_the_twin(space, device):
    rng = np.random.default_rng(2)
    environment, texels = make(space, device, rng)
    directions, d_colors = directions_of(rng, 300), rng.normal(size=(300, 3))
    wanted = reference.gradient(texels, directions, d_colors, space)
    found = backward(environment, directions, d_colors)
    assert np.abs(wanted).max() > 0.5
    assert found[:, :, :3] == pytest.approx(wanted, abs=2e-4)
    assert not found[:, :, 3].any()


@SPACES
def test_the_twins_gradient_is_a_derivative(space):
    rng = np.random.default_rng(3)
    texels = rng.normal(size=(4, 8, 3))
    directions, d_colors = directions_of(rng, 20), rng.normal(size=(20, 3))

    def value(t):
        colors = np.array([reference.color(t, d, space) for d in directions])
        return (colors * d_colors).sum()

    gradient = reference.gradient(texels, directions, d_colors, space)
    for index in np.ndindex(*texels.shape):
        h = np.zeros_like(texels)
        h[index] = 1e-6
        slope = (value(texels + h) - value(texels - h)) / 2e-6
        assert gradient[index] == pytest.approx(slope, abs=1e-7)


def test_what_is_not_opaque_gives_no_gradient(device):
    rng = np.random.default_rng(4)
    environment, texels = make("srgb", device, rng)
    directions, d_colors = directions_of(rng, 100), rng.normal(size=(100, 3))
    alpha = rng.integers(0, 2, 100) * 0.5 + 0.5
    found = backward(environment, directions, d_colors, alpha)
    opaque = alpha == 1
    wanted = reference.gradient(texels, directions[opaque], d_colors[opaque], "srgb")
    assert found[:, :, :3] == pytest.approx(wanted, abs=2e-4)


def test_gradients_do_not_depend_on_the_threads():
    results = []
    try:
        for n in (1, 3):
            launch.set_num_threads(n)
            rng = np.random.default_rng(5)
            environment, _ = make("srgb", "cpu", rng)
            directions = directions_of(rng, 1000)
            results.append(backward(environment, directions, rng.normal(size=(1000, 3))))
    finally:
        launch.set_num_threads(None)
    assert np.array_equal(*results)


def test_it_learns_a_sky(device):
    rng = np.random.default_rng(6)
    environment = Environment(
        "srgb", device, size=(32, 16), optimizer=OptimizerConfig(learning_rate=0.1)
    )
    n = 512
    batch = make_batch(FEATURES, n, device)
    leader = Adam(OptimizerConfig(), [], device)
    leader.n_steps.fill_(150)
    alpha = wp.ones(n, dtype=wp.float32, device=device)
    stages = environment.stages_after(batch, SimpleNamespace(alpha=alpha), leader)
    for _ in range(150):
        leader.advance().run()
        directions = directions_of(rng, n)
        d = environment.colors(directions) - (0.5 + 0.3 * directions)
        batch.direction.assign(directions.ravel())
        batch.d_background.assign(d.astype(np.float32).ravel())
        for stage in stages:
            launch.run_all(stage)
    directions = directions_of(rng, n)
    error = np.abs(environment.colors(directions) - (0.5 + 0.3 * directions))
    assert error.mean() < 0.01


def test_it_needs_its_gradients(device):
    environment = Environment("srgb", device, size=SIZE)
    features = SimpleNamespace(ray_gradients=False, exposure=False, background_gradients=False)
    draw = SimpleNamespace(alpha=wp.ones(8, dtype=wp.float32, device=device))
    with pytest.raises(ShapeError, match="d_background"):
        environment.stages_after(
            make_batch(features, 8, device), draw, Adam(OptimizerConfig(), [], device)
        )
    with pytest.raises(ConfigError, match="width"):
        Environment("srgb", device, size=(0, 8))
    with pytest.raises(ShapeError, match="directions"):
        environment.colors(np.zeros(3))
