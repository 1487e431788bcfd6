"""Batches of training rays from photos: a seed and a step give the batch.

A pixel is drawn from all pixels alike, so that a photo counts by its size. Targets are composited
over the background in the colour space of the photos.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ConfigError
from ngp_warp.primitives.nerf.kernels import draw as kernels
from ngp_warp.primitives.nerf.views import ViewArrays
from ngp_warp.radiance.batch import RayBatch

if TYPE_CHECKING:
    from ngp_warp.primitives.nerf.environment import Environment

Color = tuple[float, float, float]
Background = Literal["random"] | Color
"""A colour for every ray, in [0, 1), or one for all."""

# many, as the rays that count are the first ones of the batch, often a part of it
_SHARDS = 16


@dataclass
class Draw:
    """The drawing of batches, and what it knows of their rays."""

    stages: list[list[launch.Launch]]
    """Fill the batch's inputs."""
    pixel: wp.array
    """int32 [capacity * 2]: column and row of each ray's pixel."""
    alpha: wp.array
    """float32 [capacity]: opacity of each ray's pixel."""


def draw_rays(
    views: ViewArrays,
    batch: RayBatch,
    step: wp.array,
    seed: int,
    *,
    background: Background = "random",
    environment: "Environment | None" = None,
    crop_steps: int = 0,
) -> Draw:
    """Record the drawing of a batch.

    It fills origin, direction, jitter, view, weight, target, background, depth_target and, where
    the batch has it, exposure, of the first ``batch.count`` rays. The weight is 0 where a mask is
    0 or the lens has no ray.

    Args:
        views: their poses, lenses and exposures are read at each run.
        batch: its ``count`` is read at each run.
        step: int64 [1] on the device, read at each run.
        seed: of every random number.
        background: random, or one colour, in the photos' colour space.
        environment: takes the place of ``background``.
        crop_steps: pixels of this many first steps, counted from 1, are drawn from the middle
            halves of the photos' rows and columns alone.

    Raises:
        ShapeError: an array on another device.
        ConfigError: an environment in another colour space than that of the photos.
    """
    launch.check_size("step", step, 1, views.device)
    launch.check_size("the batch's count", batch.count, 1, views.device)
    n, device = batch.capacity, views.device
    pixel = wp.zeros(n * 2, dtype=wp.int32, device=device)
    alpha = wp.zeros(n, dtype=wp.float32, device=device)
    photos = [views.pixels, views.masks, views.depths, views.offsets, views.sizes]
    kind = views.pixels.dtype, views.masks.size > 0, views.depths.size > 0
    args: list[Any] = [*photos, seed, step, crop_steps, batch.count, batch.view, pixel]
    pick = launch.record(kernels.pick_kernel(*kind), n, args, device, shards=_SHARDS)
    fixed = wp.vec3(0.0, 0.0, 0.0) if isinstance(background, str) else wp.vec3(*background)
    mode: kernels.Background = "random" if isinstance(background, str) else "fixed"
    texels, size = wp.zeros(0, dtype=wp.float32, device=device), (0, 0)
    if environment is not None:
        if environment.color_space != views.color_space:
            raise ConfigError(
                f"an environment in {environment.color_space} cannot stand behind photos in "
                f"{views.color_space}"
            )
        mode, texels, size = "environment", environment.texels.value, environment.size
    args = [*photos, views.poses, views.lenses, views.exposures, float(views.frame.scale)]
    args += [seed, step, batch.count, fixed, texels, *size, batch.view, pixel, alpha]
    args += [batch.target, batch.weight, batch.depth_target, batch.origin, batch.direction]
    args += [batch.jitter, batch.background, batch.exposure]
    kernel = kernels.ray_kernel(*kind, mode, views.color_space, batch.exposure.size > 0)
    rays = launch.record(kernel, n, args, device, shards=_SHARDS)
    return Draw([[pick], [rays]], pixel, alpha)
