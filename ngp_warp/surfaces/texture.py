"""A texture for a mesh: an atlas of its charts by xatlas, baked from a function of place."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ngp_warp.config import check_range
from ngp_warp.errors import DataError, ResourceError
from ngp_warp.files import atomic_path, check_output
from ngp_warp.surfaces.gltf import write_glb
from ngp_warp.surfaces.mesh_files import number_format, write_lines

TEXTURED_SUFFIXES = (".obj", ".glb")

SIDE_MAX = 8192
_FILLED = 0.6
"""Share of an atlas that charts fill, about: xatlas packs so many."""
_PADDING = 2
_AT_ONCE = 1 << 20
"""Texels that are looked at at once."""
_EDGE = 1e-6

Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Points [n, 3] and unit normals [n, 3], float32 -> colours uint8 [n, 3], sRGB."""


@dataclass(frozen=True)
class Unwrapped:
    """A mesh cut open so that it lies flat."""

    vertices: np.ndarray
    """int64 [k]: for each of its vertices the original's; those on cuts are there several times."""
    faces: np.ndarray
    """int32 [m, 3]."""
    uv: np.ndarray
    """float32 [k, 2] in 0..1, from the texture's top left."""
    width: int
    """Texels."""
    height: int
    """Texels."""


def check_texture(side: int) -> None:
    """Raise unless textures of this size can be made: ask before the work.

    Raises:
        ConfigError: a size out of range.
        ResourceError: the package that cuts meshes is not installed.
    """
    check_range("texture", side, 16, SIDE_MAX)
    _require_xatlas()


def unwrap(vertices: np.ndarray, faces: np.ndarray, side: int) -> Unwrapped:
    """Cut a mesh into charts that fill a texture of about side x side texels.

    Args:
        vertices: [n, 3].
        faces: [m, 3].
        side: texels.

    Raises:
        ConfigError: a size out of range.
        DataError: a mesh without area, or that cannot be cut.
        ResourceError: xatlas is missing.
    """
    check_texture(side)
    xatlas = _require_xatlas()
    # float32, and near the origin
    middle, size = vertices.mean(axis=0), float(np.ptp(vertices, axis=0).max()) or 1.0
    points = np.ascontiguousarray((vertices - middle) / size, np.float32)
    a, b, c = (points[faces[:, i]].astype(np.float64) for i in range(3))
    area = float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 2
    if not area > 0:
        raise DataError("a mesh without area has no texture")
    atlas = xatlas.Atlas()
    atlas.add_mesh(points, np.ascontiguousarray(faces, np.uint32))
    packing = xatlas.PackOptions()
    packing.padding, packing.bilinear = _PADDING, True
    packing.texels_per_unit = math.sqrt(_FILLED * side * side / area)
    packing.max_chart_size = side
    atlas.generate(xatlas.ChartOptions(), packing)
    which, corners, uv = atlas[0]
    if not (atlas.width and atlas.height and len(corners) == len(faces)):
        raise DataError("xatlas could not cut the mesh; decimate it with --faces")
    return Unwrapped(
        which.astype(np.int64),
        corners.astype(np.int32),
        np.clip(uv, 0, 1).astype(np.float32),
        int(atlas.width),
        int(atlas.height),
    )


def bake(
    flat: Unwrapped,
    vertices: np.ndarray,
    normals: np.ndarray,
    paint: Paint,
    done: Callable[[float], None] = lambda share: None,
) -> np.ndarray:
    """Return the texture, uint8 [height, width, 3]: colours at the places that texels stand for.

    Texels beside a chart get the colour of the nearest one in it, so that no seam shows.

    Args:
        flat: from ``unwrap``.
        vertices: [n, 3] of the original mesh, where ``paint`` is defined.
        normals: [n, 3].
        paint: gives colours.
        done: told the share that is done.
    """
    from scipy.ndimage import distance_transform_edt

    texture = np.zeros((flat.height, flat.width, 3), np.uint8)
    covered = np.zeros((flat.height, flat.width), bool)
    # texel (i, j) has its centre at (j + 0.5, i + 0.5)
    corners = flat.uv[flat.faces].astype(np.float64) * (flat.width, flat.height) - 0.5
    low = np.maximum(np.ceil(corners.min(axis=1) - _EDGE), 0).astype(np.int64)
    high = np.floor(corners.max(axis=1) + _EDGE).astype(np.int64)
    high = np.minimum(high, (flat.width - 1, flat.height - 1))
    counts = np.prod(np.maximum(high - low + 1, 0), axis=1)
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        base = ends[begin] - counts[begin]
        end = max(int(np.searchsorted(ends, base + _AT_ONCE, side="right")), begin + 1)
        part = slice(begin, end)
        which, x, y, weights = _inside(corners[part], low[part], high[part], counts[part])
        at = flat.vertices[flat.faces[part][which]]
        places = np.einsum("nk,nki->ni", weights, vertices[at]).astype(np.float32)
        upright = np.einsum("nk,nki->ni", weights, normals[at].astype(np.float64))
        length = np.linalg.norm(upright, axis=1, keepdims=True)
        upright = (upright / np.maximum(length, 1e-12)).astype(np.float32)
        if len(places):
            texture[y, x] = paint(places, upright)
        covered[y, x] = True
        begin = end
        done(end / len(counts))
    if not covered.any():
        raise DataError("no texel lies in the mesh's charts; give a larger --texture")
    nearest = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    return texture[tuple(nearest)]  # type: ignore[arg-type]


