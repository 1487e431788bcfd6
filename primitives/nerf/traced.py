"""Rays of pictures through a radiance field: made on its device, or by NumPy where they must be."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ngp_warp.primitives.nerf.backdrop import Backdrop, Plain
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.tiles import Sized, Tile, bands, tiles
from ngp_warp.radiance.rendered import rays_at_once
from ngp_warp.radiance.viewed import FieldView, Surroundings
from ngp_warp.rays.lenses import Lens

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A picture that is to be made, in the scene's units."""

    lens: Lens
    """Of the picture's own size."""
    pose: np.ndarray
    """float64 [3, 4]: camera to scene, OpenGL's camera axes."""
    latent: int | None = None
    """The view whose latent vector is used; None: none."""

    @property
    def width(self) -> int:
        """Pixels."""
        return self.lens.width

    @property
    def height(self) -> int:
        """Pixels."""
        return self.lens.height

    def rays(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the rays through points [n] of the picture begin and their unit directions.

        Args:
            x: pixels from the left edge; a pixel's centre is at its index + 0.5.
            y: pixels from the top edge.

        Returns:
            The origin float64 [3] and directions float64 [n, 3], in the scene; NaN where the lens
            has no ray.
        """
        local = self.lens.unproject(np.stack([x, y], axis=-1))
        return self.pose[:, 3], local @ self.pose[:, :3].T


class Tracer(Protocol):
    """What is seen through pixels of a shot; where the lens has no ray there is nothing."""

    def parts(self, camera: Sized, samples: int) -> list[Tile]:
        """Return the parts in which a picture is made, so many rays a pixel."""
        ...

    def centres(self, shot: Shot, tile: Tile) -> Arrays:
        """Return colour [h, w, 3], opacity [h, w] and depth [h, w] of a tile.

        One ray through the middle of each pixel; depths are along the optical axis, in scene units,
        infinite where nothing is. Until the next call.
        """
        ...

    def means(self, shot: Shot, rows: np.ndarray, columns: np.ndarray, at: np.ndarray) -> Arrays:
        """Return colour [n, 3] and opacity [n] of pixels: means over places [spp, 2] in them."""
        ...


def make_tracer(field: Any, frame: Frame, backdrop: Backdrop | None) -> Tracer:
    """Return what makes the rays of pictures.

    On the field's device, unless the field has no ``renderer`` of views or the backdrop is a
    function of NumPy's.
    """
    on_device = backdrop is None or isinstance(backdrop, Plain) or hasattr(backdrop, "lookup")
    if on_device and hasattr(field, "renderer"):
        return DeviceRays(field, frame, backdrop)
    return HostRays(field, frame, backdrop)


class DeviceRays:
    """Rays and pictures made by kernels; implements ``Tracer``.

    Args:
        field: has a ``renderer`` (``radiance.rendered.RayRenderer``).
        frame: from the scene to the box.
        backdrop: plain, or one with ``lookup``; None: black, so that colours are the field's light.
    """

    def __init__(self, field: Any, frame: Frame, backdrop: Any):
        self.field, self.frame = field, frame
        self._color: tuple[float, float, float] = (0.0, 0.0, 0.0)
        self._surroundings: Surroundings | None = None
        if isinstance(backdrop, Plain):
            red, green, blue = backdrop.color.tolist()
            self._color = red, green, blue
        else:
            self._surroundings = backdrop

    def parts(self, camera: Sized, samples: int) -> list[Tile]:
        """See ``Tracer.parts``."""
        return bands(camera, max(self.field.renderer.batch.capacity // samples, 1))

    def centres(self, shot: Shot, tile: Tile) -> Arrays:
        """See ``Tracer.centres``."""
        columns, rows = tile.right - tile.left, tile.bottom - tile.top
        renderer = self.field.renderer.views(self._surroundings)
        made = renderer.window(self._view(shot), tile.left, tile.top, columns, rows)
        return made.color, made.opacity, made.depth

    def means(self, shot: Shot, rows: np.ndarray, columns: np.ndarray, at: np.ndarray) -> Arrays:
        """See ``Tracer.means``."""
        renderer = self.field.renderer.views(self._surroundings)
        made = renderer.samples(self._view(shot), np.stack([columns, rows], axis=1), at)
        return made.color.mean(axis=1), made.opacity.mean(axis=1)

    def _view(self, shot: Shot) -> FieldView:
        return FieldView(
            pose=self.frame.poses_to_box(shot.pose),
            lens=shot.lens,
            latent=shot.latent,
            unit=1 / self.frame.scale,
            color=self._color,
        )


class HostRays:
    """Rays made by NumPy, for what has nothing but ``render_rays``; implements ``Tracer``.

    Args:
        field: has ``render_rays``.
        frame: from the scene to the box.
        backdrop: any; None: nothing.
    """

    def __init__(self, field: Any, frame: Frame, backdrop: Backdrop | None):
        self.field, self.frame, self.backdrop = field, frame, backdrop

    def parts(self, camera: Sized, samples: int) -> list[Tile]:
        """See ``Tracer.parts``."""
        return tiles(camera, samples, rays_at_once(getattr(self.field, "device", "cpu")))

    def centres(self, shot: Shot, tile: Tile) -> Arrays:
        """See ``Tracer.centres``."""
        rows, columns = tile.select(None)
        directions, color, opacity, depth = self._trace(shot, columns + 0.5, rows + 0.5)
        along = directions @ -shot.pose[:, 2].astype(np.float32)
        hit = np.isfinite(depth)
        depth[hit] *= along[hit] / np.float32(self.frame.scale)
        # a tile's pixels are listed column by column
        shape = tile.right - tile.left, tile.bottom - tile.top
        return tuple(np.swapaxes(a.reshape(*shape, *a.shape[1:]), 0, 1)
                     for a in (color, opacity, depth))  # fmt: skip

    def means(self, shot: Shot, rows: np.ndarray, columns: np.ndarray, at: np.ndarray) -> Arrays:
        """See ``Tracer.means``."""
        x = (columns[:, None] + at[:, 0]).ravel()
        y = (rows[:, None] + at[:, 1]).ravel()
        _, color, opacity, _ = self._trace(shot, x, y)
        n = len(rows)
        return color.reshape(n, -1, 3).mean(axis=1), opacity.reshape(n, -1).mean(axis=1)

    def _trace(self, shot: Shot, x: np.ndarray, y: np.ndarray) -> Arrays:
        """Return directions, colours, opacities and distances in the box of rays."""
        origin, directions = shot.rays(x, y)
        origins = np.broadcast_to(self.frame.to_box(origin[None]), directions.shape)
        origins, directions = origins.astype(np.float32), directions.astype(np.float32)
        n, exist = len(directions), np.isfinite(directions).all(axis=1)
        color, opacity = np.zeros((n, 3), np.float32), np.zeros(n, np.float32)
        depth = np.full(n, np.inf, np.float32)
        made = self.field.render_rays(
            origins[exist],
            directions[exist],
            background=(0.0, 0.0, 0.0),
            latent=shot.latent,
        )
        color[exist], opacity[exist], depth[exist] = made.color, made.opacity, made.depth
        if self.backdrop is not None:
            behind = self.backdrop(directions[exist])
            color[exist] += (1 - opacity[exist, None]) * behind
        return directions, color, opacity, depth
