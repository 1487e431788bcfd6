"""Laws of the report: what is broken in a mesh is counted, and what can be mended is."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mesh_samples import ball, torus, write, write_obj

from ngp_warp.primitives.sdf.mesh import Surface, clean_surface, load_mesh
from ngp_warp.primitives.sdf.readers import Soup


def clean(mesh: trimesh.Trimesh) -> Surface:
    return clean_surface(Soup(np.array(mesh.vertices), np.array(mesh.faces, np.int64)), "mesh")


def join(*meshes: trimesh.Trimesh) -> trimesh.Trimesh:
    return trimesh.util.concatenate(list(meshes))


def flipped(mesh: trimesh.Trimesh, which: np.ndarray | slice = slice(None)) -> trimesh.Trimesh:
    faces = np.array(mesh.faces)
    faces[which] = faces[which][:, ::-1]
    return trimesh.Trimesh(mesh.vertices, faces, process=False)


def without(mesh: trimesh.Trimesh, faces: list[int]) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, np.delete(mesh.faces, faces, axis=0), process=False)


def volume_of(surface: Surface) -> float:
    return float(trimesh.Trimesh(surface.vertices, surface.faces, process=False).volume)


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_order_of_vertices_and_faces_does_not_matter(seed: int, soup: bool) -> None:
    mesh, rng = without(torus(), [3, 50, 51]), np.random.default_rng(seed)
    vertices, faces = np.array(mesh.vertices), np.array(mesh.faces)
    if soup:
        vertices, faces = vertices[faces].reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3)
    order = rng.permutation(len(vertices))
    turned = np.take_along_axis(faces, (np.arange(3) + rng.integers(0, 3, (len(faces), 1))) % 3, 1)
    shuffled = rng.permutation(np.argsort(order)[turned])
    one = clean(mesh).report
    two = clean(trimesh.Trimesh(vertices[order], shuffled, process=False)).report
    assert two.area == pytest.approx(one.area)
    same = {"area": 0.0, "merged_vertices": 0}
    assert {**two.to_dict(), **same} == {**one.to_dict(), **same}


def test_deleted_faces_are_holes() -> None:
    mesh = ball()
    far = int(np.argmin(mesh.triangles_center @ mesh.triangles_center[0]))
    neighbour = next(int(b) for a, b in mesh.face_adjacency if a == 0)
    report = clean(without(mesh, [0, neighbour, far])).report
    assert not report.watertight
    assert not report.closed
    assert (report.n_holes, report.boundary_edges) == (2, 4 + 3)
    assert report.volume is None
    assert report.winding_consistent
    assert "2 holes, 7 boundary edges" in " ".join(report.lines())


def test_two_holes_that_touch_at_a_vertex_are_two() -> None:
    mesh = ball()
    around = mesh.vertex_faces[0][mesh.vertex_faces[0] >= 0]
    others = [f for f in around[1:] if len(set(mesh.faces[f]) & set(mesh.faces[around[0]])) == 1]
    report = clean(without(mesh, [around[0], others[0]])).report
    assert (report.n_holes, report.boundary_edges) == (2, 6)


def test_the_file_of_a_broken_mesh_says_so(tmp_path: Path) -> None:
    mesh, rng = ball(), np.random.default_rng(0)
    gone = rng.choice(len(mesh.faces), len(mesh.faces) // 20, replace=False)
    report = load_mesh(write(without(mesh, gone.tolist()), tmp_path / "holes.ply")).report
    assert report.n_faces == len(mesh.faces) - len(gone)
    assert report.n_holes > 1
    assert not report.watertight


def test_a_third_of_the_faces_flipped_is_mended() -> None:
    mesh, rng = torus(), np.random.default_rng(1)
    which = rng.choice(len(mesh.faces), len(mesh.faces) // 3, replace=False)
    surface = clean(flipped(mesh, which))
    assert surface.report.turned_faces == len(which)
    assert surface.report.inconsistent_edges > len(which)
    assert surface.report.inside_out_bodies == 0
    assert surface.report.winding_consistent
    assert volume_of(surface) == pytest.approx(mesh.volume)
    assert any("inconsistent winding mended" in line for line in surface.report.lines())


def test_flipped_faces_of_an_open_mesh_follow_the_larger_part() -> None:
    mesh = without(ball(), [0])
    surface = clean(flipped(mesh, np.arange(100)))
    assert surface.report.turned_faces == 100
    assert np.array_equal(
        np.sort(surface.vertices[surface.faces].reshape(-1)), np.sort(mesh.triangles.reshape(-1))
    )
    normals = trimesh.Trimesh(surface.vertices, surface.faces, process=False).face_normals
    assert (np.einsum("ij,ij->i", normals, surface.vertices[surface.faces[:, 0]]) > 0).all()


def test_a_consistent_mesh_is_left_as_it_is() -> None:
    for mesh in (ball(), without(torus(), [7])):
        surface = clean(mesh)
        assert np.array_equal(surface.vertices[surface.faces], mesh.triangles)
        assert surface.report.turned_faces == 0
        assert surface.report.inside_out_bodies == 0


def test_a_moebius_strip_has_no_consistent_winding() -> None:
    n = 24
    angle = np.arange(n) * 2 * np.pi / n
    along = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    across = np.stack(
        [np.cos(angle / 2) * np.cos(angle), np.cos(angle / 2) * np.sin(angle), np.sin(angle / 2)], 1
    )
    vertices = np.concatenate([along + 0.3 * across, along - 0.3 * across])
    faces = []
    for i in range(n):
        j = (i + 1) % n
        a, b, c, d = (i, i + n, j, j + n) if j else (i, i + n, j + n, j)
        faces += [(a, b, c), (c, b, d)]
    report = clean(trimesh.Trimesh(vertices, faces, process=False)).report
    assert not report.winding_consistent
    assert report.n_holes == 1
    assert "inconsistent winding: its faces do not agree" in " ".join(report.lines())


def test_an_inside_out_mesh_is_turned() -> None:
    surface = clean(flipped(ball()))
    assert surface.report.inside_out_bodies == 1
    assert surface.report.turned_faces == 0
    assert surface.report.volume == pytest.approx(ball().volume)
    assert volume_of(surface) == pytest.approx(ball().volume)
    assert "inside out: turned 1 closed body" in surface.report.lines()


def test_each_of_several_bodies_is_turned_by_itself() -> None:
    surface = clean(join(ball(), flipped(ball((3, 0, 0))), ball((6, 0, 0))))
    assert surface.report.n_bodies == 3
    assert surface.report.inside_out_bodies == 1
    assert volume_of(surface) == pytest.approx(3 * ball().volume)


def test_a_cavity_stays_a_cavity() -> None:
    hollow = join(ball(), flipped(ball(radius=0.5)))
    island = ball(radius=0.2)
    for mesh, turned in ((join(hollow, island), 0), (flipped(join(hollow, island)), 3)):
        surface = clean(mesh)
        assert surface.report.inside_out_bodies == turned
        volume = ball().volume * (1 - 0.5**3 + 0.2**3)
        assert surface.report.volume == pytest.approx(volume)
        assert volume_of(surface) == pytest.approx(volume)


def test_a_body_in_the_box_but_not_in_the_body_is_no_cavity() -> None:
    ring = trimesh.creation.torus(1.0, 0.2, major_sections=32, minor_sections=16)
    surface = clean(join(ring, flipped(ball(radius=0.1))))  # in the hole of the ring
    assert surface.report.inside_out_bodies == 1
    assert volume_of(surface) == pytest.approx(ring.volume + ball(radius=0.1).volume)


def test_bodies_that_touch_along_an_edge_are_closed_but_not_manifold() -> None:
    surface = clean(
        join(trimesh.creation.box(), trimesh.creation.box().apply_translation((1, 1, 0)))
    )
    assert not surface.report.watertight
    assert surface.report.closed
    assert surface.report.non_manifold_edges == 1
    assert surface.report.winding_consistent
    assert "1 edge of three faces or more; closed all the same" in " ".join(surface.report.lines())


def test_degenerate_and_duplicate_faces_are_removed_and_counted(tmp_path: Path) -> None:
    mesh = ball()
    faces = mesh.faces.tolist()
    faces += [[0, 0, 1], [5, 5, 5]]  # without area
    faces += [faces[3], faces[4][1:] + faces[4][:1], faces[5][::-1]]
    surface = load_mesh(write_obj(tmp_path / "more.obj", mesh.vertices, faces))
    assert surface.report.degenerate_faces == 2
    assert surface.report.duplicate_faces == 3
    assert surface.report.watertight
    assert surface.report.n_faces == len(mesh.faces)


def test_a_face_without_area_closes_a_crack_without_width() -> None:
    # A cube's edge is split on one side alone; a triangle on the line joins both.
    box = trimesh.creation.box()
    a, b = 0, 1
    faces = box.faces.tolist()
    face = next(f for f in faces if {a, b} <= set(f))
    faces.remove(face)
    i = next(i for i in range(3) if {face[i], face[(i + 1) % 3]} == {a, b})
    p, q, r = face[i], face[(i + 1) % 3], face[(i + 2) % 3]
    middle = len(box.vertices)
    vertices = np.vstack([box.vertices, (box.vertices[a] + box.vertices[b]) / 2])
    split = [*faces, [p, middle, r], [middle, q, r]]
    cracked = clean(trimesh.Trimesh(vertices, split, process=False)).report
    closed = clean(trimesh.Trimesh(vertices, [*split, [p, q, middle]], process=False)).report
    assert not cracked.watertight
    assert cracked.boundary_edges == 3
    assert closed.watertight
    assert closed.degenerate_faces == 1
    assert closed.n_faces == cracked.n_faces
    assert closed.volume == pytest.approx(1.0)


def test_unused_vertices_do_not_count() -> None:
    mesh = ball()
    vertices = np.vstack([[100.0, 0, 0], mesh.vertices, [np.nan] * 3])
    surface = clean(trimesh.Trimesh(vertices, mesh.faces + 1, process=False))
    assert surface.report.n_vertices == len(mesh.vertices)
    assert np.allclose(surface.report.bounds, mesh.bounds)
    assert surface.report.merged_vertices == 0


def test_a_soup_is_as_many_bodies_as_triangles() -> None:
    triangles = np.random.default_rng(2).uniform(0, 1, (40, 3, 3))
    mesh = trimesh.Trimesh(triangles.reshape(-1, 3), np.arange(120).reshape(-1, 3), process=False)
    surface = clean(mesh)
    assert (surface.report.n_bodies, surface.report.n_holes) == (40, 40)
    assert np.array_equal(surface.vertices[surface.faces], triangles)


def test_reports_are_plain_json() -> None:
    report = clean(join(flipped(ball()), without(ball((4, 0, 0)), [1]))).report
    values = report.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert all("\n" not in line for line in report.lines())


def test_the_counts_agree_with_trimesh() -> None:
    mesh = join(torus(), without(ball((4, 0, 0)), [0, 40]), ball((0, 0, 5)))
    surface = clean(mesh)
    theirs = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    assert surface.report.watertight == theirs.is_watertight
    assert surface.report.n_bodies == theirs.body_count
    assert surface.report.area == pytest.approx(theirs.area)
    assert surface.report.winding_consistent == theirs.is_winding_consistent
