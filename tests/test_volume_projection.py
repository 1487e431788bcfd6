"""Projections of volumes: against the float64 twin, and what must hold of any."""

import math
from dataclasses import replace

import numpy as np
import pytest

from ngp_warp.errors import ConfigError, DataError, ShapeError
from ngp_warp.primitives.pictures import linear_to_srgb, srgb_to_linear
from ngp_warp.primitives.tiles import pixel_offsets
from ngp_warp.primitives.volume.grid import world_cube
from ngp_warp.primitives.volume.medium import Medium
from ngp_warp.primitives.volume.projection import project
from ngp_warp.primitives.volume.transfer_function import N_ENTRIES, TransferFunction
from ngp_warp.rays.cameras import Camera, orbit
from tests.reference import volume_projection as twin
from tests.volume_light_case import SHEARED, smooth

FIRST = (5, -3, 2)
COLORS = TransferFunction(
    ((0.1, 0.9, 0.2, 0.1, 0.0), (0.6, 0.2, 0.9, 0.4, 0.1), (0.9, 0.9, 0.9, 1.0, 0.6))
)
ALBEDO = np.array([0.84, 0.74, 0.62])
KINDS = [
    {"kind": "mip"},
    {"kind": "surface", "level": 0.65},
    {"kind": "transfer", "transfer": COLORS},
]


def camera_at(values, to_world, first=(0, 0, 0), size=24, view=(35, 25, 1.9)):
    camera = orbit(*view, width=size + 3, height=size)
    return camera.moved(*world_cube(values.shape, to_world, first))


def lattice(shape, to_world, first=(0, 0, 0)):
    """World points [x, y, z, 3] of the values."""
    index = np.moveaxis(np.indices(shape), 0, -1) + np.array(first)
    return index @ to_world[:3, :3].T + to_world[:3, 3]


def blobs(points):
    """A smooth function of world points, 0 to about 1.2."""
    centres = np.array([[8.0, 9, 10], [15, 12, 9], [11, 16, 14]])
    squares = np.sum((points[..., None, :] - centres) ** 2, axis=-1)
    return np.exp(-squares / (2 * np.array([3.5, 3.0, 4.0]) ** 2)).sum(axis=-1)


def along(axis, shape, distance=1e5):
    """A camera so far away that its rays are parallel, each through a column of middles."""
    right, up = ((1, 2), (0, 2), (0, 1))[axis]
    middle = (np.array(shape) - 1) / 2
    place = middle.copy()
    place[axis] += distance
    pixels = shape[up]
    return Camera(
        position=tuple(place.tolist()), look_at=tuple(middle.tolist()),
        up=tuple(np.eye(3)[up].tolist()), width=shape[right], height=pixels,
        fov=math.degrees(2 * math.atan(pixels / (2 * distance))),
    )  # fmt: skip


def as_seen(plane, axis):
    """Values by the two axes that are left, in their order, as ``along`` sees them."""
    # from above an axis, the others are right-handed but for y
    flipped = plane if axis != 1 else plane[::-1]
    return flipped.T[::-1]


def unblended(projection, background=(1, 1, 1)):
    """Premultiplied linear RGB of a picture over a background."""
    share = 1 - projection.opacity[..., None]
    return srgb_to_linear(projection.color) - share * srgb_to_linear(np.array(background))


@pytest.mark.parametrize("axis", range(3))
def test_a_mip_along_an_axis_is_the_largest_of_each_column(axis, device):
    values = smooth((9, 7, 8))
    got = project(values, None, (0, 0, 0), along(axis, values.shape), kind="mip", spp=1,
                  device=device)  # fmt: skip
    expected = as_seen(values.max(axis=axis), axis)
    # rays miss the middles by 4 voxels times 1e-4 of perspective, at slopes of up to 0.8 a voxel
    np.testing.assert_allclose(got.value, expected, atol=1e-3)
    assert (got.opacity == 1).all()
    low, high = values.min(), values.max()
    np.testing.assert_allclose(got.color[..., 1], (got.value - low) / (high - low), atol=1e-6)


