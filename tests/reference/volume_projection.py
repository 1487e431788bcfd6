"""Pictures of a volume's values in float64. Twin of primitives/volume/kernels/
{sight,projection}.py.

Positions are array coordinates; a picture's rays are in one list, row by row.
"""

import numpy as np

KEY, FILL = np.array([-0.6, 0.75, 0.6]), np.array([0.9, -0.1, 0.4])


def unit(v):
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-300)


def value(values, p):
    """Trilinear interpolation at [..., 3], clamped."""
    top = np.array(values.shape) - 1
    p = np.clip(p, 0, top)
    cell = np.minimum(p.astype(int), np.maximum(top - 1, 0))
    f, total = p - cell, 0.0
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, f, 1 - f), axis=-1)
        at = np.minimum(cell + corner, top)
        total = total + weight * values[tuple(np.moveaxis(at, -1, 0))]
    return total


def gradient(values, p):
    """Central differences over a voxel to either side, less where the values end."""
    top = np.array(values.shape) - 1
    p = np.clip(p, 0, top)
    result = np.zeros(p.shape)
    for a in range(3):
        low, high = p.copy(), p.copy()
        low[..., a], high[..., a] = np.maximum(p[..., a] - 1, 0), np.minimum(p[..., a] + 1, top[a])
        width = np.maximum((high - low)[..., a], 1e-300)
        result[..., a] = (value(values, high) - value(values, low)) / width
    return result


class Rays:
    """A camera's rays of one sample a pixel in the box of a volume."""

    def __init__(self, shape, to_world, first, camera, offset, step):
        inverse = np.linalg.inv(to_world[:3, :3])
        pose = camera.camera_to_world()
        row, column = np.indices((camera.height, camera.width)).reshape(2, -1)
        x = (column + offset[0] - camera.width / 2) * camera.pixel_size
        y = (camera.height / 2 - row - offset[1]) * camera.pixel_size
        sight = np.stack([x, y, np.full(len(x), -1.0)], axis=1)
        along = sight @ (inverse @ pose[:3, :3]).T
        self.sight, self.direction = unit(sight), unit(along)
        self.scale = np.linalg.norm(sight, axis=1) / np.linalg.norm(along, axis=1)
        self.to_camera = pose[:3, :3].T @ inverse.T
        origin = inverse @ (pose[:3, 3] - to_world[:3, 3]) - first
        with np.errstate(divide="ignore"):
            bounds = np.array([np.full(3, -0.5), np.array(shape) - 0.5])
            t = (bounds[:, None] - origin) / self.direction
        entry, leave = t.min(axis=0), t.max(axis=0).min(axis=1)
        self.near = np.maximum(entry.max(axis=1), 0)
        self.start = origin + self.near[:, None] * self.direction
        self.hit = leave > self.near
        length = np.where(self.hit, leave - self.near, 1)
        self.n = np.maximum(np.ceil(length / step - 1e-3), 1).astype(int)
        self.step = length / self.n
        axis = entry.argmax(axis=1)
        self.face = -np.sign(self.direction) * (np.arange(3) == axis[:, None])

    def at(self, t):
        """Points at t [n_rays] voxels from the start."""
        return self.start + t[:, None] * self.direction

    def facing(self, gradients):
        """Unit normals towards the viewer, camera axes."""
        n = unit(gradients @ self.to_camera.T)
        n = n - 2 * np.maximum(np.sum(n * self.sight, axis=1), 0)[:, None] * self.sight
        return np.where(np.any(gradients != 0, axis=1)[:, None], unit(n), -self.sight)

    def gloss(self, n, power):
        half = unit(unit(KEY) - self.sight)
        return np.maximum(np.sum(n * half, axis=1), 0)[:, None] ** power


def diffuse(n):
    def wrapped(light):
        return (0.5 + 0.5 * n @ unit(light))[:, None] ** 2

    around = (0.5 + 0.5 * n[:, 1:2]) * [0.06, 0.07, 0.09]
    return wrapped(KEY) * [0.88, 0.83, 0.75] + wrapped(FILL) * [0.10, 0.14, 0.20] + around


