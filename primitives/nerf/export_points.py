"""Points on what the photos show, in the scene's units and axes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.config import check_range
from ngp_warp.errors import DataError
from ngp_warp.files import check_output
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.nerf.colors import to_srgb8
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.nerf.passes import density_normals
from ngp_warp.primitives.nerf.solid import DEFAULT_THRESHOLD, Bounds, region_of
from ngp_warp.primitives.nerf.traced import Shot
from ngp_warp.surfaces.point_files import write_points

DEFAULT_POINTS = 1_000_000
DEFAULT_OPACITY = 0.9
_RAYS, _RAYS_MIN = 2**16, 2**10
"""Drawn at once, at most and at least."""
_TRIES = 20
"""Rays for a point; what few rays meet has fewer points."""


def export_points(
    path: str | Path,
    field: Any,
    frame: Frame,
    shots: Sequence[Shot],
    *,
    n_points: int = DEFAULT_POINTS,
    opacity: float = DEFAULT_OPACITY,
    threshold: float = DEFAULT_THRESHOLD,
    bounds: Bounds | None = None,
    seed: int = 0,
    progress: Report = report_nothing,
) -> dict[str, Any]:
    """Write a cloud of points with normals and colours.

    Rays through random places of the photos end at their expected depth; a point is kept where the
    ray is opaque and the field dense there, not only before and behind (as on silhouettes). Its
    colour is the ray's.

    Args:
        path: ends in .ply.
        field: a ``RadianceField``.
        frame: from the scene to the box.
        shots: at least one; where rays begin.
        n_points: that are wanted; at most 20 rays are marched for each.
        opacity: least of a ray, above 0.
        threshold: least logarithm of the density at the point, for each side of the inner cube.
        bounds: limits in scene units; None: the box.
        seed: of the places in the photos.
        progress: told of the points that are found.

    Returns:
        n_points, n_rays, bounds and bytes.

    Raises:
        ConfigError: another extension, or a value out of range.
        DataError: no ray meets anything.
        ResourceError: the file cannot be written.
    """
    path = check_output(path, (".ply",))
    check_range("points", n_points, 1, 100_000_000)
    check_range("opacity", opacity, 1e-3, 1.0)
    limits = None if bounds is None else region_of(field, frame, 2, bounds)
    random = np.random.default_rng(seed)
    found: list[tuple[np.ndarray, ...]] = []
    n_found = n_rays = 0
    while n_found < n_points and n_rays < _TRIES * n_points:
        n = min(_RAYS, max(4 * (n_points - n_found), _RAYS_MIN), _TRIES * n_points - n_rays)
        points, forward, colors = _ends(field, frame, _draw(shots, n, random), opacity)
        if limits is not None:
            kept = limits.holds(points)
            points, forward, colors = points[kept], forward[kept], colors[kept]
        dense = np.log(np.maximum(field.density(points), 1e-30)) >= threshold
        found.append((points[dense], forward[dense], colors[dense]))
        n_found, n_rays = n_found + int(dense.sum()), n_rays + n
        progress(Progress(stage="write", step=min(n_found, n_points), total=n_points))
    points, forward, colors = (np.concatenate(part)[:n_points] for part in zip(*found, strict=True))
    if not len(points):
        raise DataError(
            f"none of {n_rays} rays ends in anything of opacity {opacity:g} and density "
            f"e^{threshold:g}; train longer, or give a lower --opacity or --threshold"
        )
    normals = _normals(field, points, forward)
    places = frame.to_scene(points)
    n_bytes = write_points(path, places, normals, to_srgb8(colors, field.settings.color_space))
    return {
        "n_points": len(points),
        "n_rays": n_rays,
        "bounds": [places.min(axis=0).tolist(), places.max(axis=0).tolist()],
        "bytes": n_bytes,
    }


def _draw(
    shots: Sequence[Shot], n: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return n rays through random places of random shots, float64 [n, 3], in the scene."""
    counts = np.bincount(random.integers(len(shots), size=n), minlength=len(shots))
    origins, directions = [], []
    for shot, count in zip(shots, counts.tolist(), strict=True):
        at = random.random((count, 2)) * (shot.width, shot.height)
        origin, found = shot.rays(at[:, 0], at[:, 1])
        exist = np.isfinite(found).all(axis=1)
        origins.append(np.broadcast_to(origin, found.shape)[exist])
        directions.append(found[exist])
    mixed = random.permutation(sum(map(len, origins)))
    return np.concatenate(origins)[mixed], np.concatenate(directions)[mixed]


def _ends(
    field: Any, frame: Frame, rays: tuple[np.ndarray, np.ndarray], opacity: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where opaque rays end in the box, their directions and their straight colours."""
    origins = frame.to_box(rays[0]).astype(np.float32)
    directions = rays[1].astype(np.float32)
    made = field.render_rays(origins, directions, background=(0.0, 0.0, 0.0))
    kept = (made.opacity >= opacity) & np.isfinite(made.depth)
    points = origins[kept] + made.depth[kept, None] * directions[kept]
    return points, directions[kept], made.color[kept] / made.opacity[kept, None]


def _normals(field: Any, points: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """Return unit normals that face the rays; where the density is even, against the ray."""
    parts = []
    for begin in range(0, len(points), _RAYS):
        part = slice(begin, begin + _RAYS)
        step = 2 * field.settings.min_step
        normals = density_normals(field.density, points[part], step)
        ray = forward[part]
        away = np.einsum("ij,ij->i", normals, ray) > 0
        normals[away] *= -1
        even = ~np.any(normals, axis=1)
        normals[even] = -ray[even]
        parts.append(normals)
    return np.concatenate(parts)
