"""Questions to a fitted mesh in its own units."""

from typing import Any

import numpy as np

from ngp_warp.errors import ShapeError
from ngp_warp.field import as_numpy, check_points
from ngp_warp.primitives.sdf.frame import Frame
from ngp_warp.rays.sphere_trace import SphereTracer, Trace


def frame_of(run: Any) -> Frame:
    """Return the map between a run's mesh and the unit cube."""
    return Frame.from_dict(run.header["data"]["frame"])


def query(run: Any, points: np.ndarray, gradient: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Return signed distances and, where asked for, their gradients, in the mesh's units.

    The field is trained in the unit cube, of which the mesh's largest extent fills nine tenths.
    Outside of it the distance to the cube is added to the value at its nearest point: an upper
    bound of the true distance, which it approaches far away.

    Args:
        run: of a mesh.
        points: real [n, 3], in the mesh's units.
        gradient: whether gradients are wanted.

    Returns:
        float32 [n, 1], negative inside; and float32 [n, 1, 3] or None.

    Raises:
        ShapeError: another shape, or values that are no finite numbers.
    """
    check_points(points)
    frame = frame_of(run)
    unit = frame.to_unit(points)
    nearest = np.clip(unit, 0.0, 1.0)
    way = unit - nearest
    outside = np.linalg.norm(way, axis=1, keepdims=True)
    if not gradient:
        values = run.fitted.query(nearest) + outside
        return frame.distance_from_unit(values).astype(np.float32), None
    values, jacobian = run.fitted.value_and_gradient(nearest)
    # along an axis on which the point was moved to the cube, the nearest point stays
    jacobian = np.where(way[:, None] != 0, 0.0, jacobian)
    jacobian = jacobian + (way / np.maximum(outside, np.finfo(float).tiny))[:, None]
    # a length over a length: the same in all units
    values = frame.distance_from_unit(values + outside)
    return values.astype(np.float32), jacobian.astype(np.float32)


def trace(run: Any, rays_o: Any, rays_d: Any) -> Trace:
    """Return where rays meet the surface; see ``ngp_warp.run.Run.sphere_trace``."""
    frame = frame_of(run)
    origins, directions = (as_numpy(rays)[0] for rays in (rays_o, rays_d))
    if any(rays.dtype.kind not in "fiu" for rays in (origins, directions)):
        raise ShapeError(f"rays must be numbers, got {origins.dtype} and {directions.dtype}")
    if origins.ndim != 2 or origins.shape[1:] != (3,) or directions.shape != origins.shape:
        raise ShapeError(
            f"rays must be two arrays [n, 3], got {list(origins.shape)} and "
            f"{list(directions.shape)}"
        )
    origins, directions = origins.astype(np.float64), directions.astype(np.float64)
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    if not (np.isfinite(origins).all() and np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ShapeError("rays must be finite, and their directions not zero")
    # its launches are recorded once, as the field is loaded once
    if "tracer" not in run.__dict__:
        run.__dict__["tracer"] = SphereTracer(run.fitted)
    unit = run.__dict__["tracer"].trace(
        frame.to_unit(origins).astype(np.float32), (directions / lengths).astype(np.float32)
    )
    return Trace(frame.distance_from_unit(unit.t), unit.hit, unit.clearance)
