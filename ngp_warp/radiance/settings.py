"""What a radiance field's kernels and networks follow from."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ngp_warp.config import GridEncodingConfig, Loss, NetworkConfig, check_choice, check_range

ColorSpace = Literal["srgb", "linear"]

AABB_SCALES = tuple(2**k for k in range(8))
"""Sides that the box may have, in sides of the inner cube."""
MAX_SAMPLES = 1024
"""Samples of a training ray."""
CELLS = 128
"""Cells of a cascade of the occupancy grid along an axis."""
N_GEOMETRY = 16
"""Outputs of the density network; the first is the logarithm of the density."""
N_DIRECTION = 16
"""Spherical harmonics of a direction up to degree 4 (bands 0 to 3)."""


@dataclass(frozen=True, kw_only=True)
class RadianceSettings:
    """A radiance field, resolved: nothing is left to be chosen.

    Distances are in sides of the box, the unit cube. The inner cube (cascade 0) is ``aabb_scale``
    times smaller, about the same centre; densities are for one of its sides.
    """

    encoding: GridEncodingConfig
    """Resolved."""
    density_network: NetworkConfig
    """From the encoding to N_GEOMETRY values."""
    color_network: NetworkConfig
    """From N_GEOMETRY + N_DIRECTION + n_latent_dims values to red, green and blue."""
    aabb_scale: int = 1
    """Side of the box in sides of the inner cube: a power of two from 1 to 128."""
    steps: int = 1024
    """Shortest steps in the diagonal of the inner cube."""
    render_steps: int | None = None
    """The same in pictures, which cost little beside training; None: as in training."""
    cone_angle: float = 0.0
    """Growth of a step with the distance; 0: all steps have the shortest length."""
    near: float = 0.0
    """Distance from the camera at which rays begin, in sides of the box."""
    max_samples: int = MAX_SAMPLES
    """Samples after which a ray ends."""
    min_transmittance: float = 1e-4
    """A ray ends where less light than this passes."""
    batch_samples: int = 2**16
    """Samples of a training step that the number of rays is adapted to."""
    max_rays: int = 2**15
    """Most rays of a training step."""
    n_views: int = 0
    """Views with a latent vector, an exposure or both."""
    n_latent_dims: int = 0
    """Length of a view's latent vector; 0: none."""
    loss: Loss = "huber"
    """Between composited and true colours."""
    depth_weight: float = 0.0
    """Weight of the depth loss."""
    distortion_weight: float = 0.0
    """Weight of the distortion loss (Barron et al. 2022)."""
    exposure: bool = False
    """Colours are exposed by ``RayBatch.exposure`` before they are compared."""
    ray_gradients: bool = False
    """Training fills the gradients of origins and directions."""
    background_gradients: bool = False
    """Training fills the gradients of the backgrounds."""
    color_space: ColorSpace = "srgb"
    """Of colours, targets and backgrounds; compositing takes place in it."""

    def __post_init__(self):
        check_choice("aabb_scale", self.aabb_scale, AABB_SCALES)
        check_choice("loss", self.loss, get_args(Loss))
        check_choice("color_space", self.color_space, get_args(ColorSpace))
        check_range("steps", self.steps, 1, 16384)
        check_range("render_steps", self.render_steps, 1, 16384)
        check_range("cone_angle", self.cone_angle, 0.0, 1.0)
        check_range("near", self.near, 0.0)
        check_range("max_samples", self.max_samples, 1, 2**20)
        check_range("min_transmittance", self.min_transmittance, 0.0, 0.5)
        check_range("batch_samples", self.batch_samples, 32, 2**24)
        check_range("max_rays", self.max_rays, 1, 2**22)
        check_range("depth_weight", self.depth_weight, 0.0)
        check_range("distortion_weight", self.distortion_weight, 0.0)

    @property
    def rendering(self) -> "RadianceSettings":
        """These settings with the steps of pictures: all steps are shorter by the same factor."""
        if self.render_steps is None:
            return self
        finer = self.render_steps / self.steps
        return replace(
            self,
            steps=self.render_steps,
            cone_angle=self.cone_angle / finer,
            max_samples=math.ceil(self.max_samples * max(finer, 1.0)),
        )

    @property
    def n_cascades(self) -> int:
        """Cubes of the occupancy grid, each twice as large as the one before."""
        return self.aabb_scale.bit_length()

    @property
    def min_step(self) -> float:
        """Shortest step, in sides of the box."""
        return math.sqrt(3) / self.steps / self.aabb_scale

    @property
    def max_step(self) -> float:
        """Longest step, in sides of the box."""
        return math.sqrt(3) / 16
