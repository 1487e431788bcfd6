"""Pictures of a sphere: silhouette, depth, normals, shadow, smooth edges, any threads."""

import numpy as np
import pytest

from ngp_warp import launch
from ngp_warp.errors import ConfigError, ResourceError, ShapeError
from ngp_warp.primitives.sdf import render, shading
from ngp_warp.primitives.sdf.floor import find_floor
from ngp_warp.primitives.sdf.render import Renderer, render_image, smooth_normals
from ngp_warp.primitives.tiles import contrasted, pixel_offsets, tiles
from ngp_warp.rays.cameras import Camera, orbit
from ngp_warp.rays.sphere_trace import SphereTracer
from tests.sdf_fields import interpolation_error, sampled, sphere

RADIUS = 0.3
ERROR = interpolation_error(RADIUS)


@pytest.fixture
def renderer(device):
    return Renderer(sampled(sphere(RADIUS), device))


def camera(size=64, azimuth=25.0, elevation=15.0, **more):
    return orbit(azimuth, elevation, 2.0, width=size, height=size, **more)


def exact_depth(view):
    """Distance along the optical axis to the sphere and the ray's nearest approach, [h, w]."""
    rows, columns = np.indices((view.height, view.width)) + 0.5
    o, d = (r.astype(np.float64) for r in view.rays(columns.ravel(), rows.ravel()))
    o = o - 0.5
    b = np.sum(o * d, axis=1)
    nearest = np.sqrt(np.sum(o * o, axis=1) - b * b)
    t = -b - np.sqrt(np.maximum(RADIUS**2 - nearest**2, 0))
    z = t * (d @ -view.camera_to_world()[:3, 2])
    return z.reshape(rows.shape), nearest.reshape(rows.shape)


def test_silhouette_and_depth_are_the_spheres(renderer):
    view = camera(150)
    depth = renderer.depth(view)
    wanted, nearest = exact_depth(view)
    hit = np.isfinite(depth)
    assert np.all(hit[nearest < RADIUS - ERROR])
    assert not np.any(hit[nearest > RADIUS + ERROR])
    # of a sphere in the picture's middle: a disc, of the cone that touches the sphere
    radius = np.tan(np.arcsin(RADIUS / 2)) / view.pixel_size
    assert hit.sum() == pytest.approx(np.pi * radius**2, rel=0.01)
    steep = nearest < 0.9 * RADIUS
    assert np.abs(depth - wanted)[steep].max() < 2.5 * ERROR + 3e-5
    assert np.abs(depth[:, ::-1] - wanted)[steep & steep[:, ::-1]].max() < 1e-2
    assert np.abs(depth[::2] - wanted[1::2])[steep[1::2] & steep[::2]].max() > 10 * ERROR


def test_normals_point_outward(renderer):
    view = camera(80)
    normals, depth = renderer.normals(view), renderer.depth(view)
    hit = np.isfinite(depth)
    assert np.all(normals[~hit] == 0)
    assert np.allclose(np.linalg.norm(normals[hit], axis=1), 1, atol=1e-5)
    rows, columns = np.nonzero(hit)
    rays_o, rays_d = view.rays(columns + 0.5, rows + 0.5)
    trace = renderer.tracer.trace(rays_o, rays_d)
    points = rays_o + trace.t[:, None] * rays_d
    radial = (points - 0.5) / np.linalg.norm(points - 0.5, axis=1, keepdims=True)
    # slopes of the interpolated distance are off by h / (2 r) at most
    assert np.sum(radial * normals[hit], axis=1).min() > 1 - 0.5 * (1 / 63 / RADIUS) ** 2
    # towards the viewer, but for grazing ones within that error
    assert np.sum(rays_d * normals[hit], axis=1).max() < 0.06


def test_a_gradients_mean_is_smoother_than_the_gradient(device):
    """Random bumps of a thousandth of a cell's size tilt a wide mean less than a narrow one."""
    rng = np.random.default_rng(0)
    bumps = rng.normal(0, 2e-4, 64**3)
    field = sampled(lambda p: p[:, 1] - 0.5 + bumps, device)
    points = rng.uniform(0.2, 0.8, (500, 3)).astype(np.float32)
    tilt = [
        np.degrees(np.arccos(np.clip(smooth_normals(field, points, np.full(500, w))[:, 1], -1, 1)))
        for w in (1e-3, 3e-2)
    ]
    assert tilt[1].mean() < 0.6 * tilt[0].mean()
    assert tilt[0].mean() > 0.1


