"""A reconstruction's cameras in a scene's axes, and the transforms.json that describes them.

The scene's z axis points up, its origin is the point nearest to all optical axes, and the cameras
are 4 units away from it on average: what instant-ngp's own converter makes and expects.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.nerf.layout import across_axes

CAMERA_DISTANCE = 4.0
"""Mean distance of the cameras from the origin."""
INNER_SCALE = 0.33
"""Sides of instant-ngp's inner cube to one unit of a transforms.json."""
_MAX_AABB_SCALE = 32
_POINTS_WITHIN = 0.95
"""Share of the sparse points that the box is made to hold; the others are far or wrong."""

# Display's up and right in the camera's axes (x right, y up) by EXIF orientation (tag 274): row 0
# and column 0 of the stored pixels are the display's top and left for 1, right and top for 6, ...
_X, _Y = np.eye(2)
_UP = {1: _Y, 2: _Y, 3: -_Y, 4: -_Y, 5: -_X, 6: -_X, 7: _X, 8: _X}
_RIGHT = {1: _X, 2: -_X, 3: -_X, 4: _X, 5: -_Y, 6: _Y, 7: _Y, 8: -_Y}

# Names of COLMAP's parameters that transforms.json has under others.
_PARAMETERS = {"k": "k1"}


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + translation."""

    scale: float
    rotation: np.ndarray
    """float64 [3, 3]."""
    translation: np.ndarray
    """float64 [3]."""

    def poses(self, poses: np.ndarray) -> np.ndarray:
        """Return camera-to-scene poses [n, 3, 4] in the new axes, rotations as before."""
        turned = self.rotation @ poses
        turned[:, :, 3] = self.scale * turned[:, :, 3] + self.translation
        return turned

    def points(self, points: np.ndarray) -> np.ndarray:
        """Return points [n, 3] in the new axes."""
        return self.scale * points @ self.rotation.T + self.translation


def orient(poses: np.ndarray, points: np.ndarray, orientations: Sequence[int]) -> Similarity:
    """Return the way from a reconstruction's arbitrary axes to the scene's.

    Args:
        poses: float64 [n, 3, 4], camera to reconstruction, OpenGL's camera axes.
        points: float64 [m, 3], sparse points.
        orientations: EXIF orientation of each photo, whose pixels are in stored order.
    """
    rotation = _rotation_to_z(up_direction(poses, orientations))
    centre = centre_of_attention(poses, points)
    distances = np.linalg.norm(poses[:, :, 3] - centre, axis=1)
    scale = CAMERA_DISTANCE / max(float(distances.mean()), 1e-12)
    return Similarity(scale, rotation, -scale * (rotation @ centre))


def up_direction(poses: np.ndarray, orientations: Sequence[int]) -> np.ndarray:
    """Return the unit vector that points up.

    Photos are held level more often than not: up is what is square to the right-hand sides of all,
    if these span a plane (cameras that look around or stand around something), however far they
    look up or down. Otherwise it is the mean of the cameras' own.
    """
    up = np.array([_UP[o] for o in orientations])
    right = np.array([_RIGHT[o] for o in orientations])
    ups = np.einsum("nij,nj->ni", poses[:, :, :2], up)
    rights = np.einsum("nij,nj->ni", poses[:, :, :2], right)
    mean = ups.mean(axis=0)
    values, vectors = np.linalg.eigh(rights.T @ rights / len(rights))
    normal = vectors[:, 0] * (1.0 if vectors[:, 0] @ mean >= 0 else -1.0)
    # 0.03: they fan out by 10 degrees to each side; 4: and stay in one plane.
    if values[1] > 0.03 and values[1] > 4.0 * values[0] and normal @ mean > 0.5:
        return normal
    length = np.linalg.norm(mean)
    return mean / length if length > 1e-6 else np.array([0.0, 0.0, 1.0])


def centre_of_attention(poses: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the point nearest to all optical axes, in the sense of least squares.

    The median of the sparse points instead where the axes (nearly) are parallel, or meet behind
    the cameras.
    """
    origins, axes = poses[:, :, 3], -poses[:, :, 2]
    across = across_axes(axes)
    matrix = across.mean(axis=0)
    if np.linalg.eigvalsh(matrix)[0] > 1e-3:  # 1e-3: the axes differ by some degrees
        centre = np.linalg.solve(matrix, np.einsum("nij,nj->i", across, origins) / len(poses))
        ahead = np.einsum("ni,ni->n", centre - origins, axes) > 0
        if ahead.mean() > 0.5:
            return centre
    return np.median(points, axis=0) if len(points) else origins.mean(axis=0)