def test_a_mip_is_as_the_twin_says(device):
    values, spp = smooth((12, 9, 7)), 3
    camera = camera_at(values, SHEARED, FIRST)
    got = project(values, SHEARED, FIRST, camera, kind="mip", spp=spp, device=device)
    rays = [twin.Rays(values.shape, SHEARED, FIRST, camera, o, 0.5) for o in pixel_offsets(spp)]
    each = np.array([twin.maximum(values, r) for r in rays]).reshape(spp, *got.value.shape)
    hits = np.isfinite(each).sum(axis=0)
    expected = np.where(hits > 0, np.nansum(each, axis=0) / np.maximum(hits, 1), np.nan)
    # where a ray grazes the box, float32 may see it miss
    same = np.abs(got.opacity - hits / spp) < 1e-6
    assert same.mean() > 0.99
    # float32 positions of 20 voxels, slopes of up to 0.8 a voxel and axis
    np.testing.assert_allclose(got.value[same], expected[same], atol=2e-5)
    assert np.isnan(got.value[0, 0])
    assert (got.color[0, 0] == 0).all()
    rolled = np.roll(values, 1, axis=0)
    other = project(rolled, SHEARED, FIRST, camera, kind="mip", spp=spp, device=device)
    assert np.nanmax(np.abs(other.value - expected)) > 0.1


@pytest.mark.parametrize("below", [False, True])
def test_a_surface_is_as_the_twin_says(below, device):
    values = blobs(lattice((24, 26, 22), np.eye(4)))
    values = -values if below else values
    level, sign = (-0.4, -1) if below else (0.4, 1)
    camera = camera_at(values, SHEARED, FIRST, size=40, view=(35, 25, 1.2))
    got = project(values, SHEARED, FIRST, camera, kind="surface", level=level, below=below, spp=1,
                  device=device)  # fmt: skip
    rays = twin.Rays(values.shape, SHEARED, FIRST, camera, pixel_offsets(1)[0], 0.5)
    t, _, normals = twin.surface(values, rays, level, sign, 9)
    depth = ((rays.near + t) * rays.scale).reshape(got.depth.shape)
    # a ray that only touches may miss in float32
    same = np.isnan(depth) == np.isnan(got.depth)
    assert same.mean() > 0.999
    hit = same & np.isfinite(depth)
    assert 0.05 < hit.mean() < 0.6
    # a halving may fall otherwise: the last interval is a 1024th of a voxel, of up to 1.3
    np.testing.assert_allclose(got.depth[hit], depth[hit], atol=1.3 / 512)
    world = normals @ camera.camera_to_world()[:3, :3].T
    np.testing.assert_allclose(got.normal[hit], world.reshape(*hit.shape, 3)[hit], atol=2e-3)
    color = twin.surface_color(values, rays, ALBEDO, level, sign, 9).reshape(*hit.shape, 3)
    np.testing.assert_allclose(got.color[hit], linear_to_srgb(color)[hit], atol=5e-3)
    # white through the curve, in float32
    np.testing.assert_allclose(got.color[same & ~hit], 1, atol=1e-6)
    assert (got.opacity[hit] == 1).all()


@pytest.mark.parametrize("shaded", [False, True])
def test_a_transfer_function_is_applied_as_the_twin_says(shaded, device):
    values, spp = smooth((12, 9, 7)), 2
    camera = camera_at(values, SHEARED, FIRST)
    got = project(values, SHEARED, FIRST, camera, kind="transfer", transfer=COLORS, shaded=shaded,
                  spp=spp, device=device)  # fmt: skip
    edge = 0.06 * 0.8 if shaded else 0
    light, opacity = np.zeros((1, 3)), np.zeros(1)
    for sample, offset in enumerate(pixel_offsets(spp)):
        rays = twin.Rays(values.shape, SHEARED, FIRST, camera, offset, 0.5)
        c, a = twin.transfer(
            values, rays, (sample + 0.5) / spp, COLORS.table().astype(float), 0.1, 0.9, edge
        )
        light, opacity = light + c / spp, opacity + a / spp
    shape = got.opacity.shape
    # sums of tens of steps in float32, of tables of slopes of up to 3 a unit
    np.testing.assert_allclose(got.opacity, opacity.reshape(shape), atol=1e-4)
    np.testing.assert_allclose(unblended(got), light.reshape(*shape, 3), atol=2e-4)
    assert got.opacity.max() > 0.5


