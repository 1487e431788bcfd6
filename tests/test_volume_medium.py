"""Media: their densities, majorants, empty blocks and settings; a field of another kind."""

from dataclasses import replace

import numpy as np
import pytest
import warp as wp

from ngp_warp.errors import ConfigError, DataError, ShapeError
from ngp_warp.primitives.volume.data import load_volume
from ngp_warp.primitives.volume.kernels.fields import FieldKind
from ngp_warp.primitives.volume.light import Light
from ngp_warp.primitives.volume.majorants import block_majorants, empty_reaches, padded
from ngp_warp.primitives.volume.medium import Medium
from ngp_warp.primitives.volume.path_tracer import PathTracer, render
from ngp_warp.primitives.volume.transport import collisions, transmittances
from ngp_warp.rays.cameras import Camera, orbit
from tests.reference import volume_light as twin
from tests.volume_light_case import SHEARED, SIGMAS, UNIFORM, inward_rays, smooth, sparse


@pytest.mark.parametrize("block", [1, 4, 8])
def test_majorants_bound_the_interpolated_field(block, device):
    values = sparse()
    medium = Medium.from_values(values, SHEARED, block=block, device=device)
    majorants = medium.majorants
    rng = np.random.default_rng(1)
    upper = np.array(majorants.shape) * block
    points = rng.uniform(0, upper, (100000, 3))
    # values themselves, which a block shares with its neighbours, and their maxima
    points[:20000] = np.rint(points[:20000])
    points[0] = np.add(np.unravel_index(values.argmax(), values.shape), 1)
    densities = medium.densities(medium.world_points(points))
    expected = twin.density(values, points - 1)
    # float32 positions of up to 40 voxels, times slopes of up to 5 a voxel
    np.testing.assert_allclose(densities, expected, atol=5 * 40 * 2**-22)
    # where world coordinates round, points may leave their block: inside it by a thousandth
    cell = np.minimum((points / block).astype(int), np.array(majorants.shape) - 1)
    inside = np.abs(points / block - np.rint(points / block)).min(axis=1) > 1e-3
    inside[0] = True
    bound = majorants[tuple(cell.T)]
    assert (densities[inside] <= bound[inside]).all()
    assert densities.max() == pytest.approx(values.max())
    assert (majorants == 0).mean() > 0.3


def test_majorants_are_the_largest_corners():
    values = padded(sparse(13), 4)
    assert values.shape == (17, 17, 17)
    got = block_majorants(values, 4)
    for i, j, k in np.ndindex(got.shape):
        corners = values[4 * i : 4 * i + 5, 4 * j : 4 * j + 5, 4 * k : 4 * k + 5]
        # float32, and the slack of the interpolation's rounding
        assert corners.max() <= got[i, j, k] <= corners.max() * (1 + 2**-19)


def test_reaches_are_distances_to_what_is_not_empty():
    majorants = np.zeros((5, 6, 7))
    assert (empty_reaches(majorants) == 7).all()
    full = [(0, 1, 6), (4, 4, 2)]
    for block in full:
        majorants[block] = 1.0
    got = empty_reaches(majorants)
    for block in np.ndindex(majorants.shape):
        nearest = min(np.abs(np.subtract(block, other)).max() for other in full)
        assert got[block] == nearest


def test_a_majorant_that_is_too_small_is_noticed(device):
    medium = Medium.from_values(smooth(), density_scale=1.0, device=device)
    low = replace(medium, majorants=medium.majorants * np.float32(0.5))
    rays_o, rays_d = inward_rays(medium, 50)
    camera = orbit(0, 0, 1.5, width=8, height=8).moved(*medium.cube)
    with pytest.raises(DataError, match="exceeds its majorant"):
        transmittances(low, rays_o, rays_d)
    with pytest.raises(DataError, match="exceeds its majorant"):
        collisions(low, UNIFORM, rays_o, rays_d)
    with pytest.raises(DataError, match="exceeds its majorant"):
        render(low, UNIFORM, camera, 4)
    # of a ramp, each block's own values without those that it shares with the next
    ramp = np.arange(9.0)[:, None, None] * np.ones((9, 7, 8))
    medium = Medium.from_values(ramp, density_scale=0.1, device=device)
    own = padded(ramp)[:-1, :-1, :-1].reshape(3, 4, 2, 4, 3, 4).max(axis=(1, 3, 5))
    with pytest.raises(DataError, match="exceeds its majorant"):
        transmittances(replace(medium, majorants=own), rays_o, rays_d, spp=100)


def test_empty_blocks_cost_nothing(device):
    n = 250
    values = np.zeros((n, n, n), np.float32)
    medium = Medium.from_values(values, density_scale=1.0, device=device)
    rays_o, rays_d = inward_rays(medium, 200)
    nothing = transmittances(medium, rays_o, rays_d, spp=1)
    assert nothing.moves.max() == 1
    assert nothing.lookups.max() == 0
    assert (nothing.mean == 1).all()
    values[100:104, 100:104, 100:104] = 5.0
    medium = Medium.from_values(values, density_scale=1e-3, device=device)
    few = transmittances(medium, rays_o, rays_d, spp=1)
    # 63 blocks along each axis: a walk from block to block takes about a hundred moves
    assert few.moves.max() < 30
    assert few.moves.mean() < 10
    full = transmittances(replace(medium, majorants=medium.majorants + 1), rays_o, rays_d, spp=1)
    assert full.moves.mean() > 80


