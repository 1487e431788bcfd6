"""Meshes with colours or a texture as binary glTF 2.0, unlit: their colours are light already."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_VERTICES, _INDICES = 34962, 34963
_UNLIT = "KHR_materials_unlit"


def write_glb(
    path: Path,
    vertices: np.ndarray,
    faces: np.ndarray,
    *,
    normals: np.ndarray | None = None,
    colors: np.ndarray | None = None,
    uv: np.ndarray | None = None,
    texture: bytes | None = None,
) -> None:
    """Write a mesh to a file that is opened for it.

    Args:
        path: the file.
        vertices: [n, 3].
        faces: [m, 3].
        normals: [n, 3], unit vectors.
        colors: uint8 [n, 3], sRGB; written as linear light in 16 bits, as glTF has them.
        uv: [n, 2] in 0..1, from the texture's top left.
        texture: a PNG file, sRGB.
    """
    body = _Body()
    positions = vertices.astype("<f4")
    attributes = {
        "POSITION": body.add(
            positions,
            _FLOAT,
            "VEC3",
            min=positions.min(axis=0).tolist(),
            max=positions.max(axis=0).tolist(),
        )
    }
    if normals is not None:
        attributes["NORMAL"] = body.add(normals.astype("<f4"), _FLOAT, "VEC3")
    if colors is not None:
        # four channels: vertex attributes are aligned to 4 bytes
        linear = np.full((len(colors), 4), 65535, "<u2")
        linear[:, :3] = np.rint(_linear(colors) * 65535)
        attributes["COLOR_0"] = body.add(linear, _UINT16, "VEC4", normalized=True)
    if uv is not None:
        attributes["TEXCOORD_0"] = body.add(uv.astype("<f4"), _FLOAT, "VEC2")
    indices = body.add(faces.astype("<u4").reshape(-1), _UINT32, "SCALAR", _INDICES)
    surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    parts: dict[str, Any] = {}
    if texture is not None:
        surface["baseColorTexture"] = {"index": 0}
        parts["images"] = [{"bufferView": body.view(texture), "mimeType": "image/png"}]
        parts |= {"textures": [{"source": 0, "sampler": 0}], "samplers": [{}]}
    primitive = {"attributes": attributes, "indices": indices, "material": 0, "mode": 4}
    parts |= {
        "asset": {"version": "2.0", "generator": "ngp-warp"},
        "extensionsUsed": [_UNLIT],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"pbrMetallicRoughness": surface, "extensions": {_UNLIT: {}}}],
        "accessors": body.accessors,
        "bufferViews": body.views,
        "buffers": [{"byteLength": body.size}],
    }
    text = json.dumps(parts).encode()
    text += b" " * (-len(text) % 4)
    with path.open("wb") as file:
        total = 12 + 8 + len(text) + 8 + body.size
        file.write(struct.pack("<4sII", b"glTF", 2, total))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        file.write(struct.pack("<I4s", body.size, b"BIN\0"))
        for chunk in body.chunks:
            file.write(chunk)


class _Body:
    """The binary part, and what describes it."""

    def __init__(self):
        self.chunks: list[bytes] = []
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []
        self.size = 0

    def view(self, data: bytes, target: int | None = None) -> int:
        """Append bytes; return the number of their view."""
        view = {"buffer": 0, "byteOffset": self.size, "byteLength": len(data)}
        self.views.append(view if target is None else {**view, "target": target})
        padded = data + b"\0" * (-len(data) % 4)
        self.chunks.append(padded)
        self.size += len(padded)
        return len(self.views) - 1

    def add(
        self, values: np.ndarray, component: int, kind: str, target: int = _VERTICES, **more: Any
    ) -> int:
        """Append an array; return the number of its accessor."""
        view = self.view(values.tobytes(), target)
        accessor = {"bufferView": view, "componentType": component, "count": len(values)}
        self.accessors.append({**accessor, "type": kind, **more})
        return len(self.accessors) - 1


def _linear(colors: np.ndarray) -> np.ndarray:
    values = colors / 255.0
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
