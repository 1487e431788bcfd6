"""From a mesh file to a clean surface in its own units, with a report of what it is like."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError, ResourceError
from ngp_warp.primitives.sdf.clean import (
    area_vectors,
    drop_unused,
    find_seams,
    first_of_each,
    has_area,
    has_three_corners,
    mark,
    merge_vertices,
)
from ngp_warp.primitives.sdf.frame import Frame, bounds_of
from ngp_warp.primitives.sdf.readers import Soup, read_soup
from ngp_warp.primitives.sdf.report import Cleaning, MeshReport, inspect
from ngp_warp.primitives.sdf.topology import Edges, find_edges
from ngp_warp.primitives.sdf.winding import mend_winding

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
    except MemoryError as error:
        raise ResourceError(
            f"not enough memory for the {len(soup.faces)} faces of {path}"
        ) from error


def clean_surface(soup: Soup, path: str) -> Surface:
    """Clean, mend and measure the triangles of a file; see `load_mesh`.

    Args:
        soup: the triangles.
        path: named in the report.

    Raises:
        DataError: they are no surface; the error names no path.
    """
    vertices, faces, merged = _merge(soup)
    rough = Frame.around(bounds_of(vertices))
    n_merged = len(vertices)
    vertices, faces, edges, n_removed = _weld(vertices, rough, faces)
    points = rough.to_unit(vertices)
    vectors = area_vectors(points, faces)
    keeps = has_area(points, faces, vectors)
    if not keeps.any():
        raise DataError(f"none of its {len(soup.faces)} faces has an area")
    _check_depth(points[mark(len(points), faces[keeps])])
    # Faces without area are still there: they hold their neighbours together.
    mended = mend_winding(points, faces, vectors, edges)
    final_vertices, final_faces = drop_unused(vertices, mended.faces[keeps])
    done = Cleaning(
        merged_vertices=merged,
        welded_vertices=n_merged - len(vertices),
        degenerate_faces=n_removed[0] + int((~keeps).sum()),
        duplicate_faces=n_removed[1],
        polygons=soup.n_polygons,
        parts=soup.n_parts,
        ignored=soup.ignored,
        **mended.counts,
    )
    report = inspect(path, final_vertices, mended, keeps, rough.scale, done)
    frame = Frame.around(bounds_of(final_vertices))
    return Surface(final_vertices, final_faces.astype(np.int32), report, frame)


def _weld(
    vertices: np.ndarray, frame: Frame, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Edges, tuple[int, int]]:
    """Close seams, and remove faces of less than three vertices and duplicates.

    Args:
        vertices: float64 [n, 3], input units.
        frame: of the vertices.
        faces: int64 [m, 3].

    Returns:
        The vertices that are left, the faces on them, their edges, and how many faces of either
        kind were removed.

    Raises:
        DataError: no face has three different vertices.
    """
    n_faces, n_duplicates = len(faces), 0
    while True:  # each round merges at least two vertices
        whole = faces[has_three_corners(faces)]
        if not len(whole):
            raise DataError(f"none of its {n_faces} faces has an area")
        faces = first_of_each(whole)
        n_duplicates += len(whole) - len(faces)
        edges = find_edges(faces)
        label = find_seams(frame.to_unit(vertices), edges)
        if label is None:
            return vertices, faces, edges, (n_faces - n_duplicates - len(faces), n_duplicates)
        vertices, faces = vertices[np.unique(label, return_index=True)[1]], label[faces]


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


def _check_depth(points: np.ndarray) -> None:
    """Raise DataError where points [n, 3] of unit space lie in one plane."""
    centred = points - points.mean(axis=0)
    normal = np.linalg.eigh(centred.T @ centred)[1][:, 0]
    if float(np.ptp(centred @ normal)) < _SHEET:
        raise DataError(
            "it is a flat sheet, which has no inside; give it a thickness of more than "
            f"{_SHEET:g} of its extent"
        )
