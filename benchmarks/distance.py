"""``python -m benchmarks distance``: how many exact signed distances to a mesh a second."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from ngp_warp import launch
from ngp_warp.primitives.sdf.mesh import load_mesh
from ngp_warp.primitives.sdf.open3d_loader import load_open3d
from ngp_warp.primitives.sdf.samples import surface_points, uniform_points
from ngp_warp.primitives.sdf.sign import SIGNS
from ngp_warp.primitives.sdf.truth import SignedDistance

GOAL_FAR, GOAL_NEAR = 150_000, 1_500_000
"""Queries a second on two cores, with the method of watertight meshes."""
_RADIUS = 0.003
_REPETITIONS = 5


def run(path: Path, log2_points: int) -> dict[str, Any]:
    """Time queries with every sign method, and Open3D's signed distance as the peer.

    Args:
        path: a mesh.
        log2_points: log2 of the points of a query with "normal" and of the peer; the slower methods
            get an eighth of them.

    Raises:
        DataError: the mesh cannot be read.
    """
    surface = load_mesh(path)
    vertices = surface.frame.to_unit(surface.vertices).astype(np.float32)
    faces = surface.faces
    far = uniform_points(2**log2_points, 0)
    truths = {sign: SignedDistance(vertices, faces, sign, "cpu") for sign in SIGNS}
    near = surface_points(truths["normal"], len(far), 0)
    near += np.random.default_rng(0).uniform(-1, 1, near.shape).astype(np.float32) * (_RADIUS / 2)
    parts: dict[str, Any] = {}
    for sign, truth in truths.items():
        n = len(far) if sign == "normal" else len(far) // 8
        parts[f"{sign}, far"] = (n, lambda truth=truth, n=n: truth.query(far[:n]))
        parts[f"{sign}, near"] = (n, lambda truth=truth, n=n: truth.query(near[:n], _RADIUS))
    tensor = load_open3d().core.Tensor
    scene = load_open3d().t.geometry.RaycastingScene(nthreads=launch.num_threads())
    scene.add_triangles(tensor(vertices), tensor(faces.astype(np.uint32)))
    for name, points in (("far", far), ("near", near)):
        parts[f"Open3D, {name}"] = (
            len(points),
            lambda points=points: scene.compute_signed_distance(tensor(points)),
        )
    times = report.medians(
        report.interleave({name: work for name, (_, work) in parts.items()}, _REPETITIONS)
    )
    rates = {name: round(parts[name][0] / seconds) for name, seconds in times.items()}
    return {"mesh": path.name, "n_faces": len(faces), "queries_per_second": rates}


def describe(results: dict[str, Any]) -> str:
    """Return the results as plain text."""
    rates = results["queries_per_second"]
    rows = [["queries a second", "far", "near", "far, times Open3D", "near, times Open3D"]]
    for name in (*SIGNS, "Open3D"):
        far, near = rates[f"{name}, far"], rates[f"{name}, near"]
        ratios = far / rates["Open3D, far"], near / rates["Open3D, near"]
        rows.append([name, f"{far:,}", f"{near:,}", *(f"{ratio:.2f}" for ratio in ratios)])
    return (
        f"{results['mesh']}, {results['n_faces']:,} faces; far: points of the cube; near: within "
        f"{_RADIUS:g} of the surface, the search bounded so\n\n{report.table(rows)}\n\n"
        f"goals on two cores, with normals: far {GOAL_FAR:,}, near {GOAL_NEAR:,}"
    )
