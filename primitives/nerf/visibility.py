"""Cells of the occupancy grid that cameras see; what no camera sees cannot be trained."""

from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.primitives.nerf.kernels import visibility as kernels
from ngp_warp.primitives.nerf.views import ViewArrays
from ngp_warp.radiance.settings import CELLS
from ngp_warp.rays.lenses import Lens

_BLOCKS = 64
"""Along an axis of a cascade: 2 x 2 x 2 cells are seen or not together."""
_EDGE = 48
"""Directions on a side of a picture."""


def visible_cells(views: ViewArrays, n_cascades: int, *, near: float = 0.0) -> np.ndarray:
    """Return the cells that at least one camera may see.

    Conservative: every cell that a ray of a photo passes beyond ``near`` is among them, and some
    beside the edges of the pictures are, too. What stands in between hides nothing.

    Args:
        views: their poses and lenses.
        n_cascades: cubes of the grid, the largest of which is the box.
        near: distance at which rays begin, sides of the box.

    Returns:
        bool [n_cascades, 128, 128, 128], cascade k (of side 2^(k + 1 - n_cascades)) first, then
        z, y and x.
    """
    edges = {lens: _edge(lens) for lens in set(views.lenses_in_memory)}
    lists = [edges[lens] for lens in views.lenses_in_memory]
    offsets = np.cumsum([0, *(len(e) for e, _, _ in lists)])
    vec3: Any = wp.vec3
    device = views.device
    args = [
        views.poses,
        views.lenses,
        wp.array(np.concatenate([e for e, _, _ in lists]), dtype=vec3, device=device),
        wp.array(offsets, dtype=wp.int32, device=device),
        wp.array([s for _, s, _ in lists], dtype=wp.float32, device=device),
        wp.array([r for _, _, r in lists], dtype=wp.float32, device=device),
        float(near),
        _BLOCKS,
    ]
    seen = wp.zeros(_BLOCKS**3, dtype=wp.uint8, device=device)
    cells = np.empty((n_cascades, CELLS, CELLS, CELLS), bool)
    n = CELLS // _BLOCKS
    for cascade in range(n_cascades):
        side = 2.0 ** (cascade + 1 - n_cascades)
        launch.launch(kernels.visible_kernel, _BLOCKS**3, [*args, side, seen], device)
        blocks = seen.numpy().reshape(_BLOCKS, _BLOCKS, _BLOCKS) != 0
        cells[cascade] = blocks.repeat(n, axis=0).repeat(n, axis=1).repeat(n, axis=2)
    return cells


def _edge(lens: Lens) -> tuple[np.ndarray, float, float]:
    """Return directions around what a lens sees, and two angles.

    Returns:
        float32 [n, 3], unit vectors in the camera's axes; the largest angle between neighbours;
        the largest angle to the optical axis.
    """
    along = np.arange(_EDGE) / _EDGE
    ones, zeros = np.ones(_EDGE), np.zeros(_EDGE)
    around = np.concatenate(
        [
            np.stack([along, zeros], axis=1),
            np.stack([ones, along], axis=1),
            np.stack([1 - along, ones], axis=1),
            np.stack([zeros, 1 - along], axis=1),
        ]
    )
    directions = lens.unproject(around * [lens.width, lens.height])
    lost = np.isnan(directions[:, 0])
    gaps = _angle(directions, np.roll(directions, -1, axis=0))
    spacing = float(np.nanmax(gaps, initial=0.0))
    directions = directions[~lost]
    if lost.any() or len(directions) == 0:
        rim, gap = _rim(lens)
        directions, spacing = np.concatenate([directions, rim]), max(spacing, gap)
    # a picture that does not show the axis may be widest beside it, a corner is widest otherwise
    reach = float(np.arccos(np.clip(-directions[:, 2], -1, 1)).max(initial=0.0))
    return directions.astype(np.float32), spacing, reach + spacing


def _rim(lens: Lens) -> tuple[np.ndarray, float]:
    """Return the directions at the fold of a distortion that the picture shows, and their gap."""
    limit = lens.limit if lens.fisheye else np.arctan(lens.limit)
    # inside, so that they project
    limit *= 1 - 1e-9
    turn = np.arange(4 * _EDGE) * (2 * np.pi / (4 * _EDGE))
    side = np.sin(limit)
    rim = np.stack([side * np.cos(turn), side * np.sin(turn), np.full(4 * _EDGE, -np.cos(limit))])
    pixels = lens.project(rim.T)
    inside = np.all((pixels >= 0) & (pixels <= [lens.width, lens.height]), axis=1)
    return rim.T[inside], 2 * np.pi / (4 * _EDGE)


def _angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return 2 * np.arcsin(np.clip(np.linalg.norm(a - b, axis=1) / 2, 0, 1))
