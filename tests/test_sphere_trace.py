"""Sphere tracing: kernels against their float64 twin, hits against geometry, and its laws."""

import numpy as np
import pytest

from ngp_warp import launch
from ngp_warp.errors import ShapeError
from ngp_warp.kernels import sphere_trace as kernels
from ngp_warp.rays import sphere_trace as module
from ngp_warp.rays.sphere_trace import SphereTracer, sphere_trace
from tests.reference import sphere_trace as twin
from tests.sdf_fields import interpolation_error, sampled, sphere

SETTINGS = (
    module.RELAXATION,
    module.EPSILON,
    module.TOLERANCE,
    module.MAX_STEPS,
    module.MAX_REFINEMENTS,
)
RADIUS = 0.3


def unit(v):
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def rays_about(n, seed=0, spread=0.45):
    """Rays from a sphere of radius 2 about the cube towards points near its middle."""
    rng = np.random.default_rng(seed)
    origins = 0.5 + 2 * unit(rng.normal(size=(n, 3)))
    targets = 0.5 + spread * rng.uniform(-1, 1, (n, 3))
    return origins.astype(np.float32), unit(targets - origins).astype(np.float32)


def sphere_hits(rays_o, rays_d, radius):
    """Return (t of the first hit, nearest approach) to the sphere about the middle, float64."""
    o, d = rays_o.astype(np.float64) - 0.5, unit(rays_d.astype(np.float64))
    b = np.sum(o * d, axis=1)
    nearest = np.sqrt(np.maximum(np.sum(o * o, axis=1) - b * b, 0))
    return -b - np.sqrt(np.maximum(radius**2 - nearest**2, 0)), nearest


@pytest.fixture
def ball(device):
    return sampled(sphere(RADIUS), device)


@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_rays_are_the_twins(ball, margin):
    rays_o, rays_d = rays_about(60)
    trace = SphereTracer(ball).trace(rays_o, rays_d, margin=margin)
    got, wanted = [], []
    for i in range(len(rays_o)):
        ray = twin.trace(
            lambda p: float(ball.query(p[None])[0, 0]), rays_o[i], rays_d[i], margin, *SETTINGS
        )
        assert trace.hit[i] == (ray.status == "hit")
        got.append(trace.t[i] if trace.hit[i] else trace.clearance[i])
        wanted.append(ray.t if trace.hit[i] else ray.clearance)
    # t of 2 in float32, and where the float32 values of the field change its sign
    assert np.abs(np.array(got) - wanted).max() < 2e-5
    assert np.abs(np.array(got) - np.roll(wanted, 1)).max() > 0.1
    assert 10 < trace.hit.sum() < 50


def test_a_step_is_the_twins(device):
    """Every branch of the advance kernel, from states and values drawn at random."""
    rng = np.random.default_rng(1)
    n = 64
    status = rng.integers(0, 4, n).astype(np.int32)
    values = {
        "origin": rng.uniform(-0.2, 1.2, (n, 3)),
        "direction": unit(rng.normal(size=(n, 3))),
        "t_end": rng.uniform(0.1, 1, n),
        "t": rng.uniform(0.1, 0.3, n),
        "near_t": rng.uniform(0.0, 0.1, n),
        "near_d": rng.uniform(0.01, 0.2, n),
        "far_t": rng.uniform(0.4, 0.5, n),
        "far_d": -rng.uniform(0.01, 0.2, n),
        "side": np.where(status > 0, 1.0, rng.choice([0.0, -1.0, 1.0], n)),
        "clearance": rng.uniform(0.01, 2, n),
    }
    values = {name: v.astype(np.float32) for name, v in values.items()}
    d = rng.normal(0, 0.1, n).astype(np.float32)
    d[::7] *= 1e-5
    state = module._make_state(n, device)
    for name, v in values.items():
        getattr(state, name).assign(v)
    state.status.assign(status)
    import warp as wp

    def ints(a):
        return wp.array(np.asarray(a, np.int32), device=device)

    x, y = wp.zeros(n * 3, dtype=float, device=device), wp.array(d, device=device)
    args = [ints([0, n]), ints(np.arange(n)), y, *SETTINGS, state, x]
    launch.launch(kernels.advance_kernel, n, args, device)
    names = ["march", "bracket", "bracket_near", "bracket_far", "hit", "miss"]
    rays = []
    for i in range(n):
        ray = twin.Ray(**{k: v[i].astype(np.float64) for k, v in values.items()})
        ray.status = names[status[i]]
        twin.advance(ray, float(d[i]), *SETTINGS)
        rays.append(ray)
    assert [names[s] for s in state.status.numpy()] == [ray.status for ray in rays]
    assert state.count.numpy().tolist() == [ray.count for ray in rays]
    for name in ("t", "near_t", "near_d", "far_t", "far_d", "side", "clearance"):
        wanted = np.array([getattr(ray, name) for ray in rays])
        got = getattr(state, name).numpy()
        # a few float32 operations on O(1) values, a square root of their differences
        assert np.abs(got - wanted).max() < 2e-5, name
        assert not np.allclose(got, np.roll(wanted, 1), atol=1e-2), name
    positions = x.numpy().reshape(-1, 3, 32).transpose(0, 2, 1).reshape(n, 3)
    assert np.abs(positions - [ray.position for ray in rays])[status < 4].max() < 1e-6
    assert {ray.status for ray in rays} == set(names)