def _rotation_to_z(up: np.ndarray) -> np.ndarray:
    """Return the rotation of least angle that takes a unit vector to z (Rodrigues)."""
    cosine, axis = up[2], np.cross(up, [0.0, 0.0, 1.0])
    if cosine < -1.0 + 1e-12:
        return np.diag([1.0, -1.0, -1.0])
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1.0 + cosine)


def choose_aabb_scale(points: np.ndarray) -> int:
    """Return the least power of two whose box holds the sparse points, 1 to 32.

    Args:
        points: float64 [m, 3], in the scene's axes.
    """
    if not len(points):
        return 1
    reach = np.quantile(np.abs(points).max(axis=1), _POINTS_WITHIN) * INNER_SCALE
    wanted = 2 ** math.ceil(math.log2(max(2.0 * float(reach), 1.0)))
    return min(wanted, _MAX_AABB_SCALE)


def intrinsics(
    model: str, names: Sequence[str], values: Sequence[float], size: tuple[int, int]
) -> dict[str, Any]:
    """Return a COLMAP camera as transforms.json has it: pixels, the top left corner is (0, 0).

    Args:
        model: COLMAP's name.
        names: of its parameters.
        values: of these.
        size: width and height.

    Raises:
        DataError: it is not finite.
    """
    given = {_PARAMETERS.get(n, n): float(v) for n, v in zip(names, values, strict=True)}
    if not all(map(math.isfinite, given.values())):
        raise DataError("structure from motion gave a camera that is not finite; try PINHOLE")
    focal = given.pop("f", None)
    fx, fy = given.pop("fx", focal), given.pop("fy", focal)
    if fx is None or fy is None:
        raise DataError(f"cameras of model {model} are not written")
    fisheye = model.endswith("FISHEYE")
    name = "OPENCV_FISHEYE" if fisheye else "PINHOLE" if model.endswith("PINHOLE") else "OPENCV"
    width, height = size
    angles = {
        "camera_angle_x": 2.0 * math.atan(width / (2.0 * fx)),
        "camera_angle_y": 2.0 * math.atan(height / (2.0 * fy)),
    }
    return {
        "camera_model": name,
        **({"is_fisheye": True} if fisheye else angles),
        "fl_x": fx,
        "fl_y": fy,
        "cx": given.pop("cx"),
        "cy": given.pop("cy"),
        "w": width,
        "h": height,
        **given,
    }


def describe_scene(
    frames: Sequence[Mapping[str, Any]], cameras: Sequence[Mapping[str, Any]], aabb_scale: int
) -> dict[str, Any]:
    """Return what transforms.json holds.

    Args:
        frames: "file_path", "sharpness", "transform_matrix" of each photo.
        cameras: each one's ``intrinsics``; at the top if they all are the same.
        aabb_scale: a power of two.
    """
    same = all(camera == cameras[0] for camera in cameras)
    if same:
        top, own = cameras[0], [{}] * len(frames)
    else:
        models = {camera["camera_model"] for camera in cameras}
        top, own = ({"camera_model": models.pop()} if len(models) == 1 else {}), cameras
    return {
        **top,
        "aabb_scale": aabb_scale,
        "ply_file_path": "points.ply",
        "frames": [{**f, **c} for f, c in zip(frames, own, strict=True)],
    }
