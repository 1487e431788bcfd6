"""The motion that refined poses have in common.

Photos cannot tell a motion of all cameras from one of the scene, so that refinement may turn, move
and scale the whole. Views that are not refined go with the others.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation x + translation."""

    rotation: np.ndarray
    """float64 [3, 3]."""
    scale: float
    translation: np.ndarray
    """float64 [3]."""

    def moved(self, pose: np.ndarray) -> np.ndarray:
        """Return a pose, float64 [3, 4] (camera to scene), that goes with the scene."""
        place = self.scale * (self.rotation @ pose[:3, 3]) + self.translation
        return np.column_stack([self.rotation @ pose[:3, :3], place])


def common_motion(before: np.ndarray, after: np.ndarray) -> Similarity:
    """Return the similarity that takes poses to others as nearly as it can.

    The rotation is the mean of the poses' own (Moakher 2002, projected arithmetic mean), which is
    known for cameras in a line too; scale and translation fit the places by least squares, with
    the rotation held (Umeyama 1991).

    Args:
        before: float64 [n, 3, 4], n at least 1: camera to scene.
        after: the same of the same cameras.
    """
    turns = np.einsum("nij,nkj->ik", after[:, :, :3], before[:, :, :3])
    u, _, v = np.linalg.svd(turns)
    rotation = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ v))]) @ v
    first, last = before[:, :, 3].mean(axis=0), after[:, :, 3].mean(axis=0)
    arms, goals = (before[:, :, 3] - first) @ rotation.T, after[:, :, 3] - last
    spread = float((arms**2).sum())
    # cameras in one place say nothing of the scale
    scale = float((arms * goals).sum()) / spread if spread > 0 else 1.0
    return Similarity(rotation, scale, last - scale * (rotation @ first))
