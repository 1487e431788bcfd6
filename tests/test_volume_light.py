"""Light through volumes: exact transmittances, furnaces, an integral; pictures.

Monte Carlo means are compared within four of their own standard errors.
"""

from dataclasses import replace

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.primitives.volume.kernels import light as light_kernels
from ngp_warp.primitives.volume.kernels import tracking
from ngp_warp.primitives.volume.light import Light
from ngp_warp.primitives.volume.medium import Medium
from ngp_warp.primitives.volume.path_tracer import PathTracer, render
from ngp_warp.primitives.volume.transport import collisions, transmittances
from ngp_warp.rays.cameras import orbit
from tests.reference import volume_light as twin
from tests.volume_light_case import (
    ALL_SUN,
    BLACK,
    SHEARED,
    SIGMAS,
    UNIFORM,
    check_means,
    inward_rays,
    middle_ray,
    smooth,
    sparse,
)


@pytest.mark.parametrize("method", ["ratio", "delta"])
@pytest.mark.parametrize("ramp", [False, True])
@pytest.mark.parametrize("to_world", [np.eye(4), SHEARED], ids=["cubes", "sheared"])
def test_transmittance_along_an_axis_is_exact(method, ramp, to_world, device):
    values = np.zeros((12, 5, 6)) + (np.arange(12)[:, None, None] if ramp else 5.0)
    medium = Medium.from_values(values, to_world, (3, 0, -2), density_scale=0.03, device=device)
    column = to_world[:3, 0]
    voxel = np.linalg.norm(column)
    # across the axis the values are alike: anywhere between the outermost middles
    start = np.array([[-20.0, 1.7, -0.4], [-20.0, 2.0, 1.0]])
    rays_o = twin.at(to_world, start)
    rays_d = np.tile(column / voxel, (2, 1))
    got = transmittances(medium, rays_o, rays_d, spp=4000, method=method, seed=1)
    # a sum of trapezia, whose ends are 0
    expected = np.exp(-0.03 * voxel * values[:, 0, 0].sum())
    assert (np.abs(got.mean - expected) <= SIGMAS * got.error).all()
    assert (got.error > 0).all()
    assert (got.error < 0.01).all()
    if method == "ratio" and ramp:
        # a chance of 1/2 has the standard deviation 1/2; ratios have less
        assert (got.error < np.sqrt(expected * (1 - expected) / 4000)).all()


@pytest.mark.parametrize("method", ["ratio", "delta"])
def test_transmittance_of_any_ray_is_the_integrals(method, device):
    medium = Medium.from_values(smooth(), SHEARED, density_scale=0.3, device=device)
    rays_o, rays_d = inward_rays(medium, 30)
    got = transmittances(medium, rays_o, rays_d, spp=2000, method=method)
    side, _ = medium.cube
    depth = twin.optical_depth(smooth(), SHEARED, rays_o, rays_d, 4 * side, 4000)
    expected = np.exp(-0.3 * depth)
    # midpoints miss the integral by less than 1e-4
    assert (np.abs(got.mean - expected) <= SIGMAS * got.error + 1e-4).all()
    assert expected.min() < 0.3


def test_thick_media_let_nothing_through_without_bias(device):
    # the roulette of faint transmittances: exp(-5) is below it
    medium = Medium.from_values(
        np.arange(1.0, 11)[:, None, None] * np.ones((10, 3, 3)), density_scale=5 / 55, device=device
    )
    o, d = np.array([[-5.0, 1, 1]]), np.array([[1.0, 0, 0]])
    got = transmittances(medium, o, d, spp=40000)
    assert abs(got.mean[0] - np.exp(-5)) <= SIGMAS * got.error[0]
    assert got.error[0] < 0.05 * np.exp(-5)


@pytest.mark.parametrize("g", [0.0, 0.6])
def test_a_white_medium_in_uniform_light_is_invisible(g, device):
    values = smooth()
    medium = Medium.from_values(values, density_scale=1.0, albedo=1.0, g=g, device=device)
    camera = orbit(30, 20, 1.5, width=12, height=10).moved(*medium.cube)
    picture = render(medium, UNIFORM, camera, 16)
    # every path carries the sky's radiance to the eye, whatever its length
    np.testing.assert_allclose(picture.color, 0.7, rtol=1e-6)
    assert picture.opacity.max() == 1
    assert picture.cut == 0


@pytest.mark.parametrize("g", [0.0, -0.5])
def test_a_white_medium_in_a_sun_of_all_directions_gains_nothing(g, device):
    # the same by next event estimation alone: a sun that fills the sphere
    medium = Medium.from_values(smooth(), density_scale=1.0, albedo=1.0, g=g, device=device)
    rays_o, rays_d = middle_ray(medium, 40000)
    got = collisions(medium, ALL_SUN, rays_o, rays_d)
    assert got.hit.mean() > 0.9
    check_means(got.radiances[:, 0] - 0.7 * got.hit, 0.0)
    # that the comparison would notice a gain of a twentieth
    with pytest.raises(AssertionError):
        check_means(1.05 * got.radiances[:, 0] - 0.7 * got.hit, 0.0)


