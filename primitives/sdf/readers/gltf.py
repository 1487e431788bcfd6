"""glTF 2.0, text and binary, through trimesh: the scene's meshes, each under its transforms."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.sdf.readers.source import Soup

_TRIANGLES, _STRIP, _FAN = 4, 5, 6


def read_gltf(path: Path) -> Soup:
    """Read all meshes of the scene, in world space and metres; skins and animations at rest.

    Raises:
        DataError: compressed or quantised vertices, triangle fans, or a broken file.
    """
    import trimesh

    ignored = _check(path)
    scene = trimesh.load_scene(path, process=False, skip_materials=True, ignore_broken=False)
    vertices, faces, n_vertices = [], [], 0
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        mesh = scene.geometry[name]
        if not isinstance(mesh, trimesh.Trimesh):
            continue  # points and lines
        corners = np.asarray(mesh.faces, np.int64).reshape(-1, 3)
        points = np.asarray(mesh.vertices, np.float64)
        if corners.size and (corners.min() < 0 or corners.max() >= len(points)):
            raise DataError(f"a face of {name} names a vertex beyond its {len(points)}")
        if np.linalg.det(matrix[:3, :3]) < 0:
            # glTF 2.0, 3.7.4: a mirrored node's faces are wound the other way
            corners = corners[:, ::-1]
        vertices.append(points @ matrix[:3, :3].T + matrix[:3, 3])
        faces.append(corners + n_vertices)
        n_vertices += len(points)
    if not faces:
        return Soup(np.zeros((0, 3)), np.zeros((0, 3), np.int64), ignored=ignored)
    return Soup(
        np.concatenate(vertices), np.concatenate(faces), n_parts=len(faces), ignored=ignored
    )


def _check(path: Path) -> tuple[str, ...]:
    """Refuse what trimesh would leave out or misread; return what is ignored, in words."""
    header = _header(path)
    accessors = header.get("accessors", [])
    attributes: set[str] = set()
    for mesh in header.get("meshes", []):
        for primitive in mesh["primitives"]:
            mode = primitive.get("mode", _TRIANGLES)
            if mode == _FAN:
                raise DataError(f"mesh {mesh.get('name', '')!r} is of triangle fans, not read")
            if mode in (_TRIANGLES, _STRIP):
                attributes |= primitive["attributes"].keys()
                _check_primitive(primitive, accessors)
    ignored = ["vertex colours"] if "COLOR_0" in attributes else []
    ignored += ["texture coordinates"] if "TEXCOORD_0" in attributes else []
    ignored += ["skins (taken at rest)"] if "JOINTS_0" in attributes else []
    return tuple(ignored)


def _check_primitive(primitive: dict[str, Any], accessors: list[dict[str, Any]]) -> None:
    """Raise DataError where positions or indices are compressed, quantised or missing."""
    used = [primitive["attributes"]["POSITION"]]
    used += [primitive["indices"]] if "indices" in primitive else []
    for index in used:
        accessor = accessors[index]
        if "bufferView" not in accessor and "sparse" not in accessor:
            extensions = ", ".join(primitive.get("extensions", {})) or "they are missing"
            raise DataError(f"its vertices are compressed ({extensions}); save it uncompressed")
    if accessors[used[0]].get("normalized"):
        raise DataError("its vertices are quantised (KHR_mesh_quantization); save it as floats")


def _header(path: Path) -> dict[str, Any]:
    """Return the JSON of a glTF file, or of the first chunk of a binary one."""
    data = path.read_bytes()
    if path.suffix.lower() == ".glb":
        if data[:4] != b"glTF" or len(data) < 20:
            raise DataError("it is no binary glTF: it does not begin with 'glTF'")
        length = int.from_bytes(data[8:12], "little")
        if length > len(data):
            raise DataError(f"it is cut short: it has {len(data)} of {length} bytes")
        data = data[20 : 20 + int.from_bytes(data[12:16], "little")]
    try:
        header = json.loads(data)
    except ValueError as error:
        raise DataError("its JSON is broken or cut short") from error
    if not isinstance(header, dict):
        raise DataError("its JSON is not an object")
    return header
