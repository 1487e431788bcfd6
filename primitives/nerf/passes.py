"""What pictures of a radiance field are made of: colour, opacity, depth and normals of pixels."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.nerf.backdrop import Backdrop
from ngp_warp.primitives.nerf.colors import to_srgb8
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.nerf.traced import Shot, make_tracer
from ngp_warp.primitives.tiles import Tile, check_memory, contrasted, pixel_offsets

MAX_SPP = 4096

_NORMAL_STEPS = 2.0
"""Normals are means over at least so many of the shortest steps: less shows the grid's cells."""
_FLAT = 1e-4


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
        field: a ``RadianceField``, or what has its ``density`` and ``settings`` and either its
            ``renderer`` or its ``render_rays``.
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
            color=np.empty((*shape, 3), np.float32),
            opacity=np.empty(shape, np.float32),
            depth=np.empty(shape, np.float32),
            normals=np.empty((*shape, 3), np.float32) if normals else None,
        )
        tracer = make_tracer(self.field, self.frame, self.backdrop)
        first = tracer.parts(shot, 1)
        second = tracer.parts(shot, spp) if spp > 1 else []
        for index, tile in enumerate(first):
            part = slice(tile.top, tile.bottom), slice(tile.left, tile.right)
            made.color[part], made.opacity[part], made.depth[part] = tracer.centres(shot, tile)
            if made.normals is not None:
                made.normals[part] = self._normals(shot, tile, made.depth[part], made.opacity[part])
            progress(Progress(stage="write", step=index + 1, total=len(first) + len(second)))
        if second:
            chosen = contrasted(to_srgb8(made.color, self.field.settings.color_space))
            chosen |= contrasted(np.rint(made.opacity[..., None] * 255).astype(np.uint8))
            for index, tile in enumerate(second, len(first)):
                rows, columns = tile.select(chosen)
                if len(rows):
                    found = tracer.means(shot, rows, columns, pixel_offsets(spp))
                    made.color[rows, columns], made.opacity[rows, columns] = found
                progress(Progress(stage="write", step=index + 1, total=len(first) + len(second)))
        return made

    def _normals(
        self, shot: Shot, tile: Tile, depth: np.ndarray, opacity: np.ndarray
    ) -> np.ndarray:
        """Return the normals of a tile's pixels at their depths, as long as the opacity."""
        rows, columns = np.nonzero(np.isfinite(depth))
        origin, directions = shot.rays(columns + tile.left + 0.5, rows + tile.top + 0.5)
        distance = depth[rows, columns] * self.frame.scale / (directions @ -shot.pose[:, 2])
        points = self.frame.to_box(origin[None]) + distance[:, None] * directions
        least = _NORMAL_STEPS * self.field.settings.min_step
        step = np.maximum(distance / shot.lens.fy, least)
        normals = np.zeros((*depth.shape, 3), np.float32)
        found = density_normals(self.field.density, points.astype(np.float32), step)
        normals[rows, columns] = found * opacity[rows, columns, None]
        return normals


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
