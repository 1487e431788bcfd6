"""Rays through a radiance field: against the twin, exact opacities, and laws.

The field is exact, so that only the tracking is tested. Monte Carlo means are compared within four
of their own standard errors.
"""

from dataclasses import replace

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ConfigError
from ngp_warp.primitives.volume import neural_tracer as module
from ngp_warp.primitives.volume.kernels import events
from ngp_warp.primitives.volume.medium import Medium
from ngp_warp.primitives.volume.neural_tracer import NeuralTracer
from ngp_warp.primitives.volume.path_tracer import make_view, render
from ngp_warp.primitives.volume.radiance_field import RadianceField
from ngp_warp.rays.cameras import Camera, orbit
from tests.reference import volume_events as twin
from tests.reference import volume_light
from tests.reference.mlp import from_blocks
from tests.volume_field_case import ExactField
from tests.volume_light_case import SHEARED, SIGMAS, UNIFORM, check_means, smooth, sparse

N_EVENTS = 4
ONE = (1.0, 1.0, 1.0)


def trace(field, camera, spp, *, light=UNIFORM, **options):
    tracer = NeuralTracer(field, light, camera, **options)
    tracer.add(spp)
    return tracer.picture()


def view_of(field, size, distance=1.5):
    return orbit(30, 20, distance, width=size, height=size).moved(*field.medium.cube)


