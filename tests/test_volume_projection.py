"""Projections of volumes: against the float64 twin, options, and what is refused."""

import math

import numpy as np
import pytest

from ngp_warp.errors import ConfigError, DataError, ShapeError
from ngp_warp.primitives.pictures import linear_to_srgb, srgb_to_linear
from ngp_warp.primitives.tiles import pixel_offsets
from ngp_warp.primitives.volume.grid import world_cube
from ngp_warp.primitives.volume.medium import Medium
from ngp_warp.primitives.volume.projection import project
from ngp_warp.rays.cameras import Camera
from tests.reference import volume_projection as twin
from tests.volume_light_case import SHEARED, smooth
from tests.volume_projection_case import (
    ALBEDO,
    COLORS,
    FIRST,
    KINDS,
    along,
    as_seen,
    blobs,
    camera_at,
    lattice,
    unblended,
)


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
