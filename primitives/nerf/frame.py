"""Between a scene's own units and the box, the unit cube in which everything is trained."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ngp_warp.config import check_choice
from ngp_warp.errors import DataError
from ngp_warp.primitives.nerf.layout import UNKNOWN, Layout, find_layout, known_points
from ngp_warp.primitives.nerf.types import Scene
from ngp_warp.radiance.settings import AABB_SCALES

CENTRE = 0.5
CAMERA_DISTANCE = 4 / 3
"""From the middle, in sides of the inner cube, median of the cameras: as in NeRF-synthetic, whose
cameras stand 4 units from the middle of a cube of 3; what they look at fits the inner cube."""
AABB_SCALE_MOST = 16
"""Of a box that is chosen; a larger one can be asked for."""
_INSIDE = 0.95  # share of the sparse points, and of the cameras, that the box holds


@dataclass(frozen=True)
class Frame:
    """The map ``box = scale * scene + offset`` and its inverse, in float64."""

    scale: float
    """Sides of the box per scene unit."""
    offset: tuple[float, float, float]
    """In sides of the box."""
    aabb_scale: int = 1
    """Side of the box in sides of the inner cube: a power of two from 1 to 128."""

    def __post_init__(self):
        check_choice("aabb_scale", self.aabb_scale, AABB_SCALES)
        if not (math.isfinite(self.scale) and self.scale > 0 and np.isfinite(self.offset).all()):
            raise DataError(
                f"the scale from scene to box must be above 0 and finite, and the offset finite: "
                f"got {self.scale:g}, {self.offset}; correct scale and offset in the scene's file"
            )

    @classmethod
    def from_inner(
        cls, scale: float, offset: tuple[float, float, float], aabb_scale: int
    ) -> "Frame":
        """Return the frame of a map to the inner cube, instant-ngp's scale and offset.

        Args:
            scale: sides of the inner cube per scene unit.
            offset: added, in sides of the inner cube, which is the unit cube there.
            aabb_scale: side of the box in sides of the inner cube.
        """
        x, y, z = ((o - CENTRE) / aabb_scale + CENTRE for o in offset)
        return cls(scale / aabb_scale, (x, y, z), aabb_scale)

    @property
    def n_cascades(self) -> int:
        """Cubes about the centre, each twice as large as the one before; the last is the box."""
        return self.aabb_scale.bit_length()

    @property
    def centre(self) -> np.ndarray:
        """Middle of the box in scene units, float64 [3]."""
        return self.to_scene(np.full((1, 3), CENTRE))[0]

    def to_box(self, points: np.ndarray) -> np.ndarray:
        """Return points [..., 3] of the scene in the box, float64."""
        return np.asarray(points, np.float64) * self.scale + self.offset

    def to_scene(self, points: np.ndarray) -> np.ndarray:
        """Return points [..., 3] of the box in scene units, float64."""
        return (np.asarray(points, np.float64) - self.offset) / self.scale

    def distance_to_box(self, distance: Any) -> Any:
        """Return a distance in scene units, a number or an array, in sides of the box."""
        return distance * self.scale

    def distance_from_box(self, distance: Any) -> Any:
        """Return a distance in sides of the box, a number or an array, in scene units."""
        return distance / self.scale

    def poses_to_box(self, poses: np.ndarray) -> np.ndarray:
        """Return poses [..., 3, 4], camera to scene, as camera to box; rotations stay."""
        poses = np.array(poses, np.float64)
        poses[..., 3] = self.to_box(poses[..., 3])
        return poses

    def poses_from_box(self, poses: np.ndarray) -> np.ndarray:
        """Return poses [..., 3, 4], camera to box, as camera to scene."""
        poses = np.array(poses, np.float64)
        poses[..., 3] = self.to_scene(poses[..., 3])
        return poses

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"scale": self.scale, "offset": list(self.offset), "aabb_scale": self.aabb_scale}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Frame":
        """Return the frame that `to_dict` described.

        Raises:
            DataError: values are missing or of another type, or out of their range.
            ConfigError: ``aabb_scale`` is no power of two from 1 to 128.
        """
        try:
            x, y, z = (float(value) for value in values["offset"])
            return cls(float(values["scale"]), (x, y, z), int(values["aabb_scale"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"a frame needs a scale, an offset of 3 numbers and an aabb_scale: {values}"
            ) from error


def choose_frame(scene: Scene, aabb_scale: int | None = None) -> Frame:
    """Return the frame of a scene.

    What the scene's file fixes (instant-ngp's scale, offset and aabb_scale; NeRF-synthetic's) is
    kept. Otherwise `find_layout` says where the middle is and what length becomes
    `CAMERA_DISTANCE`, and the box is the smallest that holds 95% of the cameras and 95% of the
    sparse points, or, where no points are known, twice what holds the cameras; at most 16 inner
    cubes wide.

    Args:
        scene: with at least one view.
        aabb_scale: side of the box in sides of the inner cube; None: the file's, or chosen.

    Raises:
        ConfigError: ``aabb_scale`` is no power of two from 1 to 128.
    """
    if aabb_scale is not None:
        check_choice("aabb_scale", aabb_scale, AABB_SCALES)
    chosen = aabb_scale if aabb_scale is not None else scene.aabb_scale
    if scene.scale is not None:
        offset = scene.offset or (CENTRE, CENTRE, CENTRE)
        return Frame.from_inner(scene.scale, offset, chosen or 1)
    layout = find_layout(scene)
    scale = CAMERA_DISTANCE / layout.reach
    x, y, z = (CENTRE - scale * layout.centre).tolist()
    return Frame.from_inner(scale, (x, y, z), chosen or _aabb_scale(scene, layout, scale))


def _aabb_scale(scene: Scene, layout: Layout, scale: float) -> int:
    positions = np.stack([view.pose[:, 3] for view in scene.views])
    points = known_points(scene)
    half = _half_side(positions, layout.centre)
    if points is not None:
        half = max(half, _half_side(points, layout.centre))
    else:
        half *= UNKNOWN
    fits = [s for s in AABB_SCALES if s / 2 >= half * scale]
    return min([*fits, AABB_SCALE_MOST])


def _half_side(points: np.ndarray, centre: np.ndarray) -> float:
    """Return half the side of the cube about ``centre`` that holds most points."""
    return float(np.quantile(np.abs(points - centre).max(axis=1), _INSIDE))
