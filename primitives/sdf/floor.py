"""The floor that an object stands on."""

from dataclasses import dataclass

import numpy as np

from ngp_warp.rays.cameras import CENTRE
from ngp_warp.rays.sphere_trace import SphereTracer

_FLOOR_GAP = 5e-4
"""The floor lies this far below the lowest point that was found."""
_FLOOR_RAYS = 384
"""Rays along a side of the grid that looks for the lowest point."""


@dataclass(frozen=True)
class Floor:
    """A plane below the object."""

    height: float
    """Along the up direction."""
    middle: np.ndarray
    """float32 [3]: below the object's middle."""

    def meet(self, up: np.ndarray, rays_o: np.ndarray, rays_d: np.ndarray) -> np.ndarray:
        """Return where rays from above meet the floor, float32 [n], infinite where they do not."""
        t = np.full(len(rays_o), np.inf, np.float32)
        fall = -(rays_d @ up)
        height = rays_o @ up - np.float32(self.height)
        meets = (fall > 1e-6) & (height > 0)
        t[meets] = height[meets] / fall[meets]
        return t


def find_floor(tracer: SphereTracer, up: np.ndarray) -> Floor | None:
    """Return the plane just below the object, or None where no ray from below meets one.

    Args:
        tracer: of the object's field.
        up: unit vector along an axis, that the floor is perpendicular to.
    """
    side = np.roll(up, 1)
    steps = (np.arange(_FLOOR_RAYS) + 0.5) / _FLOOR_RAYS - 0.5
    a, b = (g.ravel()[:, None] for g in np.meshgrid(steps, steps))
    origins = np.array(CENTRE) + a * side + b * np.roll(up, 2) - up
    rays_d = np.broadcast_to(up, origins.shape)
    trace = tracer.trace(origins, rays_d)
    if not trace.hit.any():
        return None
    points = origins[trace.hit] + trace.t[trace.hit, None] * up
    height = float((points @ up).min()) - _FLOOR_GAP
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    return Floor(height, middle.astype(np.float32))
