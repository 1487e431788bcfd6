"""What a fitted scene is at points, and along rays, in the scene's own units and axes."""

from dataclasses import replace
from typing import Any

import numpy as np

from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.primitives.nerf.model import NerfModel
from ngp_warp.radiance.field import Rendered

_DIRECTION = np.array([[0, 0, -1]], np.float32)


def query(run: Any, points: Any, gradient: bool) -> tuple[np.ndarray, None]:
    """Return density and colour at points.

    Args:
        run: of a scene.
        points: [n, 3], scene units.
        gradient: not to be had.

    Returns:
        float32 [n, 4]: the density per scene unit (0 outside the box), and the colour, seen along
        -z, in the photos' colour space; and None.

    Raises:
        ShapeError: another shape, or values that are no real numbers.
        ConfigError: a gradient is asked for.
    """
    if gradient:
        raise ConfigError(f"{run.path} is a fitted nerf: its colours depend on the direction too")
    model: NerfModel = run.fitted
    at = _vectors("points", points)
    box = model.frame.to_box(at).astype(np.float32)
    # per side of the inner cube, of which a scene unit has scale * aabb_scale
    per_unit = model.frame.scale * model.frame.aabb_scale
    values = np.empty((len(at), 4), np.float32)
    inside = np.all((box >= 0) & (box <= 1), axis=1)
    values[:, 0] = np.where(inside, model.radiance.density(box) * per_unit, 0)
    values[:, 1:] = model.radiance.color(box, np.tile(_DIRECTION, (len(at), 1)))
    return values, None


def render_rays(run: Any, rays_o: Any, rays_d: Any) -> Rendered:
    """Return colours, opacities and depths along rays.

    Args:
        run: of a scene.
        rays_o: origins [n, 3], scene units.
        rays_d: directions [n, 3] of any length but zero.

    Returns:
        Colours over the run's background, in the photos' colour space; depths in scene units.

    Raises:
        ShapeError: arrays that are no rays.
    """
    model: NerfModel = run.fitted
    origins, directions = _vectors("rays_o", rays_o), _vectors("rays_d", rays_d)
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    if len(origins) != len(directions) or not np.all(np.isfinite(length) & (length > 0)):
        raise ShapeError(
            "rays_o and rays_d must be finite, of the same length, and no direction zero"
        )
    made = model.render_rays(model.frame.to_box(origins), directions / length)
    return replace(made, depth=made.depth / np.float32(model.frame.scale))


def _vectors(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        raise ShapeError(f"{name} must be real numbers of shape [n, 3], got {list(array.shape)}")
    return array.astype(np.float64)
