"""Small meshes for the tests of signed distance fields, and their files."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

FORMATS = ("obj", "ply", "stl", "off", "glb", "gltf")
PENTAGON = np.stack([np.cos(np.arange(5) * 2 * np.pi / 5), np.sin(np.arange(5) * 2 * np.pi / 5)], 1)
PRISM_VOLUME = 2.5 * np.sin(2 * np.pi / 5)
"""Of the prism of height 1 over the pentagon in the unit circle."""


def ball(centre: Any = (0.0, 0.0, 0.0), radius: float = 1.0) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=radius)
    return mesh.apply_translation(centre)


def torus() -> trimesh.Trimesh:
    return trimesh.creation.torus(1.0, 0.4, major_sections=24, minor_sections=12)


def write(mesh: Any, path: Path) -> Path:
    """Write a trimesh mesh or scene by the path's extension."""
    if path.suffix == ".gltf":
        for name, data in trimesh.Scene(mesh).export(file_type="gltf").items():
            (path.parent / name).write_bytes(data)
        return (path.parent / "model.gltf").rename(path)
    mesh.export(path)
    return path


def write_obj(path: Path, vertices: Any, faces: Any) -> Path:
    """Write an OBJ of polygons; faces count from 0."""
    lines = ["v " + " ".join(repr(float(x)) for x in vertex) for vertex in vertices]
    lines += ["f " + " ".join(str(int(i) + 1) for i in face) for face in faces]
    path.write_text("\n".join(lines) + "\n")
    return path


def prism() -> tuple[np.ndarray, list[list[int]]]:
    """Return a pentagon's prism of height 1: two pentagons and five quads."""
    vertices = np.concatenate([np.column_stack([PENTAGON, np.full(5, z)]) for z in (0.0, 1.0)])
    sides = [[i, (i + 1) % 5, (i + 1) % 5 + 5, i + 5] for i in range(5)]
    return vertices, [[4, 3, 2, 1, 0], [5, 6, 7, 8, 9], *sides]


def write_polygons(path: Path, vertices: np.ndarray, faces: list[list[int]]) -> Path:
    """Write polygons of unlike numbers of corners; ``x.binary.ply`` and ``x.big.ply`` in bytes."""
    if path.suffix == ".obj":
        return write_obj(path, vertices, faces)
    rows = [" ".join(map(repr, vertex)) for vertex in vertices.tolist()]
    rows += [" ".join(map(str, [len(face), *face])) for face in faces]
    text = "\n".join(rows) + "\n"
    if path.suffix == ".off":
        path.write_text(f"OFF\n{len(vertices)} {len(faces)} 0\n{text}")
        return path
    order = {"binary": "<", "big": ">"}.get(path.stem.split(".")[-1], "")
    name = {"<": "binary_little_endian", ">": "binary_big_endian", "": "ascii"}[order]
    header = (
        f"ply\nformat {name} 1.0\nelement vertex {len(vertices)}\n"
        "property double x\nproperty double y\nproperty double z\nproperty uchar red\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    body = text.encode()
    if order:
        body = b"".join(struct.pack(order + "dddB", *vertex, 7) for vertex in vertices)
        body += b"".join(struct.pack(f"{order}B{len(f)}i", len(f), *f) for f in faces)
    else:
        colour = [row + " 7" for row in rows[: len(vertices)]]
        body = ("\n".join([*colour, *rows[len(vertices) :]]) + "\n").encode()
    path.write_bytes(header.encode() + body)
    return path