def test_the_floor_lies_below_the_sphere(device):
    tracer = SphereTracer(sampled(sphere(0.2, (0.4, 0.5, 0.6)), device))
    for axis, middle in enumerate((0.4, 0.5, 0.6)):
        floor = find_floor(tracer, np.eye(3)[axis])
        assert floor is not None
        assert middle - 0.2 - 2e-3 < floor.height < middle - 0.2
        others = [i for i in range(3) if i != axis]
        assert np.allclose(floor.middle[others], np.array([0.4, 0.5, 0.6])[others], atol=5e-3)
    assert find_floor(SphereTracer(sampled(lambda p: p[:, 0] + 1, device)), np.eye(3)[1]) is None


def floor_pixels(renderer, view):
    """Return rows, columns and points of the pixels that show the floor."""
    rows, columns = (i.ravel() for i in np.indices((view.height, view.width)))
    rays_o, rays_d = view.rays(columns + 0.5, rows + 0.5)
    t = renderer.floor.meet(renderer.up, rays_o, rays_d)
    free = np.isfinite(t) & ~renderer.tracer.trace(rays_o, rays_d).hit
    return rows[free], columns[free], rays_o[free] + t[free, None] * rays_d[free]


def test_the_shadow_lies_where_the_sphere_hides_the_light(renderer):
    view = orbit(0, 35, 2.2, width=120, height=120)
    picture = renderer.image(view, spp=1).astype(float).mean(axis=2)
    rows, columns, points = floor_pixels(renderer, view)
    light = shading.Studio.of(view, renderer.up).key
    offset = 0.5 - points
    along = offset @ light
    miss = np.linalg.norm(offset - along[:, None] * light, axis=1) - RADIUS
    near = np.linalg.norm(points - renderer.floor.middle, axis=1) < 0.75
    shadow, open_ = near & (miss < -0.02), near & (miss > 0.25)
    assert min(shadow.sum(), open_.sum()) > 50
    value = picture[rows, columns]
    assert value[shadow].max() < value[open_].min() - 30
    # soft: a band about the rim has values between
    rim = near & (np.abs(miss - 0.04) < 0.03)
    between = (value > value[shadow].max() + 5) & (value < value[open_].min() - 5)
    assert between[rim].mean() > 0.3
    # and on the side of the sphere that is away from the light
    assert ((points[shadow] - renderer.floor.middle) @ light).mean() < -0.05


def test_without_a_floor_there_is_no_shadow(device):
    field = sampled(sphere(RADIUS), device)
    view = orbit(0, 35, 2.2, width=60, height=60)
    bare = render_image(field, view, spp=1, floor=False)
    hit = np.isfinite(Renderer(field).depth(view))
    # below the horizon all is the background's one colour
    assert len(np.unique(bare[~hit], axis=0)) == 1
    assert len(np.unique(render_image(field, view, spp=1)[~hit], axis=0)) > 50


def test_the_ground_is_darker_below_the_sphere(renderer):
    """Ambient occlusion alone: the contact point is hidden from most of the sky."""
    floor = renderer.floor
    up = np.array([[0, 1, 0]], np.float32)
    contact = floor.middle * [1, 0, 1] + [0, floor.height, 0]
    away = contact + np.array([0.4, 0, 0])
    openness = renderer._openness(np.stack([contact, away]).astype(np.float32), np.repeat(up, 2, 0))
    assert openness[0] < 0.4
    assert openness[1] > 0.9


def test_more_samples_make_edges_smoother(renderer):
    view = camera(40)
    _, nearest = exact_depth(view)
    truth = renderer.image(camera(320), spp=1).astype(float)
    truth = truth.reshape(40, 8, 40, 8, 3).mean(axis=(1, 3))
    edge = np.abs(nearest - RADIUS) < 0.03
    errors = [
        np.sqrt(np.mean((renderer.image(view, spp=spp)[edge] - truth[edge]) ** 2))
        for spp in (1, 4, 16)
    ]
    assert errors[1] < 0.7 * errors[0]
    assert errors[2] < 0.8 * errors[1]