def maximum(values, rays):
    """The largest value of each ray; NaN: it misses."""
    best = np.full(len(rays.n), -np.inf)
    for k in range(rays.n.max() + 1):
        here = rays.hit & (k <= rays.n)
        best = np.where(here, np.maximum(best, value(values, rays.at(k * rays.step))), best)
    return np.where(rays.hit, best, np.nan)


def surface(values, rays, level, sign, halvings):
    """Voxels from each ray's start to the surface (NaN: none) and normals, camera axes."""

    def inside(t):
        return sign * (value(values, rays.at(t)) - level) > 0

    low, high = np.zeros(len(rays.n)), np.full(len(rays.n), np.nan)
    for k in range(rays.n.max() + 1):
        t = k * rays.step
        found = rays.hit & np.isnan(high) & (k <= rays.n) & inside(t)
        high[found] = t[found]
        low[found] = np.maximum(t - rays.step, 0)[found]
    for _ in range(halvings):
        middle = (low + high) / 2
        now = inside(np.nan_to_num(middle))
        low, high = np.where(now, low, middle), np.where(now, middle, high)
    outward = -sign * gradient(values, rays.at(np.nan_to_num(high)))
    outward = np.where((high == 0)[:, None], rays.face, outward)
    return high, outward, rays.facing(outward)


def across(axis):
    """A unit vector across a unit vector (Duff et al. 2017)."""
    x, y, z = axis.T
    sign = np.where(z < 0, -1.0, 1.0)
    a = -1 / (sign + z)
    return np.stack([1 + sign * x * x * a, sign * x * y * a, -sign * x], axis=1)


def openness(values, p, outward, level, sign):
    """About how much of its surroundings a point of a surface sees."""
    slope, n = np.linalg.norm(outward, axis=1), unit(outward)
    side, cap, blocked = across(n), 0.45, 0.0
    for ring in range(7):
        turn, sine = 2 * np.pi * ring / 6, np.sqrt(cap * (2 - cap))
        w = (1 - cap) * n + sine * (np.cos(turn) * side + np.sin(turn) * np.cross(n, side))
        w = w if ring else n
        most = 0.0
        for k in range(4):
            inside = sign * (value(values, p + 1.5 * 2**k * w) - level) / slope
            most = np.maximum(most, 0.8**k * np.clip(0.5 + 0.5 * inside, 0, 1))
        blocked = blocked + most
    return 1 - blocked / 7


def surface_color(values, rays, albedo, level, sign, halvings):
    """Linear RGB of each ray; 0: nothing."""
    t, outward, n = surface(values, rays, level, sign, halvings)
    seen = openness(values, rays.at(np.nan_to_num(t)), outward, level, sign)
    seen = np.where(t == 0, 1, seen)[:, None]
    color = albedo * diffuse(n) * (0.25 + 0.75 * seen) + 0.08 * seen * rays.gloss(n, 24)
    return np.where(np.isnan(t)[:, None], 0, color)


def transfer(values, rays, start, table, low, high, edge):
    """Premultiplied linear RGB and opacity of each ray; ``table``: [n, 4]."""
    color, left = np.zeros((len(rays.n), 3)), np.ones(len(rays.n))
    knots = np.linspace(low, high, len(table))
    for k in range(rays.n.max()):
        p = rays.at((k + start) * rays.step)
        found = np.stack([np.interp(value(values, p), knots, c) for c in table.T], axis=1)
        here = rays.hit & (k < rays.n) & (left >= 1e-3)
        opacity = np.where(here, 1 - np.exp(-found[:, 3] * rays.step), 0)
        emitted = found[:, :3]
        if edge > 0:
            g = gradient(values, p)
            n = rays.facing(g)
            share = np.minimum(np.linalg.norm(g, axis=1) / edge, 1)[:, None]
            lit = emitted * diffuse(n) + 0.12 * rays.gloss(n, 20)
            emitted = emitted + share * (lit - emitted)
        color += (left * opacity)[:, None] * emitted
        left = left * (1 - opacity)
    return color, 1 - left
