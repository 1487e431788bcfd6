"""Pictures of a field's zero level: shaded, its depth, its normals.

Camera and field are in the coordinates of the unit cube.
"""

from dataclasses import dataclass

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.field import Field
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.sdf import shading
from ngp_warp.primitives.sdf.floor import find_floor
from ngp_warp.primitives.tiles import check_memory, contrasted, pixel_offsets, tiles
from ngp_warp.rays.cameras import Camera, Up, up_vector
from ngp_warp.rays.sphere_trace import SphereTracer

DEFAULT_SPP = 4
MAX_SPP = 4096

_SHADOW_MARGIN = 0.35
"""Shadow rays are followed this far beside the cube, where an object still dims the light."""
_LIFT = 2e-3
"""Shadow rays begin this far above the surface: more than a learned field's errors."""
_MIN_FOOTPRINT = 1e-3
"""Normals are means over at least this, in cube sides: a close view would show the grid's cells."""

_OCCLUSION_RANGE = 0.16
_OCCLUSION_STEPS = (0.04, 0.12, 0.28, 0.55, 1.0)
_OCCLUSION_STRENGTH = 1.8


class Renderer:
    """Renders one field from any number of cameras.

    Args:
        field: 3D, one output: the signed distance, negative inside.
        floor: put the object on a floor that takes its shadow.
        up: the axis against gravity, along which the object stands.

    Raises:
        ShapeError: a field that is no signed distance in three dimensions.
        ConfigError: an axis that is none.
    """

    def __init__(self, field: Field, *, floor: bool = True, up: Up = "y"):
        self.field = field
        self.tracer = SphereTracer(field)
        self.up = np.array(up_vector(up))
        self.floor = find_floor(self.tracer, self.up) if floor else None

    def image(
        self,
        camera: Camera,
        *,
        spp: int = DEFAULT_SPP,
        progress: Report = report_nothing,
    ) -> np.ndarray:
        """Return the shaded picture, uint8 sRGB [height, width, 3].

        Every pixel gets a sample in its middle; those that differ from a neighbour by then, on
        edges and fine relief, get ``spp`` others instead (Whitted 1980).

        Args:
            camera: where from.
            spp: samples of a pixel where the picture is not smooth.
            progress: told of the tiles done.

        Raises:
            ConfigError: ``spp`` out of its range.
            ResourceError: a picture that does not fit in memory.
        """
        if not 1 <= spp <= MAX_SPP:
            raise ConfigError(f"spp must be from 1 to {MAX_SPP}, got {spp}")
        check_memory(camera)
        view = _View(camera, shading.Studio.of(camera, self.up))
        first, second = tiles(camera, 1), tiles(camera, spp) if spp > 1 else []
        light = np.zeros((camera.height, camera.width, 3), np.float32)
        chosen, offsets = np.ones(light.shape[:2], bool), pixel_offsets(1)
        for index, tile in enumerate([*first, *second]):
            if index == len(first):
                chosen, offsets = contrasted(shading.to_srgb(light)), pixel_offsets(spp)
            self._sample(view, light, tile.select(chosen), offsets)
            progress(Progress(stage="write", step=index + 1, total=len(first) + len(second)))
        return shading.to_srgb(light)

    def depth(self, camera: Camera, *, progress: Report = report_nothing) -> np.ndarray:
        """Return float32 [height, width]: distance along the optical axis, infinite if nothing.

        In sides of the unit cube, through the middle of each pixel; the floor is left out.
        """
        return self._centres(camera, "depth", progress)

    def normals(self, camera: Camera, *, progress: Report = report_nothing) -> np.ndarray:
        """Return float32 [height, width, 3]: outward unit normals in world axes, 0 if nothing."""
        return self._centres(camera, "normals", progress)

    def _centres(self, camera: Camera, kind: str, progress: Report) -> np.ndarray:
        shape = (camera.height, camera.width)
        depth = kind == "depth"
        picture = np.full(shape, np.inf, np.float32) if depth else np.zeros((*shape, 3), np.float32)
        forward = -camera.camera_to_world()[:3, 2].astype(np.float32)
        parts = tiles(camera, 1)
        for index, tile in enumerate(parts):
            rows, columns = tile.select(None)
            rays_o, rays_d = camera.rays(columns + 0.5, rows + 0.5)
            trace = self.tracer.trace(rays_o, rays_d)
            t, hit = trace.t[trace.hit], trace.hit
            if depth:
                values = t * (rays_d[hit] @ forward)
            else:
                points = rays_o[hit] + t[:, None] * rays_d[hit]
                values = smooth_normals(self.field, points, t * camera.pixel_size)
            picture[rows[hit], columns[hit]] = values
            progress(Progress(stage="write", step=index + 1, total=len(parts)))
        return picture

    def _sample(
        self, view: "_View", light: np.ndarray, pixels: tuple[np.ndarray, ...], offsets: np.ndarray
    ) -> None:
        """Set ``light`` in pixels (rows, columns) to the mean over some offsets in them."""
        rows, columns = pixels
        if len(rows):
            # all samples of a pixel at once: neighbours in space are neighbours in the batch
            x = (columns[:, None] + offsets[:, 0]).ravel()
            y = (rows[:, None] + offsets[:, 1]).ravel()
            colours = self._shade(view, *view.camera.rays(x, y))
            light[rows, columns] = colours.reshape(len(rows), len(offsets), 3).mean(axis=1)

    def _shade(self, view: "_View", rays_o: np.ndarray, rays_d: np.ndarray) -> np.ndarray:
        """Return the radiance along rays, float32 [n, 3]."""
        camera, studio, plane = view.camera, view.studio, self.floor
        trace = self.tracer.trace(rays_o, rays_d)
        hit = trace.hit
        colours = shading.background(studio, rays_d)
        t_floor = (
            plane.meet(studio.up, rays_o, rays_d)
            if plane is not None
            else np.full(len(rays_o), np.inf, np.float32)
        )
        on_floor = t_floor < np.where(hit, trace.t, np.inf)
        hit = hit & ~on_floor
        t = np.where(on_floor, t_floor, trace.t)
        first, second = np.flatnonzero(hit), np.flatnonzero(on_floor)
        both = np.concatenate([first, second])
        if not len(both):
            return colours
        points = rays_o[both] + t[both, None] * rays_d[both]
        normals = np.broadcast_to(studio.up, points.shape).copy()
        split = len(first)
        normals[:split] = smooth_normals(self.field, points[:split], t[first] * camera.pixel_size)
        key = self._key_light(studio, points, normals)
        openness = self._openness(points, normals)
        colours[first] = shading.clay(
            studio, normals[:split], rays_d[first], key[:split], openness[:split]
        )
        if plane is not None:
            colours[second] = shading.floor(
                studio, points[split:], plane.middle, key[split:], openness[split:]
            )
        return colours

    def _key_light(
        self, studio: shading.Studio, points: np.ndarray, normals: np.ndarray
    ) -> np.ndarray:
        """Return the visible share of the key light at points, float32 [n]."""
        share = np.zeros(len(points), np.float32)
        facing = np.flatnonzero(normals @ studio.key > 0)
        origins = points[facing] + _LIFT * normals[facing]
        directions = np.broadcast_to(studio.key, origins.shape)
        trace = self.tracer.trace(origins, directions, margin=_SHADOW_MARGIN)
        share[facing] = shading.penumbra(trace.hit, trace.clearance)
        return share

    def _openness(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Return the visible share of the surroundings (ambient occlusion), float32 [n].

        Above an open plane the distance grows by the height; what it falls short of that, summed
        over some heights, is what surrounds the point (Evans, "Fast approximations for global
        illumination on dynamic scenes", SIGGRAPH 2006).
        """
        openness = np.ones(len(points), np.float32)
        outside = np.linalg.norm(points - np.clip(points, 0, 1), axis=1)
        near = np.flatnonzero(outside < _OCCLUSION_RANGE)
        heights = np.float32(_OCCLUSION_RANGE) * np.array(_OCCLUSION_STEPS, np.float32)
        at = points[near, None] + heights[:, None] * normals[near, None]
        distance = self.distances(at.reshape(-1, 3)).reshape(at.shape[:2])
        if self.floor is not None:
            above = at @ self.up.astype(np.float32) - np.float32(self.floor.height)
            distance = np.minimum(distance, np.maximum(above, 0))
        missing = np.clip(1 - distance / heights, 0, 1).mean(axis=1)
        openness[near] = np.exp(-_OCCLUSION_STRENGTH * missing)
        return openness

    def distances(self, points: np.ndarray) -> np.ndarray:
        """Return the field at points [n, 3] anywhere, float32 [n]; outside the cube a bound of it.

        The surface lies in the cube, which is convex, so that a point outside is at least
        sqrt(e^2 + d(q)^2) from it; q is the nearest point of the cube, e the way to it.
        """
        inside = np.clip(points, 0, 1)
        distance = self.field.query(inside)[:, 0]
        e = np.linalg.norm(points - inside, axis=1)
        return np.where(e > 0, np.sqrt(e * e + np.maximum(distance, 0) ** 2), distance)


def render_image(
    field: Field,
    camera: Camera,
    *,
    spp: int = DEFAULT_SPP,
    floor: bool = True,
    up: Up = "y",
    progress: Report = report_nothing,
) -> np.ndarray:
    """Return the shaded picture of a field's zero level, uint8 sRGB [height, width, 3].

    Args:
        field: 3D, one output: the signed distance, negative inside, in the unit cube.
        camera: in the coordinates of the unit cube; see ``ngp_warp.rays.cameras.orbit``.
        spp: samples of a pixel where the picture is not smooth.
        floor: put the object on a floor that takes its shadow.
        up: the axis against gravity, along which the object stands.
        progress: told of the tiles done.

    Raises:
        ConfigError: ``spp`` out of its range.
        ResourceError: a picture that does not fit in memory.
        ShapeError: a field that is no signed distance in three dimensions.
    """
    return Renderer(field, floor=floor, up=up).image(camera, spp=spp, progress=progress)


def smooth_normals(field: Field, points: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Return outward unit normals, float32 [n, 3]: the gradient's mean over a pixel.

    The analytic gradient of a linearly interpolated grid is constant along an axis inside a cell
    and jumps between cells, which are smaller than a pixel: sampled at one point it is speckled. A
    central difference over +-h is exactly its mean over that segment.

    Args:
        field: the signed distance.
        points: [n, 3], in the unit cube.
        footprint: [n], side of a pixel there.
    """
    h = np.maximum(footprint, _MIN_FOOTPRINT).astype(np.float32)[:, None]
    offsets = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    at = points[:, None] + h[:, None] * offsets
    values = field.query(at.reshape(-1, 3)).reshape(-1, 2, 3)
    gradient = values[:, 0] - values[:, 1]
    length = np.linalg.norm(gradient, axis=1, keepdims=True)
    return gradient / np.maximum(length, np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class _View:
    """What does not change within a picture."""

    camera: Camera
    studio: shading.Studio
