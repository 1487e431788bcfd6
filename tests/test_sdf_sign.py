"""The choice of a sign method, and the mending of a mesh's winding."""

import numpy as np
import pytest

from ngp_warp.primitives.sdf.sign import choose_sign, distinct_faces, find_topology, orient_faces
from tests import sdf_meshes as meshes


def flip_some(faces, share, seed=0):
    flip = np.random.default_rng(seed).random(len(faces)) < share
    return np.where(flip[:, None], faces[:, ::-1], faces)


def same_winding(a, b):
    """Whether each face of a is the one of b, or a rotation of it."""
    rotations = [np.all(a == np.roll(b, k, axis=1), axis=1) for k in range(3)]
    return np.logical_or.reduce(rotations).all()


@pytest.mark.parametrize("name", sorted(meshes.WATERTIGHT))
def test_a_minority_of_flipped_faces_is_turned_back(name):
    _, faces = meshes.WATERTIGHT[name]()
    flipped = faces.copy()
    few = max(len(faces) // 5, 1)
    flipped[:few] = faces[:few, ::-1]
    assert not same_winding(flipped, faces)
    assert same_winding(orient_faces(flipped, np.ones(len(faces))), faces)
    # what is consistent stays, cavities included
    assert orient_faces(faces, np.ones(len(faces))) is faces


def test_the_larger_area_decides():
    _, faces = meshes.sphere(1)
    flipped = flip_some(faces, 0.7)
    areas = np.where((flipped == faces).all(axis=1), 10.0, 1.0)
    assert same_winding(orient_faces(flipped, areas), faces)
    assert same_winding(orient_faces(flipped, np.ones(len(faces))), faces[:, ::-1])


def test_a_moebius_strip_stays_as_it_is():
    _, faces = meshes.moebius()
    assert np.array_equal(orient_faces(faces, np.ones(len(faces))), faces)
    topology = find_topology(faces)
    assert not topology.orientable
    assert topology.n_inconsistent_edges == 1


@pytest.mark.parametrize("share", [0.0, 1 / 3])
def test_watertight_meshes_get_normals(share):
    _, faces = meshes.torus()
    sign, why = choose_sign(flip_some(faces, share))
    assert sign == "normal"
    assert ("mended" in why) == (share > 0)


@pytest.mark.parametrize("share", [0.0, 1 / 3])
def test_meshes_with_holes_get_winding_numbers(share):
    _, faces = meshes.torus()
    sign, why = choose_sign(flip_some(faces[7:], share))
    topology = find_topology(faces[7:])
    assert sign == "winding"
    assert f"{topology.n_boundary_edges} edges of {len(faces) - 7} faces" in why
    assert "\n" not in why


def test_closed_meshes_that_cannot_be_wound_get_rays():
    # a fin closed in itself on one edge of a box: that edge has four faces
    vertices, faces = meshes.box()
    a, b = faces[0, 0], faces[0, 1]
    n = len(vertices)
    fin = [[a, b, n], [b, a, n + 1], [b, n + 1, n], [a, n, n + 1]]
    closed = np.concatenate([faces, fin])
    topology = find_topology(closed)
    assert (topology.n_boundary_edges, topology.n_branching_edges) == (0, 1)
    sign, why = choose_sign(closed)
    assert sign == "raystab"
    assert "1 edges have three faces or more" in why


def test_faces_count_once():
    faces = np.array([[0, 1, 2], [2, 1, 0], [0, 0, 1], [1, 2, 3]])
    assert distinct_faces(faces).tolist() == [True, False, False, True]


def test_edges_are_counted_by_kind():
    _, faces = meshes.box()
    assert find_topology(faces).watertight
    assert find_topology(faces[1:]).n_boundary_edges == 3
    assert not find_topology(faces[1:]).watertight
