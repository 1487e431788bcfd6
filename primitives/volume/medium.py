"""A medium that scatters and absorbs light: a density field, its extinction and its phase function.

Three frames: the *world*; *index* coordinates, in which a volume's values lie at whole numbers
(``grid.Volume``); *grid* coordinates, index coordinates moved so that the padded grid of majorants
begins at 0. Rays are tracked in grid coordinates with their world length as the parameter, so that
voxels may be of any shape that an affine map gives them.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import check_range
from ngp_warp.errors import DataError
from ngp_warp.primitives.volume.grid import Index, Volume, bounding_cube, checked_transform
from ngp_warp.primitives.volume.kernels.blocks import Blocks
from ngp_warp.primitives.volume.kernels.fields import (
    DENSE,
    DenseField,
    FieldKind,
    density_kernel,
)
from ngp_warp.primitives.volume.kernels.tracking import Cloud
from ngp_warp.primitives.volume.majorants import (
    BLOCK,
    block_majorants,
    empty_reaches,
    padded,
)

DEFAULT_ALBEDO = 0.95
DEFAULT_DEPTH = 60.0
"""Optical depth that the longest side of the box would have at the largest density."""
DENSITY_SCALES = (1e-37, 1e37)
"""The least and the greatest extinction of density 1: float32's, with room for a few factors."""
_MOST_ANISOTROPIC = 0.99
_LARGEST = 3e38  # of a float32


@dataclass(frozen=True, kw_only=True, eq=False)
class Medium:
    """A density field with optical properties, on a device.

    ``from_values`` and ``from_volume`` make one of a dense grid; any other field needs a kind of
    its own (``kernels/fields.FieldKind``) and majorants that bound it: light is tracked alike.

    The extinction coefficient at a point is ``density_scale`` times its density, the scattering
    coefficient ``albedo`` times the extinction.
    """

    kind: FieldKind
    """What kernels know of the field."""
    data: Any
    """Its ``kind.data``, on ``device``."""
    majorants: np.ndarray
    """float32 [x, y, z]: bounds of the density in the blocks of the grid; 0: the block is empty."""
    block: int
    """Grid units along a side of a block."""
    to_grid: np.ndarray
    """float64 [4, 4], world to grid coordinates, for column vectors."""
    box: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Lower and upper corner of what is not empty, grid coordinates; inside the grid of blocks."""
    density_scale: float
    """Extinction (1 / world unit) of density 1."""
    albedo: float = DEFAULT_ALBEDO
    """Share of a collision's light that is scattered, 0 to 1; the rest is absorbed."""
    g: float = 0.0
    """Mean cosine of a scattering (Henyey and Greenstein 1941), -0.99 to 0.99; 0: isotropic."""
    device: str = "cpu"
    """Where the field lies."""

    def __post_init__(self):
        check_range("density_scale", self.density_scale, *DENSITY_SCALES)
        check_range("albedo", self.albedo, 0, 1)
        check_range("g", self.g, -_MOST_ANISOTROPIC, _MOST_ANISOTROPIC)

    @classmethod
    def from_values(
        cls,
        values: np.ndarray,
        to_world: np.ndarray | None = None,
        first: Index = (0, 0, 0),
        *,
        density_scale: float | None = None,
        albedo: float = DEFAULT_ALBEDO,
        g: float = 0.0,
        block: int = BLOCK,
        device: str = "cpu",
    ) -> "Medium":
        """Make a medium of densities at voxels' middles, trilinear in between.

        Outside the array the density is 0: it falls to that within one voxel of the outermost
        middles, as OpenVDB's sampler has it. Negative values count as 0.

        Args:
            values: [x, y, z], finite.
            to_world: float64 [4, 4], index to world; None: the index itself.
            first: index of ``values[0, 0, 0]``.
            density_scale: extinction (1 / world unit) of density 1; None: such that the longest
                side of the box has optical depth ``DEFAULT_DEPTH`` at the largest density.
            albedo: of the whole medium.
            g: of its phase function.
            block: cells along a side of a majorant's block.
            device: "cpu" or a CUDA device.

        Raises:
            ShapeError: values that are no scalars on a grid, or a transform of another shape.
            DataError: values that are not finite, or a singular transform.
            ConfigError: a setting out of its range.
        """
        matrix = checked_transform(to_world)
        if not np.isfinite(values).all() or values.max(initial=0) > _LARGEST:
            raise DataError("densities must be finite, as float32")
        grid = padded(values, block)
        majorants = block_majorants(grid, block)
        if density_scale is None:
            density_scale = default_density_scale(values, matrix)
        data: Any = DenseField()
        data.values = wp.array(grid, dtype=wp.float32, device=device, copy=False)
        x, y, z = (float(n + 1) for n in values.shape)
        return cls(
            kind=DENSE,
            data=data,
            majorants=majorants,
            block=block,
            to_grid=grid_from_world(matrix, first),
            box=((0.0, 0.0, 0.0), (x, y, z)),
            density_scale=density_scale,
            albedo=albedo,
            g=g,
            device=device,
        )

    @classmethod
    def from_volume(cls, volume: Volume, **options: Any) -> "Medium":
        """Make a medium of a volume's values; see ``from_values`` for the options.

        Raises:
            DataError: vectors, or signed distances: neither are densities.
            ConfigError: an option out of its range.
        """
        if volume.n_channels != 1:
            raise DataError(
                f"a medium needs one density a voxel, {volume.name!r} has vectors; fit them with "
                "--mode density"
            )
        if volume.grid_class == "level set":
            raise DataError(
                f"{volume.name!r} holds signed distances, which are no densities; fit them with "
                "--mode density"
            )
        return cls.from_values(
            volume.values.reshape(volume.values.shape[:3]),
            volume.to_world,
            volume.first,
            **options,
        )

    @property
    def cloud(self) -> Any:
        """The struct that kernels take beside ``data`` (``kernels/tracking.Cloud``)."""
        return self._structs[0]

    @cached_property
    def _structs(self) -> tuple[Any, ...]:
        """``cloud`` and what it points to: a struct holds addresses, which do not keep arrays."""
        return cloud_structs(
            self.majorants,
            self.block,
            self.to_grid,
            self.density_scale,
            albedo=self.albedo,
            g=self.g,
            device=self.device,
        )

    def grid_points(self, points: np.ndarray) -> np.ndarray:
        """Return world points [n, 3] in grid coordinates, float32 [n, 3]."""
        moved = np.asarray(points, np.float64) @ self.to_grid[:3, :3].T + self.to_grid[:3, 3]
        return moved.astype(np.float32)

    def world_points(self, points: np.ndarray) -> np.ndarray:
        """Return grid points [n, 3] in world coordinates, float64 [n, 3]."""
        matrix = np.linalg.inv(self.to_grid)
        return np.asarray(points, np.float64) @ matrix[:3, :3].T + matrix[:3, 3]

    def densities(self, points: np.ndarray) -> np.ndarray:
        """Return the density at world points [n, 3], float32 [n]; 0 outside the grid."""
        vec3: Any = wp.vec3
        at = wp.array(self.grid_points(points), dtype=vec3, device=self.device)
        out = wp.zeros(len(at), dtype=wp.float32, device=self.device)
        upper = wp.vec3(*(float(n * self.block) for n in self.majorants.shape))
        args = [self.data, upper, at, out]
        launch.launch(density_kernel(self.kind), len(at), args, self.device)
        return out.numpy()

    @cached_property
    def cube(self) -> tuple[float, tuple[float, float, float]]:
        """Scale and offset that take the unit cube to one about the medium, in the world.

        For ``Camera.moved``: a camera made for the unit cube then looks at the medium.
        """
        low, high = (np.array(corner) for corner in self.box)
        return bounding_cube(low, high, np.linalg.inv(self.to_grid))


