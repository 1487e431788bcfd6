"""Views on a device, and the rays of a view, in the coordinates of the box.

The box is the unit cube in which a field is trained: p_box = scale * p_scene + offset.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp

from ngp_warp.errors import DataError
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.nerf.types import Photos, View
from ngp_warp.radiance.settings import ColorSpace
from ngp_warp.rays.lenses import Lens, lens_table
from ngp_warp.views import flat_view


@dataclass
class ViewArrays:
    """Photos with their poses and lenses; poses, lenses and exposures may be refined in place."""

    device: str
    views: tuple[View, ...]
    lenses_in_memory: tuple[Lens, ...]
    """In pixels of the photos as they lie in memory."""
    frame: Frame
    color_space: ColorSpace
    has_alpha: bool
    pixels: wp.array
    """uint8 or float16, the first values of [n_pixels, 4]: see ``kernels/draw.py``."""
    masks: wp.array
    """uint8 [n_pixels], or empty."""
    depths: wp.array
    """float32 [n_pixels] along the optical axis, scene units, or empty."""
    offsets: wp.array
    """int64 [n_views + 1]."""
    sizes: wp.array
    """int32 [n_views * 2]."""
    poses: wp.array
    """float32 [n_views * 12]: camera to box, rows of 3 x 4."""
    lenses: wp.array
    """float32 [n_views * 16]: kernels/lens.py."""
    exposures: wp.array
    """float32 [n_views * 3]: doublings of the light."""

    def __len__(self) -> int:
        return len(self.views)

    @property
    def n_pixels(self) -> int:
        """Of all photos."""
        return int(self.offsets.numpy()[-1])


def make_views(
    views: Sequence[View], photos: Photos, frame: Frame, device: str = "cpu"
) -> ViewArrays:
    """Put views on a device; on a CPU the photos are not copied.

    Args:
        views: in the order of the photos.
        photos: their pixels.
        frame: where the box lies.
        device: "cpu" or a CUDA device.

    Raises:
        DataError: there are no views, or not as many as photos.
    """
    n = len(views)
    if n == 0 or len(photos.offsets) != n + 1 or len(photos.sizes) != n:
        raise DataError(
            f"{n} views and {len(photos.sizes)} photos: training needs at least one of each, "
            "and a photo for every view"
        )
    lenses = tuple(
        view.lens.scaled(int(width), int(height))
        for view, (width, height) in zip(views, photos.sizes, strict=True)
    )
    empty = np.zeros(0)

    def small(values: Any, dtype: Any) -> wp.array:
        return wp.array(np.ravel(values), dtype=dtype, device=device)

    def large(values: np.ndarray | None, dtype: Any) -> wp.array:
        return flat_view(np.ascontiguousarray(empty if values is None else values, dtype), device)

    half = photos.pixels.dtype == np.float16
    poses = np.stack([frame.poses_to_box(view.pose) for view in views])
    return ViewArrays(
        device=device,
        views=tuple(views),
        lenses_in_memory=lenses,
        frame=frame,
        color_space=photos.color_space,
        has_alpha=photos.has_alpha,
        pixels=large(photos.pixels, np.float16 if half else np.uint8),
        masks=large(photos.masks, np.uint8),
        depths=large(photos.depths, np.float32),
        offsets=small(photos.offsets, wp.int64),
        sizes=small(photos.sizes, wp.int32),
        poses=small(poses, wp.float32),
        lenses=small(lens_table(lenses), wp.float32),
        exposures=small(np.zeros(n * 3), wp.float32),
    )


def pixel_centres(width: int, height: int) -> np.ndarray:
    """Return float64 [height * width, 2]: the centres of a picture's pixels, row by row."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def rays_of(
    pose: np.ndarray, lens: Lens, frame: Frame, pixels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rays of a view; of another size with ``lens.scaled``.

    Args:
        pose: [3, 4] camera to scene.
        lens: in pixels of the picture that is wanted.
        frame: where the box lies.
        pixels: [n, 2], places in the picture; None: the centres of all pixels, row by row.

    Returns:
        origins and unit directions in box coordinates, float32 [n, 3], and whether the lens has a
        ray there, bool [n]; where it has none the direction is the optical axis.
    """
    places = pixel_centres(lens.width, lens.height) if pixels is None else pixels
    matrix = frame.poses_to_box(pose)
    local = lens.unproject(places)
    valid = ~np.isnan(local[:, 0])
    local[~valid] = 0, 0, -1
    directions = (local @ matrix[:, :3].T).astype(np.float32)
    origins = np.tile(matrix[:, 3].astype(np.float32), (len(local), 1))
    return origins, directions, valid