def test_what_is_transparent_shows_the_background_and_what_is_opaque_its_first_value(device):
    values = np.broadcast_to(np.linspace(0.1, 0.9, 8), (6, 6, 8)).copy()
    camera = along(2, values.shape)
    clear = replace(COLORS, points=tuple((*p[:4], 0.0) for p in COLORS.points))
    options = {"kind": "transfer", "shaded": False, "device": device}
    background = (0.2, 0.5, 0.7)
    got = project(values, None, (0, 0, 0), camera, transfer=clear, background=background, **options)
    np.testing.assert_allclose(got.color, np.broadcast_to(background, got.color.shape), atol=1e-6)
    assert (got.opacity == 0).all()
    opaque = replace(COLORS, points=tuple((*p[:4], 1.0) for p in COLORS.points))
    got = project(values, None, (0, 0, 0), camera, transfer=opaque, background=background,
                  **options)  # fmt: skip
    # the camera is above z, where the values are highest
    expected = np.broadcast_to(COLORS.at(np.array(0.9))[:3], got.color.shape)
    np.testing.assert_allclose(got.color, expected, atol=1e-3)
    np.testing.assert_allclose(got.opacity, 1, atol=1e-3)


@pytest.mark.parametrize("step", [0.2, 0.5, 0.73, 5.0])
def test_the_opacity_of_a_constant_follows_from_its_length(step, device):
    values = np.full((5, 4, 11), 0.6)
    camera = along(2, values.shape)
    got = project(values, None, (0, 0, 0), camera, kind="transfer", transfer=COLORS, step=step,
                  device=device)  # fmt: skip
    # a point of the function lies between two of its table's entries
    slack = 11 * 0.5 / N_ENTRIES
    np.testing.assert_allclose(got.opacity, 1 - 0.9**11, atol=slack)
    # at a slant: longer, by the pixel's own length in the box
    camera = camera_at(values, np.eye(4))
    got = project(values, None, (0, 0, 0), camera, kind="transfer", transfer=COLORS, step=step,
                  spp=1, device=device)  # fmt: skip
    rays = twin.Rays(values.shape, np.eye(4), (0, 0, 0), camera, (0.5, 0.5), step)
    length = np.where(rays.hit, rays.n * rays.step, 0).reshape(got.opacity.shape)
    np.testing.assert_allclose(got.opacity, 1 - 0.9**length, atol=slack)


def test_pictures_hardly_depend_on_the_step(device):
    values = blobs(lattice((24, 26, 22), np.eye(4)))
    camera = camera_at(values, np.eye(4))
    for options in KINDS:
        coarse, fine = (
            project(values, None, (0, 0, 0), camera, step=step, device=device, **options).color
            for step in (0.5, 0.05)
        )
        # of display values; a MIP falls short by the curvature times a 32nd, a silhouette by less
        assert np.abs(coarse - fine).max() < 0.02, options
        coarsest = project(values, None, (0, 0, 0), camera, step=9, device=device, **options).color
        assert np.abs(coarsest - fine).max() > 0.05, options


def test_a_sphere_has_the_depths_and_normals_of_a_sphere(device):
    matrix = np.array([[0.5, 0, 0, 2], [0, 0, 0.8, -3], [0, 0.6, 0, 1], [0, 0, 0, 1]])
    shape, radius = (60, 50, 38), 12.0
    points = lattice(shape, matrix, FIRST)
    centre = points.reshape(-1, 3).mean(axis=0)
    values = np.linalg.norm(points - centre, axis=-1) - radius
    camera = camera_at(values, matrix, FIRST, size=48)
    got = project(values, matrix, FIRST, camera, kind="surface", below=True, spp=1, device=device)
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    origins, directions = (r.astype(float) for r in camera.rays(x.ravel(), y.ravel()))
    to_centre = centre - origins
    nearest = np.sum(to_centre * directions, axis=1)
    half = radius**2 - (np.sum(to_centre**2, axis=1) - nearest**2)
    depth = nearest - np.sqrt(np.maximum(half, 0))
    normal = (origins + depth[:, None] * directions - centre) / radius
    cosine = -np.sum(normal * directions, axis=1)
    hit = ((half > 0) & (cosine > 0.3)).reshape(got.depth.shape)
    assert (got.opacity[hit] == 1).all()
    assert (got.opacity[(half < -4).reshape(hit.shape)] == 0).all()
    # a cell's diagonal of 1.1 bulges a sphere of 12 by 1.1^2 / 8 / 12 along the normal
    slack = (0.013 + 0.001) / 0.3
    np.testing.assert_allclose(got.depth[hit], depth.reshape(hit.shape)[hit], atol=slack)
    np.testing.assert_allclose(got.normal[hit], normal.reshape(*hit.shape, 3)[hit], atol=0.02)