def test_smooth_pixels_get_one_sample(renderer):
    view = camera(64)
    one, many = renderer.image(view, spp=1), renderer.image(view, spp=8)
    even = ~contrasted(one)
    assert np.array_equal(one[even], many[even])
    assert not np.array_equal(one, many)
    assert even.mean() > 0.5


@pytest.mark.parametrize("n_threads", [1, 3])
def test_pictures_do_not_depend_on_threads(device, n_threads):
    def picture():
        return render_image(sampled(sphere(RADIUS), device), camera(48), spp=2)

    before = launch.num_threads()
    wanted = picture()
    try:
        launch.set_num_threads(n_threads)
        got = picture()
    finally:
        launch.set_num_threads(before)
    assert np.array_equal(got, wanted)


def test_a_field_without_a_surface_is_background(device):
    field = sampled(lambda p: 1 + p[:, 0], device, 16)
    picture = render_image(field, camera(32), spp=2)
    studio = shading.Studio.of(camera(32), np.eye(3)[1])
    rows, columns = (i.ravel() for i in np.indices((32, 32)))
    wanted = shading.background(studio, camera(32).rays(columns + 0.5, rows + 0.5)[1])
    assert np.abs(picture.reshape(-1, 3) - shading.to_srgb(wanted).astype(int)).max() <= 1


@pytest.mark.parametrize("up", ["x", "y", "z"])
def test_a_sphere_looks_the_same_along_every_axis(device, up):
    field = sampled(sphere(RADIUS), device)
    view = orbit(0, 20, 2, up=up, width=48, height=48)
    wanted = render_image(field, camera(48, 0, 20), spp=1).astype(int)
    got = render_image(field, view, spp=1, up=up).astype(int)
    # the grid has the cube's symmetry, up to float32; a pixel of the rim may fall on the other side
    assert np.mean(np.abs(got - wanted).max(axis=2) > 2) < 0.01


def test_progress_counts_up_to_its_total(renderer):
    seen = []
    renderer.image(camera(100), spp=4, progress=seen.append)
    assert [p.step for p in seen] == list(range(1, seen[0].total + 1))


@pytest.mark.parametrize("size", [(1, 1), (7, 130), (130, 7), (65, 64)])
@pytest.mark.parametrize("samples", [1, 3, 5000])
def test_tiles_hold_every_pixel_once(size, samples):
    view = Camera(position=(0, 0, 5), width=size[0], height=size[1])
    count = np.zeros((size[1], size[0]), int)
    for tile in tiles(view, samples):
        np.add.at(count, tile.select(None), 1)
    assert np.all(count == 1)


@pytest.mark.parametrize("spp", [1, 2, 3, 4, 16, 100])
def test_samples_are_spread_about_the_middle(spp):
    offsets = pixel_offsets(spp)
    assert offsets.shape == (spp, 2)
    assert np.allclose(offsets.mean(axis=0), 0.5)
    assert np.abs(offsets - 0.5).max() < 0.8
    gaps = np.linalg.norm(offsets[:, None] - offsets, axis=2) + 9 * np.eye(spp)
    assert gaps.min() > 0.1 / np.sqrt(spp)


def test_colours_rise_with_light_and_stay_in_range():
    light = np.linspace(0, 50, 10_000, dtype=np.float32)
    values = shading.to_srgb(light)
    assert np.all(np.diff(values.astype(int)) >= 0)
    assert (values[0], values[-1]) == (0, 255)
    # 18% grey of sRGB
    assert shading.to_srgb(np.float32([0.18]))[0] == 118


@pytest.mark.parametrize("spp", [0, -1, render.MAX_SPP + 1])
def test_wrong_numbers_of_samples_are_refused(renderer, spp):
    with pytest.raises(ConfigError, match="spp must be"):
        renderer.image(camera(8), spp=spp)


def test_a_picture_larger_than_memory_is_refused(renderer):
    with pytest.raises(ResourceError, match="smaller size"):
        renderer.image(orbit(0, 0, 2, width=2**20, height=2**20))


def test_other_fields_and_axes_are_refused(device):
    from tests.test_field import make

    with pytest.raises(ShapeError):
        Renderer(make(device))
    with pytest.raises(ConfigError, match="up axis"):
        Renderer(sampled(sphere(), device, 8), up="w")  # type: ignore[arg-type]
