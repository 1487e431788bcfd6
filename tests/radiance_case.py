"""Small radiance fields, rays and grids for the tests."""

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import GridEncodingConfig, NetworkConfig
from ngp_warp.encodings.grid import resolve
from ngp_warp.radiance.batch import make_batch
from ngp_warp.radiance.marching import Samples, make_lattice
from ngp_warp.radiance.occupancy import OccupancyGrid
from ngp_warp.radiance.settings import CELLS, N_GEOMETRY, RadianceSettings


def make_settings(**changes):
    """Settings of a field that is small enough for tests."""
    encoding = GridEncodingConfig(
        n_levels=3, n_features_per_level=2, log2_hashmap_size=10, finest_resolution=32
    )
    values = {
        "encoding": resolve(encoding),
        "density_network": NetworkConfig(n_neurons=16, n_hidden_layers=1),
        "color_network": NetworkConfig(
            n_neurons=16, n_hidden_layers=2, output_activation="sigmoid"
        ),
        "steps": 128,
        "batch_samples": 4096,
        "max_rays": 256,
    }
    return RadianceSettings(**{**values, **changes})


def random_rays(n, seed=0):
    """Origins around the box and in it, unit directions that mostly meet it."""
    rng = np.random.default_rng(seed)
    o = rng.uniform(-1, 2, (n, 3))
    o[: n // 4] = rng.uniform(0.1, 0.9, (n // 4, 3))
    d = rng.uniform(0, 1, (n, 3)) - o
    return o.astype(np.float32), (d / np.linalg.norm(d, axis=1, keepdims=True)).astype(np.float32)


def ray_batch(settings, o, d, device, *, jitter=None, **arrays):
    """A batch of these rays; further arrays by the batch's own names."""
    batch = make_batch(settings, len(o), device)
    arrays = {"origin": o, "direction": d, **arrays}
    if jitter is not None:
        arrays["jitter"] = jitter
    for name, value in arrays.items():
        target = getattr(batch, name)
        rows = np.broadcast_to(value, (len(o), target.size // len(o)))
        target.assign(np.ascontiguousarray(rows, target.numpy().dtype).reshape(-1))
    return batch


def grid_of(settings, occupied, device):
    """An occupancy grid with given cells, bool [n_cascades, 128, 128, 128]."""
    grid = OccupancyGrid(settings, device, visible=occupied)
    assert (grid.occupied() == occupied).all()
    return grid


def blobs(settings, seed=0, radius=0.2):
    """Cells near a few random places, other ones in each cascade, and some alone."""
    rng = np.random.default_rng(seed)
    axis = (np.arange(CELLS) + 0.5) / CELLS
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    occupied = rng.random((settings.n_cascades, CELLS, CELLS, CELLS)) < 2e-4
    for cascade in range(settings.n_cascades):
        for c in rng.uniform(0.2, 0.8, (3, 3)):
            occupied[cascade] |= (x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2 < radius**2
    return occupied


def run(stages):
    """Run stages once."""
    for stage in stages:
        launch.run_all(stage)


def march(settings, grid, batch, capacity=2**16, max_samples=1024):
    """Samples of a batch after marching."""
    lattice = make_lattice(settings)
    lattice.max_samples = max_samples
    samples = Samples(batch.capacity, capacity, batch.device)
    run(samples.march_stages(lattice, grid.bits, batch))
    return samples


def sample_lists(samples):
    """Per ray: t, dt [n] and positions [n, 3]."""
    end, n = samples.end.numpy(), samples.n.numpy()
    t, dt = samples.distance.numpy(), samples.length.numpy()
    x = samples.positions.numpy().reshape(-1, 3, 32).transpose(0, 2, 1).reshape(-1, 3)
    parts = [slice(e - k, e) for e, k in zip(end, n, strict=True)]
    return [(t[p], dt[p], x[p]) for p in parts]


def cells_of(settings, x, dt):
    """Index [cascade, z, y, x] arrays of the cells of positions [n, 3]; exact in float32."""
    last = settings.n_cascades - 1
    u = x - np.float32(0.5)
    cascade = np.full(len(x), last)
    for c in range(last - 1, -1, -1):
        half = np.float32(2.0**c / settings.aabb_scale / 2)
        inside = ((u >= -half) & (u < half)).all(axis=1) & (dt <= half / 64)
        cascade[inside] = c
    scale = np.float32(CELLS) * np.float32(2) ** (last - cascade).astype(np.float32)
    cell = np.floor(u * scale[:, None]).astype(int) + CELLS // 2
    i, j, k = np.clip(cell, 0, CELLS - 1).T
    return cascade, k, j, i


def constant_field(value):
    """An ``evaluate`` for an occupancy grid: one density, or a function of the points.

    Args:
        value: a number, or a function from positions [n, 3] to densities [n].
    """

    def evaluate(points, density, count):
        def fill():
            x = points.numpy().reshape(-1, 3, 32).transpose(0, 2, 1).reshape(-1, 3)
            values = value(x) if callable(value) else np.full(len(x), value)
            density.assign(values.astype(np.float32))

        return [[launch.Launch([launch.Call(fill)], str(points.device))]]

    return evaluate


def geometry_of(raw, device):
    """Blocked outputs of a density network, [n / 32, 16, 32], with these raw densities [n]."""
    rows = np.zeros((len(raw) // 32, N_GEOMETRY, 32), np.float32)
    rows[:, 0] = np.asarray(raw).reshape(-1, 32)
    return wp.array(rows.reshape(-1), device=device)
