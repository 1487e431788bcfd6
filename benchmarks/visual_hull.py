"""Where a scene's object can be: what lies on it in every photo (Laurentini 1994)."""

import math

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.nerf.data import ViewSet
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.rays.lenses import Lens

_COARSEST = 32


def visual_hull(views: ViewSet, frame: Frame, resolution: int) -> np.ndarray:
    """Return the middles of the cells that no photo shows to be empty, float32 [n, 3], in the box.

    A photo shows that if it sees the ball about a cell, and no pixel of it has any opacity; the
    square about the ball stands in for it. Cells are halved from coarse to fine, so that most of
    the box is left early.

    Args:
        views: with photos that have an opacity.
        frame: where the box lies.
        resolution: cells along an axis of the box, a power of two of at least 32.

    Raises:
        DataError: the photos are opaque, or the hull is empty.
    """
    if not views.photos.has_alpha:
        raise DataError(
            "an octree grows where the object is, which is known from the opacity of its photos; "
            "these have none: give a scene whose photos have an opacity"
        )
    n = _COARSEST
    cells = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    while True:
        for number in range(len(views.views)):
            cells = cells[_may_be_filled(views, number, frame, (cells + 0.5) / n, 1 / n)]
        if len(cells) == 0:
            raise DataError("no point lies on an object in all photos: are their poses right?")
        if n >= resolution:
            return ((cells + 0.5) / n).astype(np.float32)
        n *= 2
        corners = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        cells = (2 * cells[:, None] + corners).reshape(-1, 3)


def _may_be_filled(
    views: ViewSet, number: int, frame: Frame, middles: np.ndarray, side: float
) -> np.ndarray:
    """Return bool [n]: cells that a photo does not show to be empty.

    Args:
        views: all.
        number: of the photo.
        frame: where the box lies.
        middles: [n, 3], of the cells, in the box.
        side: of the cells, in sides of the box.
    """
    view, opaque = views.views[number], _opaque(views, number)
    local = (frame.to_scene(middles) - view.pose[:, 3]) @ view.pose[:, :3]
    radius = frame.distance_from_box(side * math.sqrt(3) / 2)
    height, width = opaque.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = _reach(view.lens, local, radius)
        x, y = np.floor(view.lens.project(local)).T
        seen = (x - reach >= 0) & (x + reach < width) & (y - reach >= 0) & (y + reach < height)
    filled = np.ones(len(middles), bool)
    x, y, reach = (values[seen].astype(int) for values in (x, y, reach))
    # opaque pixels above and left of each, for sums over squares
    sums = np.pad(opaque.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    x0, x1, y0, y1 = x - reach, x + reach + 1, y - reach, y + reach + 1
    filled[seen] = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0] > 0
    return filled


def _reach(lens: Lens, local: np.ndarray, radius: float) -> np.ndarray:
    """Return how many pixels a ball reaches from its middle in a picture; NaN about the camera."""
    distance = np.linalg.norm(local, axis=1)
    nearest = np.where(distance > radius, distance - radius, np.nan)
    # an angle is the larger in a picture the further it is from the axis: d tan = d angle / cos^2
    cosine = np.where(local[:, 2] < 0, -local[:, 2] / distance, np.nan)
    return np.ceil(max(lens.fx, lens.fy) * radius / nearest / cosine**2)


def _opaque(views: ViewSet, number: int) -> np.ndarray:
    """Return bool [height, width]: pixels of a photo with any opacity."""
    photos = views.photos
    begin, end = (int(n) for n in photos.offsets[number : number + 2])
    width, height = (int(n) for n in photos.sizes[number])
    return photos.pixels[begin:end, 3].reshape(height, width) > 0
