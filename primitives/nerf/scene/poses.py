"""Poses: camera to scene, OpenGL's axes; a rotation and a position, checked."""

import numpy as np

from ngp_warp.primitives.nerf.scene.checks import SceneError
from ngp_warp.primitives.nerf.scene.values import LARGEST

TOLERANCE = 1e-3
"""Of a rotation's columns from unit length and right angles: files hold few digits."""
# Camera axes to OpenGL's: x right, y up, z back.
_FROM_OPENCV = np.diag([1.0, -1.0, -1.0])


def check_pose(matrix: np.ndarray, where: str) -> tuple[np.ndarray, float]:
    """Return a pose whose left part is exactly a rotation.

    Args:
        matrix: float64 [3, 4], or [4, 4] with a last row of 0, 0, 0, 1.
        where: named in errors.

    Returns:
        float64 [3, 4], and the uniform scale that the left part had.

    Raises:
        DataError: it is not finite, singular, mirrored, or no rotation but for a scale.
    """
    mend = "estimate this camera's pose again, or remove it"
    if not np.all(np.abs(matrix) <= LARGEST):
        raise SceneError(where, "its pose has numbers that are NaN, infinite or absurd", mend)
    if len(matrix) == 4 and not np.allclose(matrix[3], [0, 0, 0, 1], atol=TOLERANCE):
        raise SceneError(where, "the last row of its pose must be 0, 0, 0, 1", mend)
    left = matrix[:3, :3]
    u, values, vt = np.linalg.svd(left)
    if values[0] < 1e-9 or values[2] < 1e-6 * values[0]:
        raise SceneError(where, "its pose is singular: the left 3x3 part is no rotation", mend)
    rotation = u @ vt
    if np.linalg.det(rotation) < 0:
        mend = "the axes are x right, y up, z back: turn one round"
        raise SceneError(where, "its pose is mirrored: the determinant is negative", mend)
    scale = float(values.mean())
    if values[0] - values[2] > 2 * TOLERANCE * scale:
        raise SceneError(
            where,
            "its pose is skewed: the left 3x3 part is no rotation, not even a scaled one",
            mend,
        )
    return np.concatenate([rotation, matrix[:3, 3:]], axis=1), scale


def from_world_to_camera(quaternion: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Return the pose [3, 4] of COLMAP's world to camera: x_cam = R x + t, OpenCV's axes.

    Args:
        quaternion: w, x, y, z, of any length but 0, or the pose is NaN.
        translation: [3].
    """
    with np.errstate(all="ignore"):
        # Past float64's range the length would be infinite, and the rotation none.
        sane = np.where(np.abs(quaternion) <= LARGEST, quaternion, np.nan)
        w, x, y, z = sane / np.linalg.norm(sane)
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        position = -rotation.T @ translation
        return np.column_stack([rotation.T @ _FROM_OPENCV, position])
