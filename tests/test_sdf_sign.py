"""The choice of a sign method, and the mending of a mesh's winding."""

import numpy as np
import pytest

from ngp_warp.primitives.sdf.choose import choose_sign
from ngp_warp.primitives.sdf.sign import (
    distinct_faces,
    find_topology,
    orient_faces,
    winding_number,
)
from tests import sdf_meshes as meshes


def flip_some(faces, share, seed=0):
    flip = np.random.default_rng(seed).random(len(faces)) < share
    return np.where(flip[:, None], faces[:, ::-1], faces)


def same_winding(a, b):
    """Whether each face of a is the one of b, or a rotation of it."""
    rotations = [np.all(a == np.roll(b, k, axis=1), axis=1) for k in range(3)]
    return np.logical_or.reduce(rotations).all()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("name", sorted(meshes.WATERTIGHT))
def test_flipped_faces_of_closed_bodies_are_turned_back(name, share):
    vertices, faces = meshes.WATERTIGHT[name]()
    flipped = faces.copy()
    few = np.arange(len(faces)) % 10 < 10 * share
    few[-1] = not few[0]  # not all or none, however few there are
    flipped[few] = faces[few][:, ::-1]
    assert same_winding(orient_faces(vertices, flipped), faces)
    # what is consistent stays
    assert orient_faces(vertices, faces) is faces
    assert orient_faces(vertices, faces[:, ::-1])[0].tolist() == faces[0, ::-1].tolist()


def test_a_cavity_stays_a_cavity():
    vertices, faces = meshes.shell()
    for flip in ([1], [1, 14], [0, 1, 2, 3, 4, 5, 6, 7, 8, 12], [*range(1, 12), 13, 14]):
        flipped = faces.copy()
        flipped[flip] = faces[flip][:, ::-1]
        assert same_winding(orient_faces(vertices, flipped), faces)


def test_of_an_open_body_the_larger_area_decides():
    vertices, faces = meshes.box((0.8, 0.2, 0.1))
    faces = faces[1:]
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    large = area > np.median(area)
    for flip, wanted in ((large, faces[:, ::-1]), (~large, faces)):
        flipped = np.where(flip[:, None], faces[:, ::-1], faces)
        assert same_winding(orient_faces(vertices, flipped), wanted)


def test_a_moebius_strip_stays_as_it_is():
    vertices, faces = meshes.moebius()
    assert np.array_equal(orient_faces(vertices, faces), faces)
    topology = find_topology(faces)
    assert not topology.orientable
    assert topology.n_inconsistent_edges == 1


def test_winding_number_counts_turns():
    vertices, faces = meshes.sphere(1)
    triangles = vertices[faces].astype(np.float64)
    assert winding_number(triangles, np.array([0.5, 0.6, 0.5])) == pytest.approx(1, abs=1e-9)
    assert winding_number(triangles[:, ::-1], np.full(3, 0.5)) == pytest.approx(-1, abs=1e-9)
    assert winding_number(triangles, np.array([1.5, 0.5, 0.5])) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("share", [0.0, 1 / 3])
def test_watertight_meshes_get_normals(device, share):
    vertices, faces = meshes.torus()
    sign, why = choose_sign(vertices, flip_some(faces, share), device)
    assert sign == "normal"
    assert ("mended" in why) == (share > 0)


@pytest.mark.parametrize("share", [0.0, 1 / 3])
def test_meshes_with_holes_get_winding_numbers(device, share):
    vertices, faces = meshes.torus()
    sign, why = choose_sign(vertices, flip_some(faces[7:], share), device)
    topology = find_topology(faces[7:])
    assert sign == "winding"
    assert f"{topology.n_boundary_edges} edges of {len(faces) - 7} faces" in why
    assert "\n" not in why


def test_overlapping_bodies_get_winding_numbers(device):
    overlapping = meshes.joined(meshes.box(0.4), meshes.box(0.4, (0.2, 0.1, 0.1)))
    sign, why = choose_sign(*overlapping, device)
    assert sign == "winding"
    assert "cuts itself" in why
    apart = meshes.joined(meshes.box(0.2), meshes.box(0.2, (0.3, 0.1, 0.1)))
    assert choose_sign(*apart, device)[0] == "normal"


def test_branching_edges_get_winding_numbers_unless_flipped(device):
    # a fin closed in itself on one edge of a box: that edge has four faces
    vertices, faces = meshes.box()
    a, b = faces[0, 0], faces[0, 1]
    n = len(vertices)
    vertices = np.concatenate([vertices, [[0.9, 0.9, 0.9], [0.9, 0.9, 0.8]]]).astype(np.float32)
    fin = [[a, b, n], [b, a, n + 1], [b, n + 1, n], [a, n, n + 1]]
    closed = np.concatenate([faces, fin])
    topology = find_topology(closed)
    assert (topology.n_boundary_edges, topology.n_branching_edges) == (0, 1)
    sign, why = choose_sign(vertices, closed, device)
    assert (sign, "1 edges have three faces" in why) == ("winding", True)
    closed[5] = closed[5][::-1]
    sign, why = choose_sign(vertices, closed, device)
    assert (sign, "cannot be wound" in why) == ("raystab", True)


def test_faces_count_once():
    faces = np.array([[0, 1, 2], [2, 1, 0], [0, 0, 1], [1, 2, 3]])
    assert distinct_faces(faces).tolist() == [True, False, False, True]


def test_edges_are_counted_by_kind():
    _, faces = meshes.box()
    assert find_topology(faces).watertight
    assert find_topology(faces[1:]).n_boundary_edges == 3
    assert not find_topology(faces[1:]).watertight