def grid_from_world(to_world: np.ndarray, first: Index) -> np.ndarray:
    """Return the map from the world to grid coordinates, float64 [4, 4], of a volume.

    Args:
        to_world: float64 [4, 4], index to world.
        first: index of the first value, which lies at 1: there is a plane of zeros before it.
    """
    move = np.eye(4)
    move[:3, 3] = 1 - np.array(first, np.float64)
    return move @ np.linalg.inv(to_world)


def default_density_scale(values: np.ndarray, to_world: np.ndarray) -> float:
    """Return what gives the longest side of a box optical depth ``DEFAULT_DEPTH``, all full."""
    sides = np.linalg.norm(to_world[:3, :3], axis=0) * values.shape
    scale = DEFAULT_DEPTH / float(sides.max() * (max(float(values.max()), 0.0) or 1.0))
    return min(max(scale, DENSITY_SCALES[0]), DENSITY_SCALES[1])


def cloud_structs(
    majorants: np.ndarray,
    block: int,
    to_grid: np.ndarray,
    density_scale: float,
    *,
    albedo: float,
    g: float = 0.0,
    device: str = "cpu",
) -> tuple[Any, ...]:
    """Return a ``kernels/tracking.Cloud``, and what must be kept as long as it is used.

    Arguments as the members of ``Medium``.
    """
    bounds = wp.array(majorants, dtype=wp.float32, device=device)
    reaches = wp.array(empty_reaches(majorants), dtype=wp.int32, device=device)
    blocks: Any = Blocks()
    blocks.majorants, blocks.reaches, blocks.size = bounds, reaches, float(block)
    cloud: Any = Cloud()
    cloud.blocks = blocks
    cloud.to_grid = wp.mat33(*to_grid[:3, :3].ravel().tolist())
    cloud.scale, cloud.albedo, cloud.g = density_scale, albedo, g
    return cloud, blocks, bounds, reaches