def test_hits_lie_on_the_sphere(ball):
    rays_o, rays_d = rays_about(3000)
    t, hit = sphere_trace(ball, rays_o, rays_d)
    wanted, nearest = sphere_hits(rays_o, rays_d, RADIUS)
    error = interpolation_error(RADIUS)
    assert np.all(hit[nearest < RADIUS - error])
    assert not np.any(hit[nearest > RADIUS + error])
    assert np.all(np.isinf(t[~hit]))
    points = rays_o[hit] + t[hit, None] * rays_d[hit]
    # the field's own zero level, to the tolerance and float32 positions
    assert np.abs(ball.query(points)).max() < module.TOLERANCE + 1e-6
    steep = hit & (nearest < 0.9 * RADIUS)
    # a ray meets the surface at an angle of at least acos(0.9): 1 / 0.43
    assert np.abs(t - wanted)[steep].max() < 2.5 * error + 2e-5
    assert np.abs(t - wanted)[steep].max() > 1e-7


def test_depth_of_a_plane_is_exact(device):
    field = sampled(lambda p: p[:, 1] - 0.3, device, 16)
    rng = np.random.default_rng(2)
    origins = rng.uniform([0.3, 0.8, 0.3], [0.7, 3.0, 0.7], (500, 3)).astype(np.float32)
    rays_d = unit(rng.uniform([-0.2, -1, -0.2], [0.2, -0.9, 0.2], (500, 3))).astype(np.float32)
    x = origins + rays_d * ((origins[:, 1] - 0.3) / -rays_d[:, 1])[:, None]
    inside = np.all((x > 0.01) & (x < 0.99), axis=1)
    t, hit = sphere_trace(field, origins, rays_d)
    assert np.all(hit[inside])
    assert inside.sum() > 200
    wanted = (origins[:, 1] - 0.3) / -rays_d[:, 1]
    # float32 of t up to 3, and the tolerance over the least slope
    assert np.abs(t - wanted)[inside].max() < 1.2 * module.TOLERANCE + 2e-6


def test_a_field_that_overshoots_still_gives_hits_on_its_zero_level(device):
    steep = sampled(lambda p: 1.6 * sphere(RADIUS)(p), device)
    rays_o, rays_d = rays_about(1000, spread=0.1)
    t, hit = sphere_trace(steep, rays_o, rays_d)
    assert np.all(hit)
    wanted, _ = sphere_hits(rays_o, rays_d, RADIUS)
    assert np.abs(t - wanted).max() < 2 * interpolation_error(RADIUS) + 2e-5


def test_a_ray_from_inside_leaves(ball):
    rays_d = unit(np.random.default_rng(3).normal(size=(100, 3))).astype(np.float32)
    t, hit = sphere_trace(ball, np.full((100, 3), 0.5, np.float32), rays_d)
    assert np.all(hit)
    assert np.abs(t - RADIUS).max() < interpolation_error(RADIUS) + 2e-5


def test_rays_that_miss_the_cube_or_look_away_miss(ball):
    rays_o = np.array([[2, 2, 2], [0.5, 0.5, 3], [3, 0.5, 0.5], [0.5, -1, 5]], np.float32)
    rays_d = np.array([[0, 0, 1], [0, 0, 1], [0, 1, 0], [0, 1, 0]], np.float32)
    trace = SphereTracer(ball).trace(rays_o, rays_d)
    assert not trace.hit.any()
    assert np.all(np.isinf(trace.t))
    assert np.all(trace.clearance == kernels.NO_CLEARANCE)