def test_a_transform_moves_the_picture_and_not_the_light(device):
    """One function of the world, sampled in two ways, the second mirrored and in other voxels."""
    plain = np.eye(4)
    other = np.array([[-0.8, 0, 0, 24], [0, 0, 0.5, 0], [0, 0.6, 0, 0], [0, 0, 0, 1]])
    assert np.linalg.det(other[:3, :3]) > 0
    mirrored = other @ np.diag([1, 1, -1, 1])
    mirrored[1, 3] = 24
    camera = orbit(35, 25, 1.9, width=40, height=40).moved(24, (0.0, 0.0, 0.0))
    pictures = []
    for matrix, shape in ((plain, (25, 25, 25)), (other, (31, 41, 49)), (mirrored, (31, 41, 49))):
        values = blobs(lattice(shape, matrix))
        pictures.append(
            [
                project(values, matrix, (0, 0, 0), camera, device=device, **options)
                for options in (
                    {"kind": "mip", "window": (0, 1.3)},
                    {"kind": "surface", "level": 0.5},
                )
            ]
        )
    for mip, surface in pictures[1:]:
        first_mip, first_surface = pictures[0]
        core = first_mip.value > 0.3
        # interpolation lowers a blob of 3 voxels by a hundredth; two boxes differ by half a voxel
        assert np.abs(mip.value - first_mip.value)[core].max() < 0.03
        both = (surface.opacity == 1) & (first_surface.opacity == 1)
        assert both.mean() > 0.1
        assert ((surface.opacity > 0) == (first_surface.opacity > 0)).mean() > 0.98
        assert np.abs(surface.depth - first_surface.depth)[both].mean() < 0.1
        assert np.sum(surface.normal * first_surface.normal, axis=2)[both].mean() > 0.995
        assert np.abs(surface.color - first_surface.color)[both].mean() < 0.03


@pytest.mark.parametrize("options", KINDS, ids=lambda o: o["kind"])
def test_a_mirrored_array_with_its_transform_is_the_same_picture(options, device):
    values = blobs(lattice((24, 26, 22), np.eye(4)))
    camera = camera_at(values, SHEARED)
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = values.shape[0] - 1
    got = project(values, SHEARED, (0, 0, 0), camera, device=device, **options)
    same = project(values[::-1], SHEARED @ mirror, (0, 0, 0), camera, device=device, **options)
    assert np.abs(got.color - same.color).mean() < 1e-4
    assert np.quantile(np.abs(got.color - same.color), 0.99) < 5e-3
    moved = np.eye(4)
    moved[:3, 3] = [-7, 100, 3]
    same = project(values, SHEARED @ moved, (7, -100, -3), camera, device=device, **options)
    assert np.abs(got.color - same.color).mean() < 1e-4
    wrong = project(values[::-1], SHEARED, (0, 0, 0), camera, device=device, **options)
    assert np.abs(got.color - wrong.color).mean() > 3e-3


def test_where_the_box_cuts_the_inside_its_face_is_seen(device):
    values = np.ones((6, 1, 5), np.float32)
    camera = along(2, values.shape)
    got = project(values, None, (0, 0, 0), camera, kind="surface", level=0.5, device=device)
    assert (got.opacity == 1).all()
    # the distance of 1e5 in float32
    np.testing.assert_allclose(got.depth, 1e5 - 2.5, atol=0.02)
    np.testing.assert_allclose(got.normal, np.broadcast_to([0.0, 0, 1], (1, 6, 3)), atol=1e-4)
    inside = Camera(position=(2.0, 0.0, 2.0), width=4, height=4)
    got = project(values, None, (0, 0, 0), inside, kind="surface", level=0.5, device=device)
    assert (got.depth == 0).all()
    assert np.isfinite(got.color).all()