def test_rays_along_axes_and_faces_end(device):
    medium = Medium.from_values(sparse(), density_scale=0.2, device=device)
    grid = np.array(np.meshgrid(*[[-1.0, 3.0, 7.0, 20.0, 43.0]] * 3)).reshape(3, -1).T
    # on blocks' faces, edges and corners, inside and out, along every diagonal
    ways = np.array([w for w in np.ndindex(3, 3, 3) if w != (1, 1, 1)]) - 1.0
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    rays_o, rays_d = (a.reshape(-1, 3) for a in np.broadcast_arrays(grid[:, None], ways))
    got = transmittances(medium, rays_o, rays_d, spp=100)
    depth = twin.optical_depth(sparse(), np.eye(4), rays_o, rays_d, 80, 1000)
    assert (np.abs(got.mean - np.exp(-0.2 * depth)) <= 5 * got.error + 2e-3).all()


@wp.struct
class Ball:
    radius: float


@wp.func
def ball_density(ball: Ball, p: wp.vec3) -> float:
    return wp.where(wp.length(p - wp.vec3(5.0, 5.0, 5.0)) < ball.radius, 1.0, 0.0)


def test_any_field_is_tracked(device):
    data = Ball()
    data.radius = 3.0
    medium = Medium(
        kind=FieldKind(Ball, ball_density), data=data, majorants=np.ones((2, 2, 2), np.float32),
        block=5, to_grid=np.eye(4), box=((2.0, 2.0, 2.0), (8.0, 8.0, 8.0)), density_scale=0.4,
        device=device,
    )  # fmt: skip
    got = transmittances(medium, np.array([[5.0, 5.0, -9.0]]), np.array([[0.0, 0, 1]]), spp=5000)
    assert abs(got.mean[0] - np.exp(-0.4 * 6)) <= SIGMAS * got.error[0]


def test_a_volume_of_a_file_is_a_medium(tmp_path, device):
    values = smooth((4, 5, 6)).astype(np.float32)
    np.savez(tmp_path / "a.npz", values, origin=[1, 2, 3], voxel_size=[1, 2, 3])
    np.save(tmp_path / "a.npy", values)
    medium = Medium.from_volume(load_volume(tmp_path / "a.npy"), device=device)
    index = np.random.default_rng(0).uniform(-2, 7, (100, 3))
    np.testing.assert_allclose(medium.densities(index), twin.density(values, index), atol=1e-5)
    # the longest side, at the largest value
    assert medium.density_scale * 6 * values.max() == pytest.approx(60)
    volume = load_volume(tmp_path / "a.npy")
    moved = Medium.from_volume(replace(volume, first=(5, -3, 2), to_world=SHEARED), device=device)
    points = twin.at(SHEARED, index + np.array([5, -3, 2]))
    np.testing.assert_allclose(moved.densities(points), twin.density(values, index), atol=1e-4)
    for change, message in (
        ({"values": np.ones((3, 3, 3, 2), np.float32)}, "vectors"),
        ({"grid_class": "level set"}, "signed distances"),
    ):
        with pytest.raises(DataError, match=message):
            Medium.from_volume(replace(volume, **change), device=device)


def test_negative_densities_are_none(device):
    values = smooth((4, 4, 4)) - 0.6
    medium = Medium.from_values(values, density_scale=1.0, device=device)
    index = np.random.default_rng(0).uniform(-2, 6, (1000, 3))
    expected = twin.density(np.maximum(values, 0), index)
    np.testing.assert_allclose(medium.densities(index), expected, atol=1e-5)
    assert medium.majorants.min() >= 0


def test_bad_settings_are_refused(device):
    ones = np.ones((3, 3, 3))

    def medium(values=ones, **options):
        return Medium.from_values(values, **{"density_scale": 1.0, "device": device, **options})

    good, camera = medium(), Camera(position=(0.0, 0.0, 9.0), width=4, height=4)
    rays = np.array([[0.0, 0.0, 1.0]])
    cases = [
        (ConfigError, "albedo", lambda: medium(albedo=1.1)),
        (ConfigError, "g must", lambda: medium(g=1.0)),
        (ConfigError, "density_scale", lambda: medium(density_scale=0.0)),
        (ConfigError, "block", lambda: medium(block=0)),
        (ShapeError, r"values must have shape \[x, y, z\]", lambda: medium(np.ones((3, 3)))),
        (DataError, "finite", lambda: medium(np.full((3, 3, 3), np.nan))),
        (DataError, "singular", lambda: medium(to_world=np.diag([1.0, 1, 0, 1]))),
        (ConfigError, "sun_diameter", lambda: Light(sun_diameter=0.0)),
        (ConfigError, "zenith", lambda: Light(zenith=(1.0, -1.0, 0.0))),
        (ConfigError, "sun_elevation", lambda: Light(sun_elevation=91)),
        (ConfigError, "up axis", lambda: Light(up="w")),
        (ConfigError, "spp", lambda: render(good, Light(), camera, 0)),
        (ConfigError, "max_bounces", lambda: render(good, Light(), camera, 1, max_bounces=0)),
        (ConfigError, "seed", lambda: render(good, Light(), camera, 1, seed=-1)),
        (ConfigError, "call add", lambda: PathTracer(good, Light(), camera).picture()),
        (ConfigError, "method", lambda: transmittances(good, rays, rays, method="x")),
        (ShapeError, "unit vectors", lambda: transmittances(good, rays, 2 * rays)),
        (ShapeError, "rays_d", lambda: collisions(good, Light(), rays, rays[:, :2])),
    ]
    for error, message, call in cases:
        with pytest.raises(error, match=message):
            call()