def test_clearance_is_the_angle_to_the_sphere(ball):
    rays_o, rays_d = rays_about(2000, spread=0.5)
    trace = SphereTracer(ball).trace(rays_o, rays_d, margin=0.5)
    assert np.all(trace.clearance[trace.hit] == 0)
    _, nearest = sphere_hits(rays_o, rays_d, RADIUS)
    # the sine of the angle to the sphere's rim: the least of d / t is at a right angle to the cone
    exact = np.sin(np.arcsin(nearest / 2) - np.arcsin(RADIUS / 2))
    # nearer than the shortest step the samples may lie on both sides; farther than 0.1 a ray leaves
    # the cube, where the distance is bounded from below
    missed = ~trace.hit & (exact > 0.005) & (exact < 0.1)
    assert missed.sum() > 200
    ratio = trace.clearance[missed] / exact[missed]
    # never more, and less by an eighth at most: where the spheres of two steps of 0.95 of a
    # constant distance meet, sqrt(1 - 0.475^2)
    assert 0.87 < ratio.min() <= ratio.max() < 1.01


@pytest.mark.parametrize("n_threads", [1, 3])
def test_results_do_not_depend_on_threads(ball, n_threads):
    rays_o, rays_d = rays_about(20_000)
    before = launch.num_threads()
    wanted = SphereTracer(ball).trace(rays_o, rays_d)
    try:
        launch.set_num_threads(n_threads)
        got = SphereTracer(ball).trace(rays_o, rays_d)
    finally:
        launch.set_num_threads(before)
    assert np.array_equal(got.t, wanted.t)
    assert np.array_equal(got.clearance, wanted.clearance)


def test_a_ray_does_not_depend_on_its_company(ball, monkeypatch):
    rays_o, rays_d = rays_about(5000)
    tracer = SphereTracer(ball)
    wanted = tracer.trace(rays_o, rays_d)
    for part in (slice(0, 1), slice(100, 133), slice(1000, 4000)):
        got = tracer.trace(rays_o[part], rays_d[part])
        assert np.array_equal(got.t, wanted.t[part])
    monkeypatch.setattr(module, "_CPU_RAYS", 1024)
    monkeypatch.setattr(module, "_CUDA_RAYS", 1024)
    assert np.array_equal(SphereTracer(ball).trace(rays_o, rays_d).t, wanted.t)


def test_no_rays(ball):
    t, hit = sphere_trace(ball, np.empty((0, 3)), np.empty((0, 3)))
    assert t.shape == hit.shape == (0,)


def test_tensors_give_tensors(ball):
    import torch

    rays_o, rays_d = rays_about(50)
    t, hit = sphere_trace(ball, torch.from_numpy(rays_o), torch.from_numpy(rays_d))
    assert isinstance(t, torch.Tensor)
    assert hit.dtype == torch.bool
    assert np.array_equal(t.numpy(), sphere_trace(ball, rays_o, rays_d)[0])


@pytest.mark.parametrize(
    ("rays_o", "rays_d", "match"),
    [
        (np.zeros((5, 2)), np.zeros((5, 2)), "rays_o must have shape"),
        (np.zeros((5, 3)), np.zeros(3), "rays_d must have shape"),
        (np.zeros((5, 3)), np.full((4, 3), 3**-0.5), "same length"),
        (np.zeros((5, 3)), np.ones((5, 3)), "unit vectors"),
        (np.full((5, 3), np.nan), np.full((5, 3), 3**-0.5), "finite"),
        (np.zeros((5, 3), complex), np.full((5, 3), 3**-0.5), "real"),
    ],
)
def test_wrong_rays_are_refused(ball, rays_o, rays_d, match):
    with pytest.raises(ShapeError, match=match):
        sphere_trace(ball, rays_o, rays_d)


def test_a_field_that_is_no_distance_is_refused(device):
    from tests.test_field import make

    with pytest.raises(ShapeError, match="3 coordinates to 1 value, got 2 to 3"):
        SphereTracer(make(device))


@pytest.mark.parametrize("arch", [80, 90])
def test_kernels_compile_for_cuda(arch, tmp_path):
    import warp as wp

    (path,) = wp.compile_aot_module(kernels, arch=arch, module_dir=tmp_path)
    assert path.stat().st_size > 0
