"""Light through a medium in float64, by quadrature. Twin of primitives/volume/kernels/.

A medium is an array of densities [x, y, z] at whole index coordinates, 0 outside it, and an affine
map [4, 4] from index to world.
"""

import numpy as np


def sky(light, directions):
    """Radiance [n, 3] from unit directions [n, 3]; ``light``: a Light."""
    h = directions[:, "xyz".index(light.up)]
    share = 1 - (1 - np.abs(h)) ** 3
    end = np.where((h >= 0)[:, None], light.zenith, light.ground)
    return np.array(light.horizon) * (1 - share)[:, None] + end * share[:, None]


def density(values, index):
    """Trilinear interpolation at index coordinates [..., 3]."""
    padded = np.pad(values.astype(np.float64), 1)
    p = np.clip(index + 1, 0, np.array(padded.shape) - 1 - 1e-12)
    cell = p.astype(int)
    f = p - cell
    result = 0.0
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, f, 1 - f), axis=-1)
        result = result + weight * padded[tuple(np.moveaxis(cell + corner, -1, 0))]
    return result


def at(matrix, points):
    """Apply an affine map [4, 4] to points [..., 3]."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def optical_depth(values, to_world, origins, directions, length, n):
    """Integral of the density over a length along rays [..., 3], by n midpoints."""
    inverse = np.linalg.inv(to_world)
    t = (np.arange(n) + 0.5) * length / n
    points = origins[..., None, :] + t[:, None] * directions[..., None, :]
    return density(values, at(inverse, points)).sum(axis=-1) * length / n


def phase(g, cosine):
    """Henyey and Greenstein's phase function."""
    return (1 - g * g) / (4 * np.pi * (1 + g * g - 2 * g * cosine) ** 1.5)


def sphere(n):
    """2 n^2 directions of equal solid angle, and that angle."""
    z = (np.arange(n) + 0.5) * 2 / n - 1
    turn = (np.arange(2 * n) + 0.5) * np.pi / n
    z, turn = (a.ravel() for a in np.meshgrid(z, turn, indexing="ij"))
    s = np.sqrt(1 - z * z)
    return np.stack([s * np.cos(turn), s * np.sin(turn), z], axis=1), 4 * np.pi / len(z)


def single_scattering(medium, light, origin, direction, length, *, n=160, n_sphere=14, n_in=80):
    """Radiance [3] that has scattered once along a ray; the sun is a point.

    Args:
        medium: (values, to_world, extinction of density 1, albedo, g).
        light: a Light.
        origin: [3], outside the medium.
        direction: [3], unit.
        length: of the ray, and of those that light comes along: what is beyond is empty.
        n: points along the ray.
        n_sphere: half the directions about a turn.
        n_in: points along the rays that light comes along.
    """
    values, to_world, scale, albedo, g = medium
    t = (np.arange(n) + 0.5) * length / n
    points = origin + t[:, None] * direction
    rate = scale * density(values, at(np.linalg.inv(to_world), points))
    here = rate > 0
    points, rate, step = points[here], rate[here], length / n
    before = np.exp(-(np.cumsum(rate) - rate / 2) * step)
    sun = light.sun_direction
    depth = optical_depth(values, to_world, points, np.tile(sun, (len(points), 1)), length, n_in)
    light_in = (phase(g, direction @ sun) * np.exp(-scale * depth))[:, None] * light.sun_irradiance
    directions, angle = sphere(n_sphere)
    for v in directions:
        depth = optical_depth(values, to_world, points, np.tile(v, (len(points), 1)), length, n_in)
        share = phase(g, direction @ v) * np.exp(-scale * depth) * angle
        light_in += share[:, None] * sky(light, v[None])
    return np.sum((before * rate * albedo * step)[:, None] * light_in, axis=0)


def chandrasekhar_h(mu, albedo, n=64):
    """Chandrasekhar's H function of isotropic scattering (1950, section 40), by iteration."""
    x, w = np.polynomial.legendre.leggauss(n)
    x, w = (x + 1) / 2, w / 2
    h = np.ones(n)

    def update(at_mu):
        # the form that converges: 1/H = sqrt(1 - albedo) + albedo/2 sum w x' H / (mu + x')
        kernel = (w * x * h / (at_mu[:, None] + x)).sum(axis=1)
        return 1 / (np.sqrt(1 - albedo) + albedo / 2 * kernel)

    for _ in range(200):
        h = update(x)
    return float(update(np.array([mu]))[0])
