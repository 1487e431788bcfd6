"""A radiance field in closed form with the methods of ``RadianceField``, rendered by quadrature."""

from dataclasses import dataclass, field

import numpy as np

from ngp_warp.config import GridEncodingConfig, NetworkConfig
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.radiance.settings import CELLS, RadianceSettings


def settings(**more):
    return RadianceSettings(
        encoding=GridEncodingConfig(),
        density_network=NetworkConfig(),
        color_network=NetworkConfig(),
        **more,
    )


@dataclass
class Rendered:
    color: np.ndarray
    opacity: np.ndarray
    depth: np.ndarray
    n_samples: np.ndarray


def odd_frame(aabb_scale=1):
    return Frame(scale=0.037, offset=(0.61, 0.4, 0.47), aabb_scale=aabb_scale)


AT_ONCE = 16
"""Samples of a ray; opaque rays end after so many."""


class Values:
    """As a ``wp.array``, as far as it is read."""

    def __init__(self, values):
        self._values = values

    def numpy(self):
        return self._values


class Occupancy:
    """Cells that may hold a density, found in cubes of 4^3 of them."""

    def __init__(self, field):
        self.n_cascades = field.settings.n_cascades
        n = CELLS // 4
        middles = (np.arange(n) + 0.5) / n - 0.5
        parts = []
        for k in range(self.n_cascades):
            side = 2.0**k / field.settings.aabb_scale
            z, y, x = np.meshgrid(*[0.5 + side * middles] * 3, indexing="ij")
            points = np.stack([x, y, z], axis=-1).reshape(-1, 3)
            found = field.density(points, grow=0.87 * side / n) * field.settings.min_step
            found = found.reshape(n, n, n) * field.settings.aabb_scale
            parts.append(found.repeat(4, 0).repeat(4, 1).repeat(4, 2))
        self._cells = np.stack(parts).astype(np.float32)
        self.values = Values(self._cells.reshape(-1))

    def occupied(self):
        return self._cells > 0.01


@dataclass
class StandIn:
    """A soft ball (by default) whose colour is its place in the box and, a little, the direction.

    distance: points [n, 3] -> signed distances [n], in the box. The density is ``peak`` per side of
    the inner cube inside and falls off as a logistic function of ``softness``.
    """

    distance: object = None
    peak: float = 2000.0
    softness: float = 0.002
    tint: float = 0.0
    settings: RadianceSettings = field(default_factory=settings)
    n_steps: int = 384

    def __post_init__(self):
        if self.distance is None:
            self.distance = lambda p: np.linalg.norm(p - 0.5, axis=1) - 0.2
        self.latents = []

    @property
    def occupancy(self):
        return Occupancy(self)

    def density(self, points, grow=0.0):
        d = (self.distance(np.asarray(points, np.float64)) - grow) / self.softness
        return (self.peak / (1 + np.exp(np.clip(d, -40, 40)))).astype(np.float32)

    def color(self, points, directions):
        d = np.asarray(directions, np.float64)
        values = np.asarray(points) * (1 - self.tint) + self.tint * (0.5 + 0.5 * d)
        return np.clip(values, 0, 1).astype(np.float32)

    def render_rays(self, origins, directions, *, background=(0, 0, 0), latent=None):
        self.latents.append(latent)
        o, d = (np.asarray(v, np.float64) for v in (origins, directions))
        with np.errstate(divide="ignore"):
            sides = np.stack([(0 - o) / d, (1 - o) / d])
        t0 = np.maximum(np.nanmax(np.min(sides, axis=0), axis=1), self.settings.near)
        t1 = np.maximum(np.nanmin(np.max(sides, axis=0), axis=1), t0)
        dt = (t1 - t0) / self.n_steps
        color, opacity, depth = np.zeros((len(o), 3)), np.zeros(len(o)), np.zeros(len(o))
        active = np.flatnonzero(dt > 0)
        for begin in range(0, self.n_steps, AT_ONCE):
            k = np.arange(begin, min(begin + AT_ONCE, self.n_steps))
            t = t0[active, None] + (k + 0.5) * dt[active, None]
            flat = (o[active, None] + t[..., None] * d[active, None]).reshape(-1, 3)
            sigma = self.density(flat).reshape(t.shape).astype(np.float64)
            alpha = 1 - np.exp(-sigma * dt[active, None] * self.settings.aabb_scale)
            before = np.cumprod(np.concatenate([np.ones((len(t), 1)), 1 - alpha], axis=1), axis=1)
            weights = (1 - opacity[active, None]) * before[:, :-1] * alpha
            kept = np.flatnonzero(weights.ravel() > 1e-6)
            colors = np.zeros((weights.size, 3))
            colors[kept] = self.color(flat[kept], d[active[kept // t.shape[1]]])
            color[active] += (weights[..., None] * colors.reshape(*t.shape, 3)).sum(axis=1)
            depth[active] += (weights * t).sum(axis=1)
            opacity[active] += weights.sum(axis=1)
            active = active[opacity[active] < 1 - 1e-5]
            if not len(active):
                break
        if background is not None:
            color += (1 - opacity)[:, None] * np.asarray(background)
        depth = np.where(opacity > 1e-4, depth / np.maximum(opacity, 1e-4), np.inf)
        as_float = (v.astype(np.float32) for v in (color, opacity, depth))
        return Rendered(*as_float, n_samples=np.full(len(o), self.n_steps, np.int32))