@pytest.mark.parametrize("light", [UNIFORM, ALL_SUN], ids=["sky", "sun"])
def test_absorption_is_chandrasekhars(light, device):
    # a half space under uniform light reflects 1 - H(1) sqrt(1 - albedo) of it straight back;
    # the density's rise at its face changes nothing, only the optical depth matters
    albedo = 0.8
    medium = Medium.from_values(
        np.ones((12, 12, 12)), density_scale=20.0, albedo=albedo, device=device
    )
    n = 20000
    rays_o, rays_d = np.tile([[5.3, 5.8, -20.0]], (n, 1)), np.tile([[0.0, 0, 1]], (n, 1))
    got = collisions(medium, light, rays_o, rays_d)
    assert got.hit.all()
    expected = 0.7 * (1 - np.sqrt(1 - albedo) * twin.chandrasekhar_h(1.0, albedo))
    check_means(got.radiances[:, 0].astype(np.float64), expected)


@pytest.mark.parametrize("g", [0.0, 0.5])
def test_single_scattering_is_the_integral(g, device):
    values, scale, albedo = smooth((5, 4, 6)), 0.15, 0.9
    light = Light(up="z", sun_azimuth=110, sun_elevation=25, sun_diameter=0.5)
    medium = Medium.from_values(
        values, SHEARED, density_scale=scale, albedo=albedo, g=g, device=device
    )
    n = 40000
    rays_o, rays_d = middle_ray(medium, n)
    # from 2 sides before the middle to 0.9 before it; half a diagonal is 0.87
    rays_o = rays_o + 1.1 * medium.cube[0] * rays_d
    length = 1.8 * medium.cube[0]
    args = (values, SHEARED, scale, albedo, g)
    expected = twin.single_scattering(args, light, rays_o[0], rays_d[0], length)
    got = collisions(medium, light, rays_o, rays_d, max_bounces=1)
    radiance = got.radiances.astype(np.float64)
    error = radiance.std(axis=0) / np.sqrt(n)
    # the quadrature's own error, from a coarser one
    coarse = twin.single_scattering(
        args, light, rays_o[0], rays_d[0], length, n=80, n_sphere=10, n_in=40
    )
    slack = np.abs(coarse - expected)
    assert (slack < 0.02 * expected).all()
    assert (error < 0.01 * expected).all()
    assert (np.abs(radiance.mean(axis=0) - expected) <= SIGMAS * error + slack).all()


@wp.kernel(module="unique", enable_backward=False)
def light_samples(
    begin: int,
    light: light_kernels.LightData,
    g: float,
    directions: wp.array[wp.vec3],
    skies: wp.array[wp.vec3],
    suns: wp.array[wp.vec3],
    scattered: wp.array[wp.vec3],
    phases: wp.array[float],  # between the direction and the scattered one
):
    i = begin + wp.tid()
    key = tracking.stream(0, wp.int64(0), i)
    skies[i] = light_kernels.sky(light, directions[i])
    suns[i] = light_kernels.sun_direction(light, tracking.draw(key, 0), tracking.draw(key, 1))
    scattered[i] = tracking.scattered_direction(
        g, directions[i], tracking.draw(key, 2), tracking.draw(key, 3)
    )
    phases[i] = tracking.phase(g, wp.dot(directions[i], scattered[i]))


