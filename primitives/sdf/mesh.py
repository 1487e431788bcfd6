"""From a mesh file to a clean surface in its own units, with a report of what it is like."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.sdf.clean import (
    drop_unused,
    first_of_each,
    has_area,
    has_three_corners,
    merge_vertices,
)
from ngp_warp.primitives.sdf.frame import Frame, bounds_of
from ngp_warp.primitives.sdf.readers import Soup, read_soup
from ngp_warp.primitives.sdf.report import Cleaning, MeshReport, inspect
from ngp_warp.primitives.sdf.topology import find_edges, label_bodies
from ngp_warp.primitives.sdf.winding import find_inside_out, find_minority, turn

_SHEET = 1e-6
"""Thickness in unit space below which a mesh is flat: float32 has no inside there."""


@dataclass(frozen=True)
class Surface:
    """A mesh that can be fitted."""

    vertices: np.ndarray
    """float64 [n, 3], input units; no two at one position, none unused."""
    faces: np.ndarray
    """int32 [m, 3], counterclockwise from outside where the mesh is closed; all have an area, and
    no two the same vertices."""
    report: MeshReport
    frame: Frame


def load_mesh(path: Path) -> Surface:
    """Read a mesh and mend what can be mended without moving a vertex.

    Vertices of one position are merged; faces without area and duplicates are removed; faces wound
    against the larger part of their neighbours are turned, and closed bodies that are inside out.
    Holes stay.

    Args:
        path: .obj, .ply, .stl, .off, .glb or .gltf.

    Raises:
        DataError: the file cannot be read, or holds no surface: points alone, values that are not
            finite, no face with an area, or a flat sheet.
        ResourceError: there is not enough memory.
    """
    soup = read_soup(path)
    try:
        return clean_surface(soup, str(path))
    except DataError as error:
        raise DataError(f"cannot fit {path}: {error}") from error


def clean_surface(soup: Soup, path: str) -> Surface:
    """Clean, mend and measure the triangles of a file; see `load_mesh`.

    Args:
        soup: the triangles.
        path: named in the report.

    Raises:
        DataError: they are no surface; the error names no path.
    """
    vertices, faces, merged = _merge(soup)
    points = Frame.around(bounds_of(vertices)).to_unit(vertices)
    whole = faces[has_three_corners(faces)]
    n_degenerate = len(faces) - len(whole)
    faces = first_of_each(whole) if len(whole) else whole
    n_duplicate = len(whole) - len(faces)
    keeps = has_area(points, faces) if len(whole) else np.zeros(0, bool)
    if not keeps.any():
        raise DataError(f"none of its {len(soup.faces)} faces has an area")
    _check_depth(points, faces[keeps])
    # Faces without area are still there: they hold their neighbours together.
    faces, mended = _mend(points, faces)
    cleaning = Cleaning(
        merged_vertices=merged,
        degenerate_faces=n_degenerate + int((~keeps).sum()),
        duplicate_faces=n_duplicate,
        polygons=soup.n_polygons,
        parts=soup.n_parts,
        ignored=soup.ignored,
        **mended,
    )
    final_vertices, final_faces = drop_unused(vertices, faces[keeps])
    frame = Frame.around(bounds_of(final_vertices))
    report = inspect(path, vertices, faces, keeps, frame, cleaning)
    return Surface(final_vertices, final_faces.astype(np.int32), report, frame)


def _merge(soup: Soup) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the used vertices, merged, the faces on them, and how many vertices that saved."""
    if not len(soup.vertices):
        raise DataError("it holds no vertices; a mesh with faces is needed")
    if not len(soup.faces):
        raise DataError(
            f"it holds {len(soup.vertices)} points and no faces; a mesh with faces is needed"
        )
    vertices, faces = drop_unused(soup.vertices, soup.faces)
    n_used = len(vertices)
    bad = int((~np.isfinite(vertices).all(axis=1)).sum())
    if bad:
        raise DataError(f"{bad} of its {n_used} vertices are not finite (NaN or infinity)")
    vertices, faces = merge_vertices(vertices, faces)
    return vertices, faces, n_used - len(vertices)


def _mend(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """Turn faces against their neighbours and bodies inside out; say how many.

    Args:
        points: float64 [n, 3], unit space.
        faces: int64 [m, 3].
    """
    edges = find_edges(faces)
    minority = find_minority(points, faces, edges)
    n_inconsistent = int(edges.is_inconsistent.sum())
    if minority.any():
        faces = turn(faces, minority)
        edges = find_edges(faces)
    body = label_bodies(len(faces), edges)
    inside_out = find_inside_out(points, faces, edges, body)
    counts = {
        "inconsistent_edges": n_inconsistent,
        "turned_faces": int(minority.sum()),
        "inside_out_bodies": len(inside_out),
    }
    return turn(faces, np.isin(body, inside_out)), counts


def _check_depth(points: np.ndarray, faces: np.ndarray) -> None:
    """Raise DataError where all faces lie in one plane.

    Args:
        points: float64 [n, 3], unit space.
        faces: int64 [m, 3].
    """
    used = points[np.unique(faces)]
    centred = used - used.mean(axis=0)
    normal = np.linalg.eigh(centred.T @ centred)[1][:, 0]
    thickness = float(np.ptp(centred @ normal))
    if thickness < _SHEET:
        raise DataError(
            "it is a flat sheet, which has no inside; give it a thickness of more than "
            f"{_SHEET:g} of its extent"
        )
