"""Every file is a mesh or refused in one line that names it; nothing is printed besides."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mesh_samples import FORMATS, ball, prism, write, write_obj, write_polygons

from ngp_warp.errors import DataError, NgpError
from ngp_warp.primitives.sdf.mesh import load_mesh


def refusal(path: Path) -> str:
    """Return the message with which a file is refused; it must name it, in one line."""
    with pytest.raises(DataError) as caught:
        load_mesh(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.obj").mkdir()
    assert "there is no such file" in refusal(tmp_path / "none.obj")
    assert "folder" in refusal(tmp_path / "folder.obj")


@pytest.mark.parametrize("name", ["mesh.3ds", "mesh", "mesh.txt"])
def test_unknown_extensions(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"v 0 0 0")
    assert ".obj, .ply, .stl, .off, .glb, .gltf" in refusal(tmp_path / name)


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("data", [b"", b"Dear reader,\nthis is a letter.\n" * 20, bytes(300)])
def test_what_is_no_mesh(tmp_path: Path, extension: str, data: bytes) -> None:
    path = tmp_path / f"bad.{extension}"
    path.write_bytes(data)
    refusal(path)


@pytest.mark.parametrize("extension", ["ply", "stl", "off", "glb"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, extension: str) -> None:
    path = write(ball(), tmp_path / f"cut.{extension}")
    data = path.read_bytes()
    for n in np.linspace(1, len(data) - 4, 60).astype(int):
        path.write_bytes(data[:n])
        refusal(path)


@pytest.mark.parametrize("kind", ["stl", "ply"])
def test_a_text_cut_short_is_refused(tmp_path: Path, kind: str) -> None:
    text = {
        "stl": trimesh.exchange.stl.export_stl_ascii(ball()),
        "ply": trimesh.exchange.ply.export_ply(ball(), encoding="ascii").decode(),
    }[kind]
    lines = text.strip().split("\n")
    path = tmp_path / f"cut.{kind}"
    for n in np.linspace(1, len(lines) - 1, 40).astype(int):
        path.write_text("\n".join(lines[:n]))
        refusal(path)


def test_points_and_lines_without_faces(tmp_path: Path) -> None:
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nl 1 2\np 3\n")
    trimesh.PointCloud(np.eye(3)).export(tmp_path / "points.ply")
    trimesh.Scene(trimesh.PointCloud(np.eye(3))).export(tmp_path / "points.glb")
    none = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": []}], "nodes": []}
    (tmp_path / "none.gltf").write_text(json.dumps(none))
    (tmp_path / "empty.stl").write_text("solid nothing\nendsolid nothing\n")
    (tmp_path / "faces.off").write_text("OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n")
    for name in ("points.obj", "points.ply", "points.glb", "none.gltf", "empty.stl", "faces.off"):
        assert "a mesh with faces is needed" in refusal(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("extension", ["obj", "ply", "stl", "off"])
def test_values_that_are_not_finite(tmp_path: Path, extension: str, value: float) -> None:
    mesh = ball()
    faces = np.array(mesh.faces)
    vertices = np.array(mesh.vertices)
    vertices[7, 1] = value
    path = tmp_path / f"nan.{extension}"
    if extension == "stl":
        path = write(ball(), path)
        data = bytearray(path.read_bytes())
        data[84 + 12 : 84 + 16] = np.float32(value).tobytes()
        path.write_bytes(data)
    else:
        write_polygons(path, vertices, faces.tolist())
    assert "not finite" in refusal(path)


def test_flat_sheets_have_no_inside(tmp_path: Path) -> None:
    grid = np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0)), -1).reshape(-1, 2)
    vertices = np.column_stack([grid, np.zeros(16)])
    faces = [[i, i + 1, i + 5, i + 4] for i in range(11) if i % 4 < 3]
    turn = trimesh.transformations.rotation_matrix(0.7, (1, 2, 3))[:3, :3]
    for name, tilted in (("flat", vertices), ("tilted", vertices @ turn.T + 5)):
        path = write_obj(tmp_path / f"{name}.obj", tilted.astype(np.float32), faces)
        assert "flat sheet" in refusal(path)
    vertices[5, 2] = 0.1  # a surface, though open
    assert load_mesh(write_obj(tmp_path / "bent.obj", vertices, faces)).report.n_holes == 1


def test_meshes_without_any_area(tmp_path: Path) -> None:
    line = np.arange(6.0)[:, None] * (1.0, 2.0, 3.0)
    faces = [[0, 1, 2], [3, 4, 5]]
    assert "area" in refusal(write_obj(tmp_path / "line.obj", line, faces))
    assert "area" in refusal(write_obj(tmp_path / "same.obj", line, [[0, 0, 1], [2, 2, 2]]))
    assert "extent" in refusal(write_obj(tmp_path / "point.obj", np.ones((6, 3)), faces))


def test_extents_beyond_computing(tmp_path: Path) -> None:
    mesh = ball()
    for scale in (1e-200, 1e200, 1e308):
        path = write_obj(tmp_path / "size.obj", mesh.vertices * scale, mesh.faces)
        assert "extent" in refusal(path)


OBJ = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 1 4 3\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("f 1 2 4", "f 1 2 5"),
        ("f 1 2 4", "f 1 2 0"),
        ("f 1 2 4", "f 1 2 -5"),
        ("f 1 2 4", "f 1 2"),
        ("f 1 2 4", "f 1 2 x"),
        ("f 1 2 4", "f 1 2 1.5"),
        ("f 1 2 4", "f 1 2 99999999999999999999999"),
        ("v 1 0 0", "v 1 0"),
        ("v 1 0 0", "v 1 0 zero"),
        ("v 1 0 0", "v 1,0 0 0"),
    ],
)
def test_broken_lines_of_an_obj(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "broken.obj"
    path.write_text(OBJ)
    assert load_mesh(path).report.watertight
    path.write_text(OBJ.replace(old, new))
    refusal(path)


@pytest.mark.parametrize("count", [-1, 10**12, 2**63])
@pytest.mark.parametrize("name", ["p.ply", "p.binary.ply"])
@pytest.mark.parametrize("element", ["vertex 10", "face 7"])
def test_counts_that_the_file_cannot_hold(
    tmp_path: Path, name: str, element: str, count: int
) -> None:
    path = write_polygons(tmp_path / name, *prism())
    data = path.read_bytes()
    path.write_bytes(
        data.replace(element.encode(), element.split(maxsplit=1)[0].encode() + b" %d" % count)
    )
    refusal(path)


def _gltf(folder: Path) -> dict:
    write(trimesh.creation.box(), folder / "box.gltf")
    return json.loads((folder / "box.gltf").read_text())


def test_gltf_that_would_be_read_in_part_is_refused(tmp_path: Path) -> None:
    def refused(change: str) -> str:
        header = _gltf(tmp_path)
        primitive = header["meshes"][0]["primitives"][0]
        positions = header["accessors"][primitive["attributes"]["POSITION"]]
        if change == "fan":
            primitive["mode"] = 6
        elif change == "quantised":
            positions["normalized"] = True
        elif change == "compressed":
            primitive["extensions"] = {"KHR_draco_mesh_compression": {}}
            del positions["bufferView"]
        elif change == "missing":
            header["buffers"][0]["uri"] = "missing.bin"
        elif change == "remote":
            header["buffers"][0]["uri"] = "http://127.0.0.1:9/box.bin"
        (tmp_path / "changed.gltf").write_text(json.dumps(header))
        return refusal(tmp_path / "changed.gltf")

    assert "triangle fans" in refused("fan")
    assert "KHR_mesh_quantization" in refused("quantised")
    assert "KHR_draco_mesh_compression" in refused("compressed")
    assert "missing.bin" in refused("missing")
    assert "127.0.0.1" in refused("remote")


@pytest.mark.parametrize("extension", ["obj", "ply", "stl", "off", "glb"])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_files_are_read_or_refused_in_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture, extension: str, data: st.DataObject
) -> None:
    path = write(trimesh.creation.box(), tmp_path / f"whole.{extension}")
    content = bytearray(path.read_bytes())
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    begin, end = sorted((data.draw(places), data.draw(places)))
    if data.draw(st.booleans()):
        del content[begin:end]
    damaged = tmp_path / f"damaged.{extension}"
    damaged.write_bytes(content)
    message = str(damaged)
    try:
        load_mesh(damaged)
    except NgpError as error:
        message = str(error)
    assert "\n" not in message
    assert str(damaged) in message
    assert capfd.readouterr() == ("", "")


def test_a_text_stl_that_lost_a_line_inside_is_refused(tmp_path: Path) -> None:
    lines = trimesh.exchange.stl.export_stl_ascii(ball()).split("\n")
    dropped = [i for i, line in enumerate(lines) if line.strip().startswith("vertex")][30:33]
    path = tmp_path / "lost.stl"
    path.write_text("\n".join(line for i, line in enumerate(lines) if i not in dropped))
    assert "320 facets and 957 vertices" in refusal(path)


def test_what_trimesh_logs_reaches_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    header = _gltf(tmp_path)
    # an accessor that an extension would fill, which trimesh warns of
    attributes = header["meshes"][0]["primitives"][0]["attributes"]
    header["accessors"].append({"componentType": 5126, "type": "VEC3", "count": 8})
    attributes["NORMAL"] = len(header["accessors"]) - 1
    header["meshes"][0]["primitives"][0]["extensions"] = {"KHR_unknown": {}}
    path = tmp_path / "warned.gltf"
    path.write_text(json.dumps(header))
    trimesh.load_scene(path)
    assert "KHR_unknown" in caplog.text
    caplog.clear()
    assert load_mesh(path).report.watertight
    assert not caplog.records