@pytest.mark.parametrize(
    ("up", "diameter", "g"),
    [("y", 0.53, 0.0), ("z", 60.0, 0.8), ("x", 180.0, -0.3), ("y", 360.0, 1e-4)],
)
def test_light_and_phase_are_the_twins(up, diameter, g, device):
    light = Light(up=up, sun_azimuth=-70, sun_elevation=35, sun_diameter=diameter)
    directions = np.concatenate([twin.sphere(40)[0], np.eye(3), -np.eye(3)])
    n = len(directions)
    given = wp.array(directions.astype(np.float32), dtype=wp.vec3, device=device)
    out = [wp.zeros(n, dtype=wp.vec3, device=device) for _ in range(3)]
    phases = wp.zeros(n, dtype=float, device=device)
    launch.launch(light_samples, n, [light.data(), g, given, *out, phases], device)
    skies, suns, scattered = (a.numpy().astype(np.float64) for a in out)
    np.testing.assert_allclose(skies, twin.sky(light, directions), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(suns, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(scattered, axis=1), 1, atol=1e-6)
    # uniform in solid angle: chord^2 / 4 = (1 - cos) / 2 is uniform
    chord = np.sum((suns - light.sun_direction) ** 2, axis=1) / 4
    largest = np.sin(np.radians(diameter) / 4) ** 2
    assert chord.max() <= largest * (1 + 1e-4)
    check_means(chord / largest, 0.5)
    check_means((chord / largest) ** 2, 1 / 3)
    # the circle about the sun is gone round evenly
    across = suns - (suns @ light.sun_direction)[:, None] * light.sun_direction
    check_means(across, 0.0)
    cosines = np.sum(scattered * directions, axis=1)
    # a cosine near 1 is known to 2^-23, the phase function's slope is up to 3 g / (1 - g)^2
    np.testing.assert_allclose(phases.numpy(), twin.phase(g, cosines), rtol=1e-4)
    check_means(cosines, g)
    check_means(cosines**2, (1 + 2 * g * g) / 3)
    z = np.linspace(-1, 1, 20001)
    assert 4 * np.pi * twin.phase(g, z).mean() == pytest.approx(1, abs=3e-3)


def test_directions_of_the_sun():
    light = Light(up="z", sun_azimuth=90, sun_elevation=0)
    np.testing.assert_allclose(light.sun_direction, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(replace(light, sun_elevation=90).sun_direction, [0, 0, 1], atol=1e-9)
    assert replace(light, sun_diameter=360.0).sun_solid_angle == pytest.approx(4 * np.pi)
    # pi r^2 of the disc in radians
    assert light.sun_solid_angle == pytest.approx(np.pi * np.radians(0.265) ** 2, rel=1e-4)


def test_threads_and_passes_change_nothing(device):
    if device != "cpu":
        pytest.skip("threads are a CPU's")
    medium = Medium.from_values(sparse(20), density_scale=2.0, g=0.3)
    camera = orbit(30, 20, 1.5, width=21, height=17).moved(*medium.cube)
    pictures, n_threads = [], launch.num_threads()
    try:
        for threads, parts in ((1, [11]), (3, [11]), (1, [3, 1, 7])):
            launch.set_num_threads(threads)
            tracer = PathTracer(medium, Light(), camera, seed=5)
            for part in parts:
                tracer.add(part)
            pictures.append(tracer.picture())
    finally:
        launch.set_num_threads(n_threads)
    for other in pictures[1:]:
        assert other.spp == 11
        for name in ("color", "error", "opacity"):
            np.testing.assert_array_equal(getattr(other, name), getattr(pictures[0], name))
    other = render(medium, Light(), camera, 11, seed=6)
    assert (other.color != pictures[0].color).any()


def test_the_stated_error_is_the_spread_of_pictures(device):
    medium = Medium.from_values(sparse(20), density_scale=2.0, device=device)
    camera = orbit(30, 20, 1.2, width=12, height=12).moved(*medium.cube)
    made = [render(medium, Light(), camera, 32, seed=seed) for seed in range(24)]
    spread = np.array([p.color for p in made]).var(axis=0, ddof=1)
    stated = np.mean([p.error**2 for p in made], axis=0)
    # 144 pixels, 23 degrees of freedom each
    assert spread.mean() == pytest.approx(stated.mean(), rel=0.1)
    noise = np.mean([p.noise for p in made])
    assert noise == pytest.approx(np.sqrt(stated.mean()), rel=0.05)


def test_pictures_are_upright_and_lit_from_the_sun(device):
    # a column's upper end, right of the middle, is dense; the sun stands at the right
    values = np.zeros((20, 20, 20))
    values[12:17, 8:12, 13:18] = 1.0
    medium = Medium.from_values(values, density_scale=3.0, device=device)
    camera = orbit(0, 0, 2, up="z", width=40, height=40).moved(*medium.cube)
    light = Light(
        up="z",
        zenith=BLACK,
        horizon=BLACK,
        ground=BLACK,
        sun_azimuth=90,
        sun_elevation=0,
        sun_diameter=5.0,
        sun_radiance=(100.0, 100.0, 100.0),
    )
    picture = render(medium, light, camera, 64, sky=False)
    rows, columns = np.nonzero(picture.opacity > 0.5)
    assert rows.max() < 20
    assert columns.min() > 19
    left, right = np.split(
        picture.color[..., 0][:, columns.min() : columns.max() + 1], [np.ptp(columns) // 2], axis=1
    )
    assert right.sum() > 2 * left.sum()
    assert (picture.color[picture.opacity == 0] == 0).all()
    # what is behind an empty medium: the sky in the pixels' directions
    empty = Medium.from_values(np.zeros((4, 4, 4)), density_scale=1.0, device=device)
    camera = orbit(20, 10, 2, up="z", width=9, height=70).moved(*empty.cube)
    x, y = np.meshgrid(np.arange(9) + 0.5, np.arange(70) + 0.5)
    light = Light(up="z")
    expected = twin.sky(light, camera.rays(x.ravel(), y.ravel())[1]).reshape(70, 9, 3)
    picture = render(empty, light, camera, 64)
    # the sky changes by up to 0.02 within a pixel of half a degree, of which 64 samples are taken
    np.testing.assert_allclose(picture.color, expected, atol=0.01)
    assert (picture.opacity == 0).all()


def test_paths_that_are_cut_are_counted(device):
    medium = Medium.from_values(np.ones((8, 8, 8)), density_scale=50.0, albedo=1.0, device=device)
    camera = orbit(0, 0, 1.2, width=6, height=6).moved(*medium.cube)
    assert render(medium, UNIFORM, camera, 8, max_bounces=4).cut > 0.3
    assert render(replace(medium, albedo=0.5), UNIFORM, camera, 8).cut == 0