class Flown:
    """Rays of the pixels of a camera, followed step by step with what a function says of points."""

    def __init__(self, field, camera, seed, sample, look):
        device, cloud = field.device, field.medium.cloud
        n = camera.width * camera.height
        padded = -(-n * N_EVENTS // 32) * 32
        self.flights = module._make_flights(n, device)
        pixels = wp.array(np.arange(n, dtype=np.int32), device=device)
        start = [cloud, make_view(field.to_grid, camera), pixels, seed, sample, self.flights]
        launch.launch(events.start_kernel, n, start, device)
        x, y = field.zeros(padded, 3), field.zeros(padded, 4)
        majorants = wp.zeros(padded, dtype=float, device=device)
        span = wp.array(np.array([0, n], np.int32), device=device)
        side = float(field.frame.side)
        self.positions, self.majorants = [[] for _ in range(n)], [[] for _ in range(n)]
        for _ in range(1000):
            if (self.flights.status.numpy() >= events.ENDED).all():
                break
            args = [span, pixels, cloud, side, self.flights, x, majorants]
            launch.launch(events.event_kernel(N_EVENTS), n, args, device)
            p = from_blocks(x.numpy().reshape(-1, 3, 32), padded) * side - 0.5
            radiance, density = look(p)
            values = np.concatenate([radiance, density[:, None] * field.density_gain], axis=1)
            y.assign(values.astype(np.float32).reshape(-1, 32, 4).transpose(0, 2, 1).ravel())
            for k in np.flatnonzero(majorants.numpy()):
                self.positions[k // N_EVENTS].append(p[k])
                self.majorants[k // N_EVENTS].append(majorants.numpy()[k])
            args = [span, pixels, majorants, y, field.density_gain, self.flights]
            launch.launch(events.composite_kernel(N_EVENTS), n, args, device)
        else:
            pytest.fail("rays do not end")


def glow(p):
    """A radiance that differs from place to place, and falls below 0 at some."""
    return np.sin(p + np.array([0.0, 0.5, 1.0]))


@pytest.mark.parametrize("kind", ["full", "sparse"])
def test_events_are_the_twins(kind, device):
    values = smooth() if kind == "full" else sparse(20)
    field = ExactField(values, SHEARED, ONE, density_scale=2.0, device=device)
    medium, camera = field.medium, view_of(field, 9)

    def look(p):
        return glow(p), volume_light.density(values, p - 1)

    flown = Flown(field, camera, 3, 7, look)
    cloud = (medium.majorants, medium.block, medium.density_scale)
    pose, pixel, size = camera.camera_to_world(), camera.pixel_size, camera.width
    light, left = flown.flights.light.numpy(), flown.flights.left.numpy()
    n_found, wrong = 0, []
    for i in range(size * size):
        draw = twin.numbers(3, 7, i)
        right, up = i % size + draw(0) - size / 2, size / 2 - i // size - draw(1)
        way = pose[:3, :3] @ [pixel * right, pixel * up, -1]
        way = medium.to_grid[:3, :3] @ (way / np.linalg.norm(way))
        origin = volume_light.at(medium.to_grid, pose[:3, 3])
        path = twin.follow(cloud, origin, way, draw, look, N_EVENTS)
        assert len(flown.positions[i]) == len(path.positions)
        n_found += len(path.positions)
        if path.positions:
            # float32 coordinates of up to 60 grid units from the eye, and as many blocks added up
            np.testing.assert_allclose(flown.positions[i], path.positions, atol=2e-3)
            np.testing.assert_allclose(flown.majorants[i], path.majorants, rtol=1e-6)
            wrong.append(np.abs(np.roll(path.positions, 1, axis=0) - flown.positions[i]).max())
        # 2e-3 voxels, at slopes of up to 1 of the radiance and of alpha a voxel
        np.testing.assert_allclose(light[i], path.light, atol=5e-3)
        np.testing.assert_allclose(left[i], path.left, atol=5e-3)
    assert n_found > 300
    assert np.median(wrong) > 0.1  # that the comparison would notice events out of their order


def along_an_axis(to_world, ramp, device, *, times=1.0):
    """A field, a camera whose rays all go along its x axis, and 1 - exp(-optical depth)."""
    values = np.zeros((12, 5, 6)) + (np.arange(12)[:, None, None] if ramp else 5.0)
    field = ExactField(values, to_world, ONE, density_scale=0.03, times=times, device=device)
    voxel = np.linalg.norm(to_world[:3, 0])
    # across the axis the values are alike: anywhere between the outermost middles
    start, end = volume_light.at(to_world, np.array([[-20.0, 2.3, 2.6], [5.0, 2.3, 2.6]]))
    camera = Camera(
        position=tuple(start), look_at=tuple(end), up=(0.0, 0.0, 1.0), fov=1e-3, width=64, height=64
    )
    return field, camera, voxel, values[:, 2, 2]


@pytest.mark.parametrize("ramp", [False, True])
@pytest.mark.parametrize("to_world", [np.eye(4), SHEARED], ids=["cubes", "sheared"])
def test_opacity_along_an_axis_is_exact(ramp, to_world, device):
    field, camera, voxel, values = along_an_axis(to_world, ramp, device)
    picture = trace(field, camera, 3, sky=False)
    # a sum of trapezia, whose ends are 0
    expected = 1 - np.exp(-0.03 * voxel * values.sum())
    check_means(picture.opacity.ravel().astype(np.float64), expected)
    # that the comparison would notice a voxel more
    with pytest.raises(AssertionError):
        check_means(picture.opacity.ravel(), 1 - np.exp(-0.03 * voxel * (values.sum() + 5)))


def test_a_density_above_its_majorant_is_clamped(device):
    field, camera, voxel, _ = along_an_axis(np.eye(4), False, device, times=100.0)
    picture = trace(field, camera, 1, sky=False)
    # every possible collision is real but in the outermost 1/100 of a voxel, where half of them are
    expected = 1 - np.exp(-0.03 * voxel * 5 * (13 - 2 * 0.01 / 2))
    check_means(picture.opacity.ravel().astype(np.float64), expected)
    assert picture.opacity.min() == 0
    assert picture.opacity.max() == 1


@pytest.mark.parametrize("to_world", [np.eye(4), SHEARED], ids=["cubes", "sheared"])
def test_color_is_radiance_times_opacity(to_world, device):
    radiance = (0.2, 1.0, 3.0)
    field = ExactField(sparse(20), to_world, radiance, density_scale=0.5, device=device)
    picture = trace(field, view_of(field, 16), 8, sky=False)
    assert picture.opacity.max() > 0.9
    # left is drawn anew where it is faint, the light is not: equal in expectation
    difference = picture.color - picture.opacity[..., None] * np.array(radiance)
    check_means(difference.reshape(-1, 3).astype(np.float64), 0.0)
    # where no ray is faint, both are sums of the same few alphas: one or two of at most 1/2
    ones = np.ones((9, 7, 8))
    thin = ExactField(ones, to_world, radiance, density_scale=0.02, times=0.5, device=device)
    picture = trace(thin, view_of(thin, 16), 8, sky=False)
    assert picture.opacity.max() > 0.05
    np.testing.assert_allclose(
        picture.color, picture.opacity[..., None] * np.array(radiance), atol=1e-5
    )


def test_a_medium_as_bright_as_the_sky_is_invisible(device):
    field = ExactField(smooth(), np.eye(4), (0.7, 0.7, 0.7), density_scale=1.0, device=device)
    picture = trace(field, view_of(field, 24, 2.5), 32)
    assert picture.opacity.max() > 0.9
    check_means(picture.color[..., 0].ravel().astype(np.float64), 0.7)
    # what roulette leaves of FAINT of the sky
    assert np.abs(picture.color - 0.7).max() < 0.1 * 0.7
    beside = picture.opacity == 0
    assert beside.any()
    np.testing.assert_allclose(picture.color[beside], 0.7, rtol=1e-6)


def test_opacity_is_the_path_tracers(device):
    field = ExactField(sparse(20), SHEARED, ONE, density_scale=1.0, device=device)
    camera, spp = view_of(field, 12, 1.2), 200
    learned = trace(field, camera, spp, sky=False)
    traced = render(field.medium, UNIFORM, camera, 4 * spp, seed=1, sky=False)
    chance = np.clip(learned.opacity.astype(np.float64), 0, 1)
    # its light is its opacity, in expectation; the path tracer's opacity is a share of its paths
    error = np.sqrt(learned.error[..., 0] ** 2 + chance * (1 - chance) / (4 * spp))
    difference = np.abs(learned.color[..., 0] - traced.opacity)
    assert (difference <= SIGMAS * error + 2 / (4 * spp)).all()
    assert 0.1 < chance.mean() < 0.9
    # less noise than as many drawn collisions have
    some = (chance > 0.1) & (chance < 0.9)
    drawn = np.sqrt(chance * (1 - chance) / spp)
    assert (learned.error[..., 0] < drawn)[some].mean() > 0.9


def pictures_equal(a, b):
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("color", "error", "opacity"))


def test_threads_parts_and_slots_change_nothing(device, monkeypatch):
    field = ExactField(sparse(20), SHEARED, ONE, density_scale=1.0, device=device)
    camera = view_of(field, 21)
    camera = replace(camera, height=17)
    first = trace(field, camera, 6, seed=5)
    n_threads = launch.num_threads()
    try:
        for threads in (1, 2):
            launch.set_num_threads(threads)
            assert pictures_equal(trace(field, camera, 6, seed=5), first)
    finally:
        launch.set_num_threads(n_threads)
    tracer = NeuralTracer(field, UNIFORM, camera, seed=5)
    for part in (2, 1, 3):
        tracer.add(part)
    assert tracer.picture().spp == 6
    assert pictures_equal(tracer.picture(), first)
    for name in ("_CPU_SLOTS", "_CUDA_SLOTS"):
        monkeypatch.setattr(module, name, 160)
    for name in ("_CPU_RAYS", "_CUDA_RAYS"):
        monkeypatch.setattr(module, name, 200)
    assert pictures_equal(trace(field, camera, 6, seed=5), first)
    assert not pictures_equal(trace(field, camera, 6, seed=6), first)


def test_progress_and_bad_numbers(device):
    field = ExactField(smooth(), np.eye(4), ONE, density_scale=1.0, device=device)
    tracer, told = NeuralTracer(field, UNIFORM, view_of(field, 4)), []
    with pytest.raises(ConfigError, match="call add"):
        tracer.picture()
    with pytest.raises(ConfigError, match="spp"):
        tracer.add(0)
    tracer.add(2)
    tracer.add(3, progress=told.append)
    assert [p.step for p in told] == [1, 2, 3]
    assert {p.total for p in told} == {3}
    with pytest.raises(ConfigError, match="seed"):
        NeuralTracer(field, UNIFORM, view_of(field, 4), seed=-1)


def test_an_untrained_field_of_the_default_config_is_drawn(device):
    exact = ExactField(smooth(), SHEARED, ONE, density_scale=1.0, device=device)
    field = RadianceField(exact.frame, exact.config, device, trainable=False)
    field.majorants.assign(exact.medium.majorants)
    picture = trace(field, view_of(exact, 8), 2)
    assert np.isfinite(picture.color).all()
    assert (picture.opacity >= 0).all()


class Known(ExactField):
    """Is asked for densities point by point."""

    def query(self, points):
        grid = points * self.frame.side - 0.5
        values = self.medium.densities(self.medium.world_points(grid)) * self.density_gain
        return np.stack([values] * 4, axis=1) * self.times


def test_densities_are_the_mediums_and_bounded(device):
    values = sparse(20)
    field = Known(values, SHEARED, ONE, density_scale=1.0, device=device)
    rng = np.random.default_rng(0)
    voxels = rng.uniform(-6, 26, (2000, 3))
    expected = volume_light.density(values, voxels)
    got = field.densities(voxels)
    # world coordinates in float32, times slopes of up to 3 a voxel
    np.testing.assert_allclose(got, expected, atol=1e-3)
    assert (got[np.any((voxels < -1) | (voxels > 20), axis=1)] == 0).all()
    assert np.abs(np.roll(got, 1) - expected).max() > 1
    field.times = 100.0
    bound = field.medium.majorants
    block = np.clip(np.floor((voxels + 1) / 4), 0, np.array(bound.shape) - 1).astype(int)
    most = bound[tuple(block.T)]
    assert (field.densities(voxels) <= most).all()
    assert (field.densities(voxels) == most)[expected > 0.1].all()
    field.times = -1.0
    assert (field.densities(voxels) == 0).all()


def test_a_field_lies_where_its_medium_does(device):
    first = (3, 0, -2)
    medium = Medium.from_values(smooth(), SHEARED, first, density_scale=1.0, device=device)
    exact = ExactField(smooth(), SHEARED, ONE, density_scale=1.0, device=device)
    frame = replace(exact.frame, first=first)
    field = RadianceField(frame, exact.config, device, trainable=False)
    np.testing.assert_allclose(field.to_grid, medium.to_grid)
    assert field.majorants.shape == medium.majorants.shape
    # the cube's points: grid coordinates are voxels from the first, and one
    points = np.random.default_rng(0).random((50, 3))
    world = frame.world_from_voxel(frame.voxel_from_unit(points))
    grid = volume_light.at(field.to_grid, world)
    np.testing.assert_allclose((grid + 0.5) / frame.side, points)