def _inside(
    corners: np.ndarray, low: np.ndarray, high: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the texels in triangles: which triangle, x, y [n] and weights of its corners [n, 3].

    Args:
        corners: [m, 3, 2].
        low: [m, 2], first texel of the box around each.
        high: [m, 2], its last.
        counts: [m], texels in it.
    """
    which = np.repeat(np.arange(len(counts)), counts)
    rank = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    widths = (high - low + 1)[which, 0]
    x, y = (
        low[which, 0] + rank % np.maximum(widths, 1),
        low[which, 1] + rank // np.maximum(widths, 1),
    )
    a = corners[which, 0]
    ab, ac = corners[which, 1] - a, corners[which, 2] - a
    to = np.stack([x, y], axis=1) - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        v = (to[:, 0] * ac[:, 1] - to[:, 1] * ac[:, 0]) / area
        w = (ab[:, 0] * to[:, 1] - ab[:, 1] * to[:, 0]) / area
    weights = np.stack([1 - v - w, v, w], axis=1)
    with np.errstate(invalid="ignore"):
        kept = np.all(weights >= -_EDGE, axis=1) & (np.abs(area) > 0)
    return which[kept], x[kept], y[kept], weights[kept]


def write_textured(
    path: str | Path,
    flat: Unwrapped,
    vertices: np.ndarray,
    normals: np.ndarray,
    texture: np.ndarray,
) -> int:
    """Write a mesh with its texture: .glb holds both; .obj lies beside a .mtl and a .png.

    Args:
        path: ends in .obj or .glb.
        flat: from ``unwrap``.
        vertices: [n, 3] of the original mesh.
        normals: [n, 3].
        texture: uint8 [height, width, 3], sRGB.

    Returns:
        The size of all files in bytes.

    Raises:
        ConfigError: another extension.
        ResourceError: the folder is missing or cannot be written, or the disk is full.
    """
    from PIL import Image

    path = check_output(path, TEXTURED_SUFFIXES)
    memory = io.BytesIO()
    Image.fromarray(texture).save(memory, format="PNG")
    picture = memory.getvalue()
    points, upright = vertices[flat.vertices], normals[flat.vertices]
    if path.suffix.lower() == ".glb":
        with atomic_path(path) as temporary:
            write_glb(temporary, points, flat.faces, normals=upright, uv=flat.uv, texture=picture)
            return temporary.stat().st_size
    # the mesh last: where it is, what it names is there too
    material = path.with_suffix(".mtl")
    with atomic_path(path.with_suffix(".png")) as temporary:
        temporary.write_bytes(picture)
    with atomic_path(material) as temporary:
        temporary.write_text(f"newmtl surface\nKa 0 0 0\nKd 1 1 1\nmap_Kd {path.stem}.png\n")
    with atomic_path(path) as temporary:
        _write_obj(temporary, flat, points, upright, material.name)
        n_bytes = temporary.stat().st_size
    return n_bytes + material.stat().st_size + len(picture)


def _write_obj(
    path: Path, flat: Unwrapped, vertices: np.ndarray, normals: np.ndarray, material: str
) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(f"mtllib {material}\nusemtl surface\n")
        write_lines(file, "v" + f" {number_format(vertices)}" * 3 + "\n", vertices)
        # text counts a texture's rows from below
        write_lines(file, "vt %.7f %.7f\n", flat.uv * (1, -1) + (0, 1))
        write_lines(file, "vn %.6g %.6g %.6g\n", normals)
        corners = np.repeat(flat.faces.astype(np.int64) + 1, 3, axis=1)
        write_lines(file, "f %d/%d/%d %d/%d/%d %d/%d/%d\n", corners)


def _require_xatlas():
    try:
        import xatlas
    except ImportError as error:
        raise ResourceError(
            "textures need the package xatlas, which is not installed; "
            'pip install "ngp-warp[texture]"'
        ) from error
    return xatlas