def test_vectors_show_their_lengths(device):
    vectors = np.random.default_rng(0).normal(size=(6, 7, 8, 3))
    camera = camera_at(vectors, np.eye(4))
    lengths = np.linalg.norm(vectors, axis=3)
    for options in KINDS:
        got, expected = (
            project(v, None, (0, 0, 0), camera, device=device, **options)
            for v in (vectors, lengths)
        )
        np.testing.assert_array_equal(got.color, expected.color)
    one = project(lengths[..., None], None, (0, 0, 0), camera, kind="mip", device=device)
    np.testing.assert_array_equal(
        one.value, project(lengths, None, (0, 0, 0), camera, kind="mip", device=device).value
    )


def test_without_a_background_colors_are_those_of_what_is_there(device):
    values = blobs(lattice((24, 26, 22), np.eye(4)))
    camera = camera_at(values, np.eye(4))
    for options in KINDS[1:]:
        alone, over = (
            project(values, None, (0, 0, 0), camera, background=b, device=device, **options)
            for b in (None, (0.3, 0.6, 0.1))
        )
        share = alone.opacity[..., None]
        light = share * srgb_to_linear(alone.color)
        light += (1 - share) * srgb_to_linear(np.array([0.3, 0.6, 0.1]))
        # colours of what is hardly there are quotients of two small numbers
        np.testing.assert_allclose(linear_to_srgb(light), over.color, atol=2e-3)
        assert (alone.color[share[..., 0] == 0] == 0).all()


def test_defaults_and_progress(device):
    values = blobs(lattice((24, 26, 22), np.eye(4)))
    camera = camera_at(values, np.eye(4), size=8)
    reports = []
    got = project(values, None, (0, 0, 0), camera, kind="surface", spp=3, device=device,
                  progress=reports.append)  # fmt: skip
    assert [(r.step, r.total) for r in reports] == [(1, 3), (2, 3), (3, 3)]
    middle = float(values.min() + values.max()) / 2
    same = project(values, None, (0, 0, 0), camera, kind="surface", spp=3, level=middle,
                   device=device)  # fmt: skip
    # the range is that of float32
    np.testing.assert_allclose(got.color, same.color, atol=1e-4)
    assert (
        project(values, None, (0, 0, 0), camera, kind="transfer", device=device).opacity.max() > 0
    )
    nothing = np.zeros((3, 3, 3))
    for kind in ("mip", "surface", "transfer"):
        got = project(nothing, None, (0, 0, 0), camera, kind=kind, device=device)
        assert np.isfinite(got.color).all()


def test_cubes_are_those_of_media(device):
    values = smooth()
    medium = Medium.from_values(values, SHEARED, FIRST, device=device)
    np.testing.assert_allclose(
        np.hstack(medium.cube), np.hstack(world_cube(values.shape, SHEARED, FIRST)), rtol=1e-12
    )


def test_bad_settings_are_refused(device):
    ones = np.ones((3, 3, 3))
    camera = Camera(position=(0.0, 0.0, 9.0), width=4, height=4)

    def picture(values=ones, to_world=None, **options):
        return project(
            values, to_world, (0, 0, 0), camera, **{"kind": "mip", "device": device, **options}
        )

    cases = [
        (ConfigError, "kind", {"kind": "x-ray"}),
        (ConfigError, "spp", {"spp": 0}),
        (ConfigError, "step", {"step": 0.0}),
        (ConfigError, "level", {"kind": "surface", "level": math.nan}),
        (ConfigError, "window", {"window": (1.0, 1.0)}),
        (ConfigError, "background", {"background": (0.0, 0.0, 1.1)}),
        (ShapeError, "values must have shape", {"values": np.ones((3, 3))}),
        (ShapeError, "to_world", {"to_world": np.eye(3)}),
        (DataError, "singular", {"to_world": np.diag([1.0, 0, 1, 1])}),
        (DataError, "finite", {"values": np.full((3, 3, 3), np.inf)}),
        (DataError, "at least one", {"values": np.ones((3, 0, 3))}),
    ]
    for error, message, options in cases:
        with pytest.raises(error, match=message):
            picture(**options)
