"""How the cameras of a scene stand, and where its middle is.

Three kinds of capture are told apart by the point nearest to all optical axes:
- around something: the axes meet in front of the cameras. That point is the middle.
- forwards: they run side by side. The middle is the sparse points' median, or lies ahead.
- outwards: they meet behind or between the cameras. The middle is that of the cameras.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ngp_warp.primitives.nerf.types import Scene

UNKNOWN = 2.0
"""Without points: how many times as far as the cameras the background is taken to lie."""
_ROUNDS = 20
# Smallest eigenvalue of the mean of I - d d^T: the variance of directions across their mean. Below
# it (axes within about 8 degrees) the point where they meet is a matter of noise.
_PARALLEL = 0.02

Capture = Literal["around", "forwards", "outwards"]


@dataclass(frozen=True)
class Layout:
    """How a scene's cameras stand, in scene units."""

    capture: Capture
    centre: np.ndarray
    """float64 [3]: what comes to the middle of the box."""
    reach: float
    """Distance from the middle that the scene is scaled by: of the cameras, or of what they see."""


def find_layout(scene: Scene) -> Layout:
    """Return where the middle of a scene is, from its cameras and points."""
    poses = np.stack([view.pose for view in scene.views])
    positions, axes = poses[:, :, 3], -poses[:, :, 2]
    points = known_points(scene)
    centre, spread = nearest_to_axes(positions, axes)
    ahead = np.mean(np.einsum("ij,ij->i", centre - positions, axes) > 0)
    if spread >= _PARALLEL and ahead >= 0.75:
        return Layout("around", centre, _median_distance(positions, centre))
    # The length of the mean direction is 1 for parallel axes and 0 for axes to all sides.
    if np.linalg.norm(axes.mean(axis=0)) > 0.5:
        centre = np.median(points, axis=0) if points is not None else _ahead(positions, axes)
        return Layout("forwards", centre, _median_distance(positions, centre))
    centre = np.median(positions, axis=0)
    if points is not None:
        return Layout("outwards", centre, _median_distance(points, centre))
    return Layout("outwards", centre, UNKNOWN * _median_distance(positions, centre))


def known_points(scene: Scene) -> np.ndarray | None:
    """Return points [n, 3] of which the scene is known to have some, None where none are known.

    The sparse points; else, of a scene with near and far, points on the axes between them.
    """
    if scene.points is not None:
        return scene.points
    if scene.near is None or scene.far is None:
        return None
    poses = np.stack([view.pose for view in scene.views])
    # Even in 1 / distance, as the things that pictures show are.
    depths = 1 / np.linspace(1 / scene.near, 1 / scene.far, 16)
    return (poses[:, None, :, 3] - depths[:, None] * poses[:, None, :, 2]).reshape(-1, 3)


def across_axes(axes: np.ndarray) -> np.ndarray:
    """Return I - d d^T of unit directions [n, 3], float64 [n, 3, 3]: what lies across a line.

    The point p that is nearest to lines through p_i solves sum across_i p = sum across_i p_i.
    """
    return np.eye(3) - axes[:, :, None] * axes[:, None, :]


def nearest_to_axes(positions: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the point with the least sum of distances to lines, and how well it is determined.

    Least squares, each line weighted anew by 1 / distance: lines that miss the point count less.

    Args:
        positions: [n, 3], a point of each line.
        axes: [n, 3], unit directions.

    Returns:
        float64 [3], and the smallest eigenvalue of the mean of I - d d^T, from 0 to 2/3.
    """
    across = across_axes(axes)
    spread = float(np.linalg.eigvalsh(across.mean(axis=0))[0])
    origin = positions.mean(axis=0)
    moved = positions - origin
    size = float(np.abs(moved).max()) or 1.0
    weights = np.ones(len(positions))
    point = np.zeros(3)
    for _ in range(_ROUNDS):
        a = np.einsum("n,nij->ij", weights, across)
        b = np.einsum("n,nij,nj->i", weights, across, moved)
        point = np.linalg.lstsq(a, b, rcond=1e-12)[0]
        distance = np.linalg.norm(np.einsum("nij,nj->ni", across, point - moved), axis=1)
        weights = 1 / np.maximum(distance, 1e-3 * size)
    return point + origin, spread


def _ahead(positions: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return a point ahead of cameras that look one way, three times as far as they stand apart."""
    middle = np.median(positions, axis=0)
    mean = axes.mean(axis=0)
    apart = _median_distance(positions, middle)
    return middle + 3 * apart * mean / np.linalg.norm(mean)


def _median_distance(points: np.ndarray, centre: np.ndarray) -> float:
    """Return the median distance; one unit where all points are at the centre."""
    distance = float(np.median(np.linalg.norm(points - centre, axis=1)))
    return distance if distance > 0 else 1.0
