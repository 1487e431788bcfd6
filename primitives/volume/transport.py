"""Light through a medium along given rays: transmittances, and first collisions with their light.

Monte Carlo estimates without bias, except where a bound on scatterings is said to cut paths. All
random numbers follow from the seed, the ray's index and the sample: results are the same for any
number of threads. Not differentiable.
"""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import check_choice
from ngp_warp.errors import ConfigError, DataError, ShapeError
from ngp_warp.primitives.volume.kernels.paths import (
    EXCEEDED,
    N_COUNTS,
    collision_kernel,
    transmittance_kernel,
)
from ngp_warp.primitives.volume.kernels.tracking import Method
from ngp_warp.primitives.volume.light import Light
from ngp_warp.primitives.volume.medium import Medium

MAX_BOUNCES = 4096
"""Scatterings after which a path is cut, unless another number is given. What is lost is the light
of longer paths: at albedo 0.95 a share of 0.95^4096 = 1e-91, that is none; at albedo 1 and an
optical depth of hundreds a visible one, of which pictures state the number of paths."""


@dataclass(frozen=True)
class Transmittances:
    """Estimates of the share of light that rays let through."""

    mean: np.ndarray
    """float64 [n], 0 to 1."""
    error: np.ndarray
    """float64 [n]: standard error of the mean."""
    moves: np.ndarray
    """int32 [n]: blocks, or cubes of empty ones, that all samples of the ray went through."""
    lookups: np.ndarray
    """int32 [n]: how often they looked up the density."""


@dataclass(frozen=True)
class Collisions:
    """Where rays first collide with the medium."""

    hit: np.ndarray
    """bool [n]; false: the ray escaped, and all else is 0."""
    points: np.ndarray
    """float64 [n, 3], in the world."""
    densities: np.ndarray
    """float32 [n]: of the field, there."""
    radiances: np.ndarray
    """float32 [n, 3], linear RGB: one path's estimate of the light that the collision sends towards
    the ray's origin (its expectation is the scattered radiance there)."""


def check_seed(seed: int) -> None:
    """Raise ConfigError unless kernels can take a seed."""
    if not 0 <= seed < 2**31:
        raise ConfigError(f"the seed must be from 0 to 2^31 - 1, got {seed}")


def check_majorants(exceeded: int) -> None:
    """Raise unless no lookup found a density above its majorant: what is tracked is wrong then.

    Args:
        exceeded: how many lookups did.

    Raises:
        DataError: says so.
    """
    if exceeded:
        raise DataError(
            f"the density exceeds its majorant at {exceeded} collisions: the result is biased; "
            "the majorants must bound the field"
        )


def transmittances(
    medium: Medium,
    rays_o: np.ndarray,
    rays_d: np.ndarray,
    *,
    spp: int = 64,
    method: Method = "ratio",
    seed: int = 0,
) -> Transmittances:
    """Estimate exp(-integral of the extinction) along rays from their origins to infinity.

    Args:
        medium: what is in the way.
        rays_o: [n, 3], origins in the world.
        rays_d: [n, 3], unit directions.
        spp: independent samples of a ray.
        method: "ratio": products of 1 - density / majorant; "delta": whether a photon collides.
        seed: of the random numbers.

    Raises:
        ConfigError: a number out of its range, or an unknown method.
        ShapeError: rays of other shapes.
        DataError: the medium's majorants do not bound its field.
    """
    check_seed(seed)
    if spp < 1:
        raise ConfigError(f"spp must be at least 1, got {spp}")
    check_choice("method", method, get_args(Method))
    n, device = len(rays_o), medium.device
    origins, directions = _rays(medium, rays_o, rays_d)
    sums, squares = (wp.zeros(n, dtype=wp.float64, device=device) for _ in range(2))
    work = wp.zeros((n, 3), dtype=wp.int32, device=device)
    args = [medium.data, medium.cloud, origins, directions, seed, spp, sums, squares, work]
    launch.launch(transmittance_kernel(medium.kind, method), n, args, device)
    counts = work.numpy()
    check_majorants(int(counts[:, 2].sum()))
    mean, error = mean_and_error(sums.numpy(), squares.numpy(), spp)
    return Transmittances(mean, error, counts[:, 0], counts[:, 1])


def collisions(
    medium: Medium,
    light: Light,
    rays_o: np.ndarray,
    rays_d: np.ndarray,
    *,
    sample: int = 0,
    seed: int = 0,
    max_bounces: int = MAX_BOUNCES,
) -> Collisions:
    """Follow each ray to its first collision and one path from there to the light.

    Args:
        medium: what is looked at.
        light: the sky and the sun.
        rays_o: [n, 3], origins in the world.
        rays_d: [n, 3], unit directions.
        sample: number of the sample: others are independent.
        seed: of the random numbers.
        max_bounces: scatterings after which a path is cut.

    Raises:
        ConfigError: a number out of its range.
        ShapeError: rays of other shapes.
        DataError: the medium's majorants do not bound its field.
    """
    check_seed(seed)
    check_bounces(max_bounces)
    if not 0 <= sample < 2**31:
        raise ConfigError(f"the sample must be from 0 to 2^31 - 1, got {sample}")
    n, device = len(rays_o), medium.device
    origins, directions = _rays(medium, rays_o, rays_d)
    vec3: Any = wp.vec3
    positions, radiances = (wp.zeros(n, dtype=vec3, device=device) for _ in range(2))
    densities = wp.zeros(n, dtype=wp.float32, device=device)
    counts = wp.zeros((n, N_COUNTS), dtype=wp.int32, device=device)
    args = [medium.data, medium.cloud, light.data(), origins, directions, seed, sample]
    args += [max_bounces, positions, densities, radiances, counts]
    launch.launch(collision_kernel(medium.kind), n, args, device)
    found = counts.numpy()
    check_majorants(int(found[:, EXCEEDED].sum()))
    hit = found[:, 0] > 0
    points = np.where(hit[:, None], medium.world_points(positions.numpy()), 0.0)
    return Collisions(hit, points, densities.numpy(), radiances.numpy())


def check_bounces(max_bounces: int) -> None:
    """Raise ConfigError unless paths may scatter at least once."""
    if not 1 <= max_bounces < 2**31:
        raise ConfigError(f"max_bounces must be from 1 to 2^31 - 1, got {max_bounces}")


def mean_and_error(sums: np.ndarray, squares: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return means and their standard errors (infinite for n = 1), of sums over n samples."""
    mean = sums / n
    if n == 1:
        return mean, np.full_like(mean, np.inf)
    variance = np.maximum(squares / n - mean**2, 0) * n / (n - 1)
    return mean, np.sqrt(variance / n)


def _rays(medium: Medium, rays_o: np.ndarray, rays_d: np.ndarray) -> tuple[Any, Any]:
    """Return origins in the grid and directions in the world, on the device."""
    for name, array in (("rays_o", rays_o), ("rays_d", rays_d)):
        if array.shape != (len(rays_o), 3):
            raise ShapeError(f"{name} must have shape [{len(rays_o)}, 3], got {list(array.shape)}")
    lengths = np.linalg.norm(rays_d, axis=1)
    if not np.allclose(lengths, 1, atol=1e-3):
        raise ShapeError("rays_d must be unit vectors")
    vec3: Any = wp.vec3
    return (
        wp.array(medium.grid_points(rays_o), dtype=vec3, device=medium.device),
        wp.array(np.asarray(rays_d, np.float32), dtype=vec3, device=medium.device),
    )
