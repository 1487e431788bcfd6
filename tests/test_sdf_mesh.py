"""Laws of reading meshes: the file's format, order, seams and transforms do not matter."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from mesh_samples import FORMATS, PRISM_VOLUME, ball, prism, torus, write, write_obj, write_polygons

from ngp_warp.primitives.sdf.mesh import Surface, load_mesh


def same_triangles(surface: Surface, mesh: trimesh.Trimesh, digits: int = 5) -> bool:
    """Whether the triangles are the same, as sets of cycles of rounded corners."""

    def cycles(triangles: np.ndarray) -> set[tuple]:
        rounded = np.round(triangles, digits) + 0.0
        rows = [[tuple(corner) for corner in triangle] for triangle in rounded.tolist()]
        return {min((a, b, c), (b, c, a), (c, a, b)) for a, b, c in rows}

    return cycles(surface.vertices[surface.faces]) == cycles(mesh.triangles)


@pytest.mark.parametrize("extension", FORMATS)
def test_every_format_gives_the_same_surface(tmp_path: Path, extension: str) -> None:
    mesh = torus()
    surface = load_mesh(write(mesh, tmp_path / f"torus.{extension}"))
    report = surface.report
    assert surface.vertices.dtype == np.float64
    assert surface.faces.dtype == np.int32
    assert (report.n_vertices, report.n_faces) == (len(mesh.vertices), len(mesh.faces))
    assert surface.vertices.shape == (report.n_vertices, 3)
    assert surface.faces.shape == (report.n_faces, 3)
    assert report.watertight
    assert report.closed
    assert report.winding_consistent
    assert report.n_bodies == 1
    assert report.volume == pytest.approx(mesh.volume, rel=1e-5)
    assert np.allclose(report.bounds, mesh.bounds, atol=1e-6)
    assert same_triangles(surface, mesh)


def test_the_comparison_notices_one_turned_triangle(tmp_path: Path) -> None:
    mesh = torus()
    surface = load_mesh(write(mesh, tmp_path / "torus.obj"))
    mesh.faces[5] = mesh.faces[5][::-1]
    assert not same_triangles(surface, trimesh.Trimesh(mesh.vertices, mesh.faces, process=False))


def test_text_variants_of_stl_and_ply_are_read(tmp_path: Path) -> None:
    mesh = ball()
    (tmp_path / "a.stl").write_text(trimesh.exchange.stl.export_stl_ascii(mesh))
    (tmp_path / "a.ply").write_bytes(trimesh.exchange.ply.export_ply(mesh, encoding="ascii"))
    for name in ("a.stl", "a.ply"):
        assert same_triangles(load_mesh(tmp_path / name), mesh)


def test_upper_case_extensions_are_read(tmp_path: Path) -> None:
    path = write(ball(), tmp_path / "ball.stl")
    assert load_mesh(path.rename(tmp_path / "BALL.STL")).report.watertight


def test_seams_of_texture_coordinates_close(tmp_path: Path) -> None:
    mesh = ball()
    corners = mesh.triangles.reshape(-1, 3)
    lines = ["v " + " ".join(map(repr, corner)) for corner in corners.tolist()]
    lines += ["vt 0 0", *(f"f {i + 1}/1 {i + 2}/1 {i + 3}/1" for i in range(0, len(corners), 3))]
    path = tmp_path / "seams.obj"
    path.write_text("\n".join(lines))
    report = load_mesh(path).report
    assert report.watertight
    assert report.n_vertices == len(mesh.vertices)
    assert report.merged_vertices == len(corners) - len(mesh.vertices)
    assert report.ignored == ("texture coordinates",)
    assert any("texture" in line for line in report.lines())


def test_seams_of_a_rounding_error_close_and_wider_ones_do_not(tmp_path: Path) -> None:
    mesh = ball()
    noise = np.random.default_rng(0).uniform(-1, 1, (len(mesh.faces) * 3, 3))
    faces = np.arange(len(noise)).reshape(-1, 3)
    corners = mesh.triangles.reshape(-1, 3)
    near = load_mesh(write_obj(tmp_path / "near.obj", corners + 1e-9 * noise, faces)).report
    wide = load_mesh(write_obj(tmp_path / "wide.obj", corners + 1e-4 * noise, faces)).report
    assert near.watertight
    assert near.n_vertices == len(mesh.vertices)
    assert near.welded_vertices == len(corners) - len(mesh.vertices)
    assert wide.n_bodies == len(mesh.faces)
    assert wide.welded_vertices == 0


@pytest.mark.parametrize("extension", ["glb", "gltf"])
def test_a_scene_is_merged_under_its_transforms(tmp_path: Path, extension: str) -> None:
    scene = trimesh.Scene()
    box = trimesh.creation.box()
    turned = trimesh.transformations.rotation_matrix(np.pi / 2, (0, 0, 1))
    stretched = (
        trimesh.transformations.translation_matrix((5, 0, 0)) @ turned @ np.diag([1, 3, 1, 1])
    )
    mirrored = np.diag([-1.0, 1, 1, 1]) @ trimesh.transformations.translation_matrix((4, 0, 0))
    scene.add_geometry(box, geom_name="box", node_name="one")
    scene.add_geometry(box, geom_name="box", node_name="two", transform=stretched)
    scene.add_geometry(box, geom_name="box", node_name="three", transform=mirrored)
    report = load_mesh(write(scene, tmp_path / f"scene.{extension}")).report
    assert report.n_bodies == 3
    assert report.parts == 3
    assert np.allclose(report.bounds, [[-4.5, -0.5, -0.5], [6.5, 0.5, 0.5]], atol=1e-6)
    assert report.volume == pytest.approx(5.0, rel=1e-6)
    assert report.inside_out_bodies == 0  # the mirrored box's faces were wound back


@pytest.mark.parametrize("name", ["p.obj", "p.off", "p.ply", "p.binary.ply", "p.big.ply"])
def test_mixed_polygons_are_triangulated(tmp_path: Path, name: str) -> None:
    vertices, faces = prism()
    surface = load_mesh(write_polygons(tmp_path / name, vertices, faces))
    assert surface.report.n_faces == 2 * 3 + 5 * 2
    assert surface.report.polygons == 7
    assert surface.report.watertight
    assert surface.report.volume == pytest.approx(PRISM_VOLUME, rel=1e-6)


def test_a_polygon_that_is_not_convex_is_cut_along_itself(tmp_path: Path) -> None:
    # A comb: no fan about one corner covers it.
    outline = [(0, 0), (5, 0), (5, 3), (4, 3), (4, 1), (3, 1), (3, 3), (2, 3), (2, 1), (1, 1)]
    outline += [(1, 3), (0, 3)]
    n = len(outline)
    vertices = [(x, y, z) for z in (0, 1) for x, y in outline]
    for shift in range(n):
        ring = [(i + shift) % n for i in range(n)]
        faces = [ring[::-1], [i + n for i in ring]]
        faces += [[i, (i + 1) % n, (i + 1) % n + n, i + n] for i in range(n)]
        surface = load_mesh(write_obj(tmp_path / "comb.obj", vertices, faces))
        assert surface.report.watertight
        # Overlapping triangles would have the same volume but more area.
        assert surface.report.volume == pytest.approx(11.0)
        assert surface.report.area == pytest.approx(2 * 11.0 + 24.0)


def test_obj_in_every_spelling(tmp_path: Path) -> None:
    plain = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 1 4 3\n"
    relative = plain.replace("f 1 3 2", "f -4 -2 -3")
    spellings = {
        "tabs": plain.replace(" ", "\t"),
        "carriage returns": plain.replace("\n", "\r\n"),
        "old Macintosh": plain.replace("\n", "\r"),
        "indented": plain.replace("f", "  f"),
        "continued": plain.replace("f 1 2 4", "f 1 2 \\\n4"),
        "comments": plain.replace("\n", " # f 9 9 9\n"),
        "normals": plain.replace("f 1 2 4", "f 1//1 2//1 4//7"),
        "mixed references": plain.replace("f 1 2 4", "f 1/1/1 2/5/1 4/7/1"),
        "relative": relative,
        "weights": plain.replace("v 0 0 0", "v 0 0 0 1"),
        "byte order mark": "\ufeff" + plain,
    }
    # Relative indices count from the line, not from the end of the file.
    between = relative.split("f 1 2 4")
    spellings["vertices after faces"] = f"{between[0]}v 9 9 9\nf 1 2 4{between[1]}"
    for name, text in spellings.items():
        path = tmp_path / "t.obj"
        path.write_bytes(text.encode())
        report = load_mesh(path).report
        assert (report.n_faces, report.watertight) == (4, True), name
        assert report.volume == pytest.approx(1 / 6), name
        assert report.extents == (1.0, 1.0, 1.0), name


def test_colours_are_ignored_and_said(tmp_path: Path) -> None:
    mesh = ball()
    mesh.visual.vertex_colors = np.full((len(mesh.vertices), 4), 200, np.uint8)
    for extension in ("obj", "ply", "glb"):
        surface = load_mesh(write(mesh, tmp_path / f"colour.{extension}"))
        assert surface.report.ignored == ("vertex colours",), extension
        assert same_triangles(surface, mesh)


def test_rows_of_a_text_ply_may_be_longer_than_its_header_says(tmp_path: Path) -> None:
    text = trimesh.exchange.ply.export_ply(trimesh.creation.box(), encoding="ascii").decode()
    header, body = text.split("end_header\n")
    path = tmp_path / "long.ply"
    longer = [
        f"{line} 9 1 1" if i % 2 else f"{line} 5" for i, line in enumerate(body.split("\n")[:-1])
    ]
    path.write_text(f"{header}end_header\n" + "\n".join(longer))
    assert load_mesh(path).report.volume == pytest.approx(1.0)


@pytest.mark.parametrize("text", ["COFF\n", "OFF ", "# cube\nOFF\n\n", "\t OFF"])
def test_off_headers_and_colours(tmp_path: Path, text: str) -> None:
    box = trimesh.creation.box()
    rows = [" ".join(map(str, v)) + (" 9 9 9 9" if "C" in text else "") for v in box.vertices]
    rows += [f"3 {a} {b} {c}  0.5 0.5 0.5 # red" for a, b, c in box.faces]
    path = tmp_path / "cube.off"
    path.write_text(f"{text}8 12 0\n" + "\n".join(rows))
    report = load_mesh(path).report
    assert report.volume == pytest.approx(1.0)
    assert "face colours" in report.ignored
    assert ("vertex colours" in report.ignored) == ("C" in text)
