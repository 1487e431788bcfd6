"""What a mesh is like: measured after the cleaning, with what the cleaning did."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ngp_warp.primitives.sdf.clean import lengths, mark
from ngp_warp.primitives.sdf.frame import bounds_of
from ngp_warp.primitives.sdf.topology import count_holes
from ngp_warp.primitives.sdf.winding import Mended, body_volumes


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """What was done to the triangles of a file."""

    merged_vertices: int
    """Vertices that repeated another's position exactly."""
    welded_vertices: int
    """Vertices on open borders that were a rounding error away from another, merged."""
    degenerate_faces: int
    """Faces without area, removed."""
    duplicate_faces: int
    """Faces on the vertices of another, removed."""
    inconsistent_edges: int
    """Edges in the file whose two faces were wound against each other."""
    turned_faces: int
    """Faces turned to agree with the larger part of their neighbours."""
    inside_out_bodies: int
    """Closed bodies that were inside out, and turned."""
    polygons: int
    """Faces of more than three corners, triangulated."""
    parts: int
    """Parts of a scene, merged."""
    ignored: tuple[str, ...]
    """What else the file holds, in words."""


@dataclass(frozen=True, kw_only=True)
class MeshReport(Cleaning):
    """What a mesh is like; plain JSON values, lengths in input units."""

    path: str
    n_vertices: int
    n_faces: int
    bounds: tuple[tuple[float, float, float], tuple[float, float, float]]
    extents: tuple[float, float, float]
    watertight: bool
    """Every edge has exactly two faces. Faces without area count: they close cracks without width
    between their neighbours."""
    closed: bool
    """At every edge as many faces are wound one way as the other: a watertight mesh of consistent
    winding, or several that touch along edges. It has an inside."""
    winding_consistent: bool
    """The faces at every edge agree on which side is outside, after the mending."""
    boundary_edges: int
    non_manifold_edges: int
    """Edges of three faces or more."""
    n_holes: int
    """Loops of boundary edges."""
    n_bodies: int
    """Parts that no edge joins."""
    area: float
    volume: float | None
    """Enclosed by a watertight mesh of consistent winding; else None."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = asdict(self)
        for name in ("bounds", "extents", "ignored"):
            values[name] = [list(v) if isinstance(v, tuple) else v for v in values[name]]
        return values

    def lines(self) -> list[str]:
        """Return the report for people, one fact a line, what is unusual after what is always."""
        x, y, z = self.extents
        lines = [
            f"{self.path}: {_count(self.n_faces, 'face')}, {_count(self.n_vertices, 'vertex')}, "
            f"{_count(self.n_bodies, 'body')}",
            f"extents {x:g} x {y:g} x {z:g}",
            self._surface_line(),
        ]
        return [*lines, *self._fault_lines(), *self._mended_lines()]

    def _surface_line(self) -> str:
        if not self.watertight:
            parts = [
                _count(self.n_holes, "hole") if self.boundary_edges else "",
                _count(self.boundary_edges, "boundary edge") if self.boundary_edges else "",
                f"{_count(self.non_manifold_edges, 'edge')} of three faces or more"
                if self.non_manifold_edges
                else "",
            ]
            closed = "; closed all the same" if self.closed else ""
            return f"not watertight: {', '.join(part for part in parts if part)}{closed}"
        return "watertight" + ("" if self.volume is None else f", volume {self.volume:g}")

    def _fault_lines(self) -> list[str]:
        if self.winding_consistent:
            return []
        return ["inconsistent winding: its faces do not agree on which side is outside"]

    def _mended_lines(self) -> list[str]:
        facts = [
            (self.inside_out_bodies, "inside out: turned {}", "closed body"),
            (self.turned_faces, "inconsistent winding mended: turned {}", "face"),
            (self.degenerate_faces, "removed {} without area", "face"),
            (self.duplicate_faces, "removed {}", "duplicate face"),
            (self.merged_vertices, "merged {} of equal position", "vertex"),
            (self.welded_vertices, "merged {} a rounding error apart", "vertex"),
            (self.polygons, "triangulated {}", "polygon"),
            (self.parts if self.parts > 1 else 0, "merged {} of a scene", "part"),
        ]
        lines = [text.format(_count(n, noun)) for n, text, noun in facts if n]
        return lines + ([f"ignored: {', '.join(self.ignored)}"] if self.ignored else [])


def inspect(
    path: str, vertices: np.ndarray, mended: Mended, keeps: np.ndarray, scale: float, done: Cleaning
) -> MeshReport:
    """Measure a mesh.

    Args:
        path: of the file.
        vertices: float64 [n, 3], those in use, input units.
        mended: the faces, with those without area.
        keeps: bool [m], which faces have an area.
        scale: unit lengths per input unit in ``mended``.
        done: what was done to the file's triangles.
    """
    edges, body = mended.edges, mended.body
    watertight = bool(edges.is_manifold.all())
    consistent = not bool(((edges.balance != 0) & (edges.count % 2 == 0)).any())
    volume = None
    if watertight and consistent:
        volumes = body_volumes(mended.points, mended.faces, mended.vectors, body)
        volume = float(volumes.sum()) / scale**3
    low, high = ((x, y, z) for x, y, z in bounds_of(vertices).tolist())
    return MeshReport(
        path=path,
        n_vertices=len(vertices),
        n_faces=int(keeps.sum()),
        bounds=(low, high),
        extents=(high[0] - low[0], high[1] - low[1], high[2] - low[2]),
        watertight=watertight,
        closed=not edges.balance.any(),
        winding_consistent=consistent,
        boundary_edges=int(edges.is_boundary.sum()),
        non_manifold_edges=int((edges.count > 2).sum()),
        n_holes=count_holes(edges),
        n_bodies=int(mark(int(body.max()) + 1, body[keeps]).sum()),
        area=float(lengths(mended.vectors).sum()) / scale**2,
        volume=volume,
        **asdict(done),
    )


_PLURALS = {"vertex": "vertices", "body": "bodies", "closed body": "closed bodies"}


def _count(n: int, noun: str) -> str:
    """Return a number with its noun: "1 face", "2,500 faces"."""
    return f"{n:,} {noun if n == 1 else _PLURALS.get(noun, noun + 's')}"
