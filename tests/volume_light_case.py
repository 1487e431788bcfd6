"""Media, lights and rays of the tests of light through volumes."""

import numpy as np

from ngp_warp.primitives.volume.light import Light

SIGMAS = 4
BLACK = (0.0, 0.0, 0.0)
GREY = (0.7, 0.7, 0.7)
UNIFORM = Light(zenith=GREY, horizon=GREY, ground=GREY, sun_radiance=BLACK)
ALL_SUN = Light(zenith=BLACK, horizon=BLACK, ground=BLACK, sun_diameter=360.0, sun_radiance=GREY)

# anisotropic, sheared, rotated, moved
SHEARED = np.array([[0.5, 0.2, 0.0, 3], [-0.1, 0.8, 0.1, -2], [0.2, 0, 1.3, 1], [0, 0, 0, 1]])


def smooth(shape=(9, 7, 8), seed=0):
    """Densities of 0.2 to 1."""
    return np.random.default_rng(seed).uniform(0.2, 1.0, shape)


def sparse(n=40, seed=0):
    """Densities that are 0 outside some balls."""
    rng = np.random.default_rng(seed)
    index = np.moveaxis(np.indices((n, n, n)), 0, -1)
    values = np.zeros((n, n, n))
    for centre, radius in zip(rng.uniform(0, n, (6, 3)), rng.uniform(2, 6, 6), strict=True):
        distance = np.linalg.norm(index - centre, axis=-1)
        values = np.maximum(values, np.clip(1 - distance / radius, 0, 1) * rng.uniform(0.1, 5))
    return values


def inward_rays(medium, n, seed=0):
    """Origins and directions of rays from around a medium to points in it, world."""
    rng = np.random.default_rng(seed)
    side, offset = medium.cube
    middle = np.array(offset) + side / 2
    out = rng.standard_normal((n, 3))
    origins = middle + 2 * side * out / np.linalg.norm(out, axis=1, keepdims=True)
    targets = middle + side * rng.uniform(-0.4, 0.4, (n, 3))
    directions = targets - origins
    return origins, directions / np.linalg.norm(directions, axis=1, keepdims=True)


def middle_ray(medium, n):
    """n times the ray [1, 3] through a medium's middle, from two sides of its cube away."""
    side, offset = medium.cube
    direction = np.array([0.6, 0.48, 0.64])
    origin = np.array(offset) + side / 2 - 2 * side * direction
    return np.tile(origin, (n, 1)), np.tile(direction, (n, 1))


def check_means(samples, expected):
    """Compare means over samples [n, ...] with their expectation; the error is not 0."""
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    assert (error > 0).all()
    assert (np.abs(samples.mean(axis=0) - expected) <= SIGMAS * error).all()
