"""What must hold of any projection of a volume."""

from dataclasses import replace

import numpy as np
import pytest

from ngp_warp.primitives.volume.projection import project
from ngp_warp.primitives.volume.transfer_function import N_ENTRIES
from ngp_warp.rays.cameras import Camera, orbit
from tests.reference import volume_projection as twin
from tests.volume_light_case import SHEARED
from tests.volume_projection_case import COLORS, FIRST, KINDS, along, blobs, camera_at, lattice


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
