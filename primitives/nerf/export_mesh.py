"""The surface of a radiance field as a mesh with its colours, in the scene's units and axes."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import ConfigError, DataError
from ngp_warp.files import check_output
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.nerf.colors import to_srgb8
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.nerf.passes import density_normals
from ngp_warp.primitives.nerf.solid import DEFAULT_THRESHOLD, Bounds, Cells, Solid, region_of
from ngp_warp.surfaces import texture as textures
from ngp_warp.surfaces.extract import extract
from ngp_warp.surfaces.mesh_files import MESH_SUFFIXES, write_mesh
from ngp_warp.surfaces.normals import gradient_normals
from ngp_warp.surfaces.pieces import is_closed
from ngp_warp.surfaces.trim import trim

DEFAULT_RESOLUTION = 256
_OPAQUE = 0.5
_MANY_FACES = 100_000
"""More than these xatlas works on for minutes."""


def export_mesh(
    path: str | Path,
    field: Any,
    frame: Frame,
    *,
    resolution: int = DEFAULT_RESOLUTION,
    threshold: float = DEFAULT_THRESHOLD,
    bounds: Bounds | None = None,
    largest_only: bool = False,
    n_faces: int | None = None,
    texture: int | None = None,
    progress: Report = report_nothing,
) -> dict[str, Any]:
    """Write a level set of the density as a mesh with normals and colours.

    A place's colour is what is seen of it from straight above, along its normal.

    Args:
        path: ends in .obj, .ply, .stl (without colours) or .glb.
        field: a ``RadianceField``.
        frame: from the scene to the box.
        resolution: cells along the longest side of the limits.
        threshold: natural logarithm of the density at the surface, for each side of the inner cube.
        bounds: limits in scene units; None: the inner cube. Where they cut a body it is closed.
        largest_only: keep only the piece of most faces.
        n_faces: decimate to about so many; None: keep all.
        texture: of .obj and .glb: a texture of about so many texels a side instead of colours at
            vertices; None: none.
        progress: told of the work.

    Returns:
        n_vertices and n_faces (as written), n_pieces, n_dropped_pieces, watertight (before cuts for
        a texture), bounds, threshold, resolution, voxel_size, n_evaluated, with a texture its
        texture_width and texture_height; and bytes.

    Raises:
        ConfigError: an extension, or an option that is out of range or does not go with it.
        DataError: the field is nowhere so dense.
        ResourceError: too little memory, a package that is missing, or no place for the file.
    """
    path = check_output(path, MESH_SUFFIXES)
    if texture is not None:
        if path.suffix.lower() not in textures.TEXTURED_SUFFIXES:
            raise ConfigError(f"--texture is for obj and glb, not for {path.name}")
        textures.check_texture(texture)
    region = region_of(field, frame, resolution, bounds)
    solid = Solid(field, region, threshold, Cells(field))
    vertices, faces, n_evaluated = _surface(solid, progress)
    kept = trim(vertices, faces, largest_only=largest_only, n_faces=n_faces)
    vertices, faces = kept.vertices, kept.faces
    step = max(region.cell, 2 * field.settings.min_step)
    normals = gradient_normals(
        vertices, faces, lambda points: density_normals(field.density, points, step)
    )
    places = frame.to_scene(vertices)
    report: dict[str, Any] = {
        "n_vertices": len(vertices),
        "n_faces": len(faces),
        "n_pieces": len(kept.pieces),
        "n_dropped_pieces": kept.n_dropped,
        "watertight": is_closed(faces),
        "bounds": [places.min(axis=0).tolist(), places.max(axis=0).tolist()],
        "threshold": threshold,
        "resolution": resolution,
        "voxel_size": region.cell / frame.scale,
        "n_evaluated": n_evaluated,
    }
    if texture is not None:
        return report | _write_textured(
            path,
            (vertices, faces, normals),
            places,
            texture,
            lambda at, up: surface_colors(field, at, up, step),
            progress,
        )
    stl = path.suffix.lower() == ".stl"
    colors = None if stl else surface_colors(field, vertices, normals, step)
    return {**report, "bytes": write_mesh(path, places, faces, normals, colors)}


def surface_colors(field: Any, points: np.ndarray, normals: np.ndarray, lift: float) -> np.ndarray:
    """Return the colours uint8 sRGB [n, 3] of places of a surface, seen along their normals.

    Rays begin above the surface and end where the field is opaque: the level set lies in its skin,
    whose own colour nothing has taught where it is thin. Where a ray meets too little, that colour
    is taken all the same.

    Args:
        field: a ``RadianceField``.
        points: [n, 3] in the box.
        normals: [n, 3], outward unit vectors.
        lift: height of the rays' first sample, in sides of the box.
    """
    directions = np.ascontiguousarray(-normals, np.float32)
    begin = np.float32(field.settings.near + lift)
    origins = (points - begin * directions).astype(np.float32)
    made = field.render_rays(origins, directions, background=(0.0, 0.0, 0.0))
    colors = made.color / np.maximum(made.opacity[:, None], 1e-4)
    thin = np.flatnonzero(made.opacity < _OPAQUE)
    if len(thin):
        at = np.ascontiguousarray(points[thin], np.float32)
        colors[thin] = field.color(at, directions[thin])
    return to_srgb8(colors, field.settings.color_space)


def _surface(solid: Solid, progress: Report) -> tuple[np.ndarray, np.ndarray, int]:
    region, blocks = solid.region, solid.first_blocks()
    advice = (
        f"the density is nowhere above e^{solid.threshold:g} for each side of the inner cube; "
        "train longer, or give a lower --threshold or another --box"
    )
    if not blocks.any():
        raise DataError(advice)
    try:
        mesh = extract(
            solid, region.resolution, blocks=blocks, progress=progress, **region.corners()
        )
    except DataError as error:
        if "no surface" in str(error):
            raise DataError(advice) from error
        raise
    return mesh.vertices, mesh.faces, mesh.n_evaluated


def _write_textured(
    path: Path,
    mesh: tuple[np.ndarray, np.ndarray, np.ndarray],
    places: np.ndarray,
    side: int,
    paint: textures.Paint,
    progress: Report,
) -> dict[str, Any]:
    vertices, faces, normals = mesh
    message = f"cutting {len(faces)} faces open"
    if len(faces) > _MANY_FACES:
        message += ", which takes minutes; --faces makes them fewer"
    progress(Progress(stage="write", message=message))
    flat = textures.unwrap(vertices, faces, side)

    def done(share: float) -> None:
        progress(Progress(stage="write", step=math.floor(100 * share), total=100))

    colors = textures.bake(flat, vertices, normals, paint, done)
    n_bytes = textures.write_textured(path, flat, places, normals, colors)
    return {
        "n_vertices": len(flat.vertices),
        "texture_width": flat.width,
        "texture_height": flat.height,
        "bytes": n_bytes,
    }
