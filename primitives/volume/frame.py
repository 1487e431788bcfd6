"""Between a volume's world, its voxels and the unit cube, in which everything is learned."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ngp_warp.primitives.volume.grid import Index


@dataclass(frozen=True)
class Frame:
    """The map ``unit = (voxel + margin + 0.5) / side``, voxels counted from the box's first.

    All axes have one scale, so that voxels stay cubes; the longest one fills the cube. With a grid
    whose finest resolution is ``side + 1`` the vertices of that level are the voxels' middles.
    """

    shape: tuple[int, int, int]
    """Voxels of the box along x, y and z."""
    first: Index
    """Index of the box's first voxel."""
    to_world: np.ndarray
    """float64 [4, 4], index to world."""
    margin: int = 0
    """Voxels around the box that the cube holds too: a medium fades out within one."""

    @property
    def side(self) -> int:
        """Voxels along a side of the unit cube."""
        return max(self.shape) + 2 * self.margin

    def voxel_from_world(self, points: np.ndarray) -> np.ndarray:
        """Return world points [n, 3] as voxels from the first, whole at middles, float64."""
        inverse = np.linalg.inv(self.to_world)
        index = np.asarray(points, np.float64) @ inverse[:3, :3].T + inverse[:3, 3]
        return index - np.array(self.first, np.float64)

    def world_from_voxel(self, voxels: np.ndarray) -> np.ndarray:
        """Return voxels [n, 3] counted from the first in the world, float64 [n, 3]."""
        index = np.asarray(voxels, np.float64) + np.array(self.first, np.float64)
        return index @ self.to_world[:3, :3].T + self.to_world[:3, 3]

    def unit_from_voxel(self, voxels: np.ndarray) -> np.ndarray:
        """Return voxels [n, 3] in the unit cube, float64 [n, 3]."""
        return (np.asarray(voxels, np.float64) + (self.margin + 0.5)) / self.side

    def voxel_from_unit(self, points: np.ndarray) -> np.ndarray:
        """Return points [n, 3] of the unit cube as voxels, float64 [n, 3]."""
        return np.asarray(points, np.float64) * self.side - (self.margin + 0.5)

    def contains(self, voxels: np.ndarray) -> np.ndarray:
        """Return bool [n]: which voxels [n, 3] are nearest to one of the box."""
        return np.all((voxels >= -0.5) & (voxels <= np.array(self.shape) - 0.5), axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "shape": list(self.shape),
            "first": list(self.first),
            "to_world": self.to_world.tolist(),
            "margin": self.margin,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Frame":
        """Return the frame that ``to_dict`` described."""
        return cls(
            tuple(values["shape"]),
            tuple(values["first"]),
            np.array(values["to_world"], np.float64),
            values["margin"],
        )
