"""Signed distances to meshes: against brute force in float64, analytic bodies, and laws."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ConfigError, DataError, ShapeError
from ngp_warp.primitives.sdf.kernels import distance as kernels
from ngp_warp.primitives.sdf.sign import SIGNS
from ngp_warp.primitives.sdf.truth import SignedDistance, fibonacci_directions, pseudo_normals
from tests import sdf_meshes as meshes
from tests.reference import truth as reference

# coordinates up to 2 are rounded to 2^-23, and the tree compares sums of a few such squares
TOLERANCE = 1e-6
WATERTIGHT = sorted(meshes.WATERTIGHT)


@pytest.fixture
def restore_threads():
    before = launch.num_threads()
    yield
    launch.set_num_threads(before)


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("name", WATERTIGHT)
def test_distance_is_the_brute_force_one(device, name, sign):
    vertices, faces = meshes.WATERTIGHT[name]()
    points = meshes.points_about(vertices, faces, 300)
    wanted = reference.distance(vertices, faces, points)
    got = SignedDistance(vertices, faces, sign, device).query(points)
    assert got.dtype == np.float32
    assert np.abs(np.abs(got) - wanted).max() < TOLERANCE
    # half of the faces is noticed to be missing
    assert np.abs(np.abs(got) - reference.distance(vertices, faces[::2], points)).max() > 1e-3


@pytest.mark.parametrize("name", WATERTIGHT)
def test_normal_and_winding_signs_are_exact_for_watertight_meshes(device, name):
    vertices, faces = meshes.WATERTIGHT[name]()
    points = meshes.points_about(vertices, faces, 1000, spread=0.02)
    inside = reference.winding_number(vertices, faces, points) > 0.5
    assert 0.01 < inside.mean() < 0.9
    clear = reference.distance(vertices, faces, points) > TOLERANCE
    for sign in ("normal", "winding"):
        negative = SignedDistance(vertices, faces, sign, device).query(points) < 0
        assert np.array_equal(negative[clear], inside[clear]), sign


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("name", WATERTIGHT)
def test_both_searches_find_the_same(name, sign):
    vertices, faces = meshes.WATERTIGHT[name]()
    points = meshes.points_about(vertices, faces, 1000)
    vector, portable = (
        SignedDistance(vertices, faces, sign, "cpu", search) for search in ("vector", "portable")
    )
    for radius in (None, 0.02):
        difference = vector.query(points, radius) - portable.query(points, radius)
        assert np.abs(difference).max() < TOLERANCE
    assert portable.scene.nodes is None


@pytest.mark.parametrize("m", [1, 2, 15, 16, 17, 255, 256, 257, 300, 4097])
def test_any_number_of_faces_makes_a_tree(m):
    rng = np.random.default_rng(m)
    corners = rng.random((m, 1, 3)) + 0.1 * rng.random((m, 3, 3))
    vertices, faces = corners.reshape(-1, 3), np.arange(3 * m).reshape(-1, 3)
    points = rng.random((50, 3)).astype(np.float32)
    truth = SignedDistance(vertices, faces, "winding", "cpu")
    wanted = reference.distance(vertices.astype(np.float32), faces, points)
    assert np.abs(np.abs(truth.query(points)) - wanted).max() < TOLERANCE
    sizes = np.diff(truth.scene.leaf_faces.numpy())
    assert sizes.sum() == m
    assert sizes.min() >= 1
    assert sizes.max() <= 16


@pytest.mark.parametrize("width", [1e-2, 1e-3, 1e-4, 1e-5])
def test_needles_are_measured_exactly(width):
    # a fan of long faces, whose float32 barycentrics are noise
    angle = width * np.arange(40)
    rim = np.stack([0.9 * np.cos(angle), 0.9 * np.sin(angle), 0.01 * np.sin(angle / width)], 1)
    vertices = np.concatenate([[[0, 0, 0.3]], rim]).astype(np.float32)
    faces = np.array([[0, i, i + 1] for i in range(1, 40)])
    faces = np.stack([np.roll(f, i) for i, f in enumerate(faces)])
    points = meshes.points_about(vertices, faces, 300)
    got = SignedDistance(vertices, faces, "winding", "cpu").query(points)
    assert np.abs(np.abs(got) - reference.distance(vertices, faces, points)).max() < TOLERANCE


def test_three_methods_agree_on_a_convex_body(device):
    vertices, faces = meshes.sphere()
    points = meshes.points_about(vertices, faces, 1000)
    by_sign = [SignedDistance(vertices, faces, sign, device).query(points) for sign in SIGNS]
    clear = np.abs(by_sign[0]) > TOLERANCE
    for other in by_sign[1:]:
        assert np.abs(other - by_sign[0])[clear].max() < TOLERANCE


@pytest.mark.parametrize("sign", SIGNS)
def test_distance_to_a_box_is_the_analytic_one(device, sign):
    size = np.array([0.7, 0.3, 0.5])
    vertices, faces = meshes.box(size)
    points = meshes.points_about(vertices, faces, 1000)
    wanted = reference.box_distance(points, 0.5 - size / 2, 0.5 + size / 2)
    got = SignedDistance(vertices, faces, sign, device).query(points)
    assert np.abs(got - wanted).max() < TOLERANCE


def test_face_normals_alone_would_give_the_wrong_sign(device):
    vertices, faces = meshes.needle()
    points = meshes.points_about(vertices, faces, 1000, spread=0.05)
    inside = reference.winding_number(vertices, faces, points) > 0.5
    truth = SignedDistance(vertices, faces, "normal", device)
    clear = reference.distance(vertices, faces, points) > TOLERANCE
    flat = np.repeat(pseudo_normals(truth.vertices, truth.faces)[:, :1], 7, axis=1)
    truth.scene.n_cells = 0
    truth.scene.normals.assign(flat.reshape(-1, 3))
    assert ((truth.query(points) < 0) != inside)[clear].sum() > 10


@pytest.mark.parametrize("seed", range(3))
def test_signs_of_a_mesh_with_holes_are_the_twins(device, seed):
    vertices, faces = meshes.sphere()
    rng = np.random.default_rng(seed)
    faces = faces[rng.random(len(faces)) > 0.05]
    points = meshes.points_about(vertices, faces, 500, seed)
    number = reference.winding_number(vertices, faces, points)
    negative = SignedDistance(vertices, faces, "winding", device).query(points) < 0
    # Warp sums far clusters of faces to second order
    clear = np.abs(number - 0.5) > 0.02
    assert clear.mean() > 0.9
    assert np.array_equal(negative[clear], number[clear] > 0.5)
    enclosed = reference.enclosed(vertices, faces, points, fibonacci_directions(32))
    negative = SignedDistance(vertices, faces, "raystab", device).query(points) < 0
    assert 0 < enclosed.sum() < (number > 0.5).sum()
    # a ray that grazes an edge may be counted either way
    assert (negative != enclosed).sum() <= 2


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("max_distance", [0.003, 0.03, 0.3])
def test_a_bounded_query_is_the_clipped_one(device, sign, max_distance):
    vertices, faces = meshes.shell()
    truth = SignedDistance(vertices, faces, sign, device)
    points = meshes.points_about(vertices, faces, 2000, spread=0.003)
    distance = truth.query(points)
    bounded = truth.query(points, max_distance)
    assert np.abs(bounded).max() <= np.float32(max_distance)
    assert np.abs(bounded - np.clip(distance, -max_distance, max_distance)).max() < TOLERANCE
    assert np.array_equal(bounded < 0, distance < 0)
    # all four cases occur
    for side in (distance < 0, distance >= 0):
        assert (side & (np.abs(distance) > max_distance)).any() or max_distance > 0.1
        assert (side & (np.abs(distance) < max_distance)).any()


@pytest.mark.parametrize("sign", SIGNS)
def test_neither_threads_nor_order_change_a_bit(sign, restore_threads):
    vertices, faces = meshes.torus()
    points = meshes.points_about(vertices, faces, 1000)
    launch.set_num_threads(1)
    wanted = SignedDistance(vertices, faces, sign, "cpu").query(points)
    launch.set_num_threads(3)
    truth = SignedDistance(vertices, faces, sign, "cpu")
    assert np.array_equal(truth.query(points), wanted)
    order = np.random.default_rng(0).permutation(len(points))
    assert np.array_equal(truth.query(points[order]), wanted[order])


def test_a_soup_of_separate_triangles_is_welded(device):
    vertices, faces = meshes.torus()
    points = meshes.points_about(vertices, faces, 500)
    apart = vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3)
    # a face twice, one without area, one of a single vertex change nothing
    more = np.concatenate([apart[1], [apart[1][3], [0, 1, 1], [5, 5, 5]]])
    wanted = SignedDistance(vertices, faces, "normal", device).query(points)
    got = SignedDistance(apart[0], more, "normal", device).query(points)
    assert np.abs(got - wanted).max() < TOLERANCE


@pytest.mark.parametrize("sign", ["normal", "winding"])
def test_flipped_faces_do_not_change_the_sign(device, sign):
    vertices, faces = meshes.shell()
    points = meshes.points_about(vertices, faces, 500)
    flip = np.array([0, 5, 7, 13, 20])
    flipped = faces.copy()
    flipped[flip] = flipped[flip][:, ::-1]
    wanted = SignedDistance(vertices, faces, sign, device).query(points)
    assert np.abs(SignedDistance(vertices, flipped, sign, device).query(points) - wanted).max() == 0


def test_pseudo_normals_of_a_box_point_along_its_diagonals():
    vertices, faces = meshes.box()
    normals = pseudo_normals(vertices, faces)
    outward = np.sign(vertices[faces] - 0.5)
    unit = normals[:, 4:] / np.linalg.norm(normals[:, 4:], axis=2, keepdims=True)
    # a corner's three right angles count alike, however its faces are cut
    assert np.abs(unit - outward / np.sqrt(3)).max() < 1e-6
    assert np.abs(np.linalg.norm(normals[:, 0], axis=1) - 1).max() < 1e-6


def test_directions_are_spread_evenly():
    directions = fibonacci_directions(32).astype(np.float64)
    assert np.abs(np.linalg.norm(directions, axis=1) - 1).max() < 1e-6
    assert np.abs(directions.mean(axis=0)).max() < 0.02
    nearest = np.sort(directions @ directions.T, axis=1)[:, -2]
    # 32 caps of the sphere's area have a radius of 20 degrees
    assert np.degrees(np.arccos(nearest.max())) > 25


def test_no_points_give_no_distances(device):
    truth = SignedDistance(*meshes.box(), "normal", device)
    assert truth.query(np.zeros((0, 3))).shape == (0,)


def test_errors_say_what_is_wrong(device):
    vertices, faces = meshes.box()
    with pytest.raises(ConfigError, match="sign must be one of normal, raystab, winding"):
        SignedDistance(vertices, faces, "magic", device)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no face with an area"):
        SignedDistance(vertices * [1, 0, 0], faces, "normal", device)
    with pytest.raises(ConfigError, match="search must be portable on cuda:0, got vector"):
        SignedDistance(vertices, faces, "normal", "cuda:0", "vector")
    truth = SignedDistance(vertices, faces, "normal", device)
    with pytest.raises(ShapeError, match=r"\[n, 3\], got \[4, 2\]"):
        truth.query(np.zeros((4, 2)))
    with pytest.raises(ShapeError, match="finite"):
        truth.query(np.array([[0.0, np.nan, 0.0]]))
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ShapeError, match="positive"):
            truth.query(np.zeros((4, 3)), wrong)


@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("sign", SIGNS)
def test_query_compiles_for_cuda(sign, arch, tmp_path):
    module = kernels.query_kernel(sign, "portable").module
    (path,) = wp.compile_aot_module(module, arch=arch, module_dir=tmp_path, use_ptx=True)
    assert path.stat().st_size > 0
