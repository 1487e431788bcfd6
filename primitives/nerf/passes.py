"""What pictures of a radiance field are made of: colour, opacity, depth and normals of pixels."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.nerf.colors import to_srgb8
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.tiles import check_memory, contrasted, pixel_offsets, tiles
from ngp_warp.radiance.rendered import rays_at_once
from ngp_warp.rays.lenses import Lens

MAX_SPP = 4096

Backdrop = Callable[[np.ndarray], np.ndarray]
"""Unit directions float32 [n, 3] -> colours float32 [n, 3] in the field's colour space."""

_NORMAL_STEPS = 2.0
"""Normals are means over at least so many of the shortest steps: less shows the grid's cells."""
_FLAT = 1e-4


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


@dataclass(frozen=True, kw_only=True)
class Buffers:
    """The passes of one picture."""

    color: np.ndarray
    """float32 [h, w, 3], in the field's colour space: over the backdrop; without one the field's
    light alone (premultiplied by its opacity)."""
    opacity: np.ndarray
    """float32 [h, w], 0 to 1."""
    depth: np.ndarray
    """float32 [h, w]: expected distance along the optical axis, scene units; infinite where the
    field is transparent."""
    normals: np.ndarray | None = None
    """float32 [h, w, 3]: outward normals in scene axes at the expected depth, as long as the
    opacity; zero where there is nothing."""


class Renderer:
    """Makes pictures of one radiance field.

    Args:
        field: a ``RadianceField``, or what has its ``render_rays``, ``density`` and ``settings``.
        frame: from the scene to the box.
        backdrop: what transparent pixels show; None: nothing.
    """

    def __init__(self, field: Any, frame: Frame, backdrop: Backdrop | None = None):
        self.field, self.frame, self.backdrop = field, frame, backdrop

    def buffers(
        self,
        shot: Shot,
        *,
        spp: int = 1,
        normals: bool = False,
        progress: Report = report_nothing,
    ) -> Buffers:
        """Return the passes of a picture.

        Depth and normals are those of the pixels' centres. With several samples, pixels that differ
        from a neighbour get them all in their colour and opacity (Whitted 1980).

        Args:
            shot: where from.
            spp: samples of a pixel where the picture is not smooth.
            normals: make them; twelve densities a pixel.
            progress: told of the tiles done.

        Raises:
            ConfigError: ``spp`` out of its range.
            ResourceError: a picture that does not fit in memory.
        """
        if not 1 <= spp <= MAX_SPP:
            raise ConfigError(f"spp must be from 1 to {MAX_SPP}, got {spp}")
        check_memory(shot)
        shape = (shot.height, shot.width)
        made = Buffers(
            color=np.zeros((*shape, 3), np.float32),
            opacity=np.zeros(shape, np.float32),
            depth=np.full(shape, np.inf, np.float32),
            normals=np.zeros((*shape, 3), np.float32) if normals else None,
        )
        device = getattr(self.field, "device", "cpu")
        # on CUDA a pass is waited for: the whole picture at once, if it may be
        batch = {"batch": rays_at_once(device)} | ({} if device == "cpu" else {"side": shot.height})
        first = tiles(shot, 1, **batch)
        second = tiles(shot, spp, **batch) if spp > 1 else []
        for index, tile in enumerate(first):
            self._centres(shot, made, *tile.select(None))
            progress(Progress(stage="write", step=index + 1, total=len(first) + len(second)))
        if second:
            chosen = contrasted(to_srgb8(made.color, self.field.settings.color_space))
            chosen |= contrasted(np.rint(made.opacity[..., None] * 255).astype(np.uint8))
            for index, tile in enumerate(second, len(first)):
                self._samples(shot, made, tile.select(chosen), pixel_offsets(spp))
                progress(Progress(stage="write", step=index + 1, total=len(first) + len(second)))
        return made

    def _centres(self, shot: Shot, made: Buffers, rows: np.ndarray, columns: np.ndarray) -> None:
        """Fill all passes of pixels from one ray through the middle of each."""
        origins, directions, color, opacity, depth = self._trace(shot, columns + 0.5, rows + 0.5)
        made.color[rows, columns] = color
        made.opacity[rows, columns] = opacity
        forward = -shot.pose[:, 2]
        hit = np.isfinite(depth)
        along = directions[hit] @ forward.astype(np.float32)
        made.depth[rows[hit], columns[hit]] = depth[hit] * along / self.frame.scale
        if made.normals is not None:
            points = origins[hit] + depth[hit, None] * directions[hit]
            found = self._normals(points, depth[hit] / shot.lens.fy)
            made.normals[rows[hit], columns[hit]] = found * opacity[hit, None]

    def _samples(
        self, shot: Shot, made: Buffers, pixels: tuple[np.ndarray, ...], offsets: np.ndarray
    ) -> None:
        """Set colour and opacity of pixels (rows, columns) to the mean over offsets in them."""
        rows, columns = pixels
        if not len(rows):
            return
        x = (columns[:, None] + offsets[:, 0]).ravel()
        y = (rows[:, None] + offsets[:, 1]).ravel()
        _, _, color, opacity, _ = self._trace(shot, x, y)
        made.color[rows, columns] = color.reshape(len(rows), -1, 3).mean(axis=1)
        made.opacity[rows, columns] = opacity.reshape(len(rows), -1).mean(axis=1)

    def _trace(self, shot: Shot, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return origins and directions in the box, colours, opacities and depths of rays."""
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
        return origins, directions, color, opacity, depth

    def _normals(self, points: np.ndarray, footprint: np.ndarray) -> np.ndarray:
        least = _NORMAL_STEPS * self.field.settings.min_step
        return density_normals(self.field.density, points, np.maximum(footprint, least))


def density_normals(
    density: Callable[[np.ndarray], np.ndarray], points: np.ndarray, step: Any
) -> np.ndarray:
    """Return outward unit normals float32 [n, 3]: against the gradient of the density's logarithm.

    The gradient's mean over a ball, from the corners of an icosahedron on it: differences along
    three axes would lean towards the cube's diagonals where a surface is thinner than the step.
    Zero where the density is constant.

    Args:
        density: float32 points [n, 3] -> densities [n].
        points: [n, 3], in the box.
        step: radius of the ball, a number or [n].
    """
    if not len(points):
        return np.zeros((0, 3), np.float32)
    step = np.broadcast_to(np.asarray(step, np.float32), len(points))
    at = points[:, None] + step[:, None, None] * _ICOSAHEDRON
    values = np.log(np.maximum(density(at.reshape(-1, 3).astype(np.float32)), 1e-10))
    gradient = -values.reshape(len(points), -1) @ _ICOSAHEDRON
    length = np.linalg.norm(gradient, axis=1, keepdims=True)
    return np.where(length > _FLAT, gradient / np.maximum(length, _FLAT), 0).astype(np.float32)


def _icosahedron() -> np.ndarray:
    """Return its corners float32 [12, 3] on the unit sphere."""
    golden = (1 + math.sqrt(5)) / 2
    plane = np.array([[0, a, b * golden] for a in (-1, 1) for b in (-1, 1)])
    corners = np.concatenate([np.roll(plane, axis, axis=1) for axis in range(3)])
    return (corners / math.hypot(1, golden)).astype(np.float32)


_ICOSAHEDRON = _icosahedron()
