"""Small radiance fields, rays and grids for the tests."""

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import GridEncodingConfig, NetworkConfig, OptimizerConfig
from ngp_warp.encodings.grid import resolve
from ngp_warp.networks.fused_cuda import FusedCudaMLP
from ngp_warp.networks.mlp import make_network
from ngp_warp.networks.unfused import make_layers
from ngp_warp.radiance.batch import make_batch
from ngp_warp.radiance.field import RadianceField
from ngp_warp.radiance.marching import Samples, make_lattice
from ngp_warp.radiance.occupancy import OccupancyGrid
from ngp_warp.radiance.settings import CELLS, N_DIRECTION, N_GEOMETRY, RadianceSettings
from tests.reference.radiance import FieldTwin


def tolerance(exact, half, device, network):
    """A tolerance: ``half`` where operands of products are half precision, on tensor cores."""
    return half if isinstance(make_network(network, 16, 16, device), FusedCudaMLP) else exact


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


def march(settings, grid, batch, capacity=2**16, max_samples=1024, shared=None):
    """Samples of a batch after marching."""
    lattice = make_lattice(settings)
    lattice.max_samples = max_samples
    samples = Samples(batch.capacity, capacity, batch.device)
    run(samples.march_stages(lattice, grid.bits, batch, shared=shared))
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


def make_field(settings, device, backend, **options):
    """A radiance field that trains fast."""
    optimizer = OptimizerConfig(learning_rate=1e-2)
    options = {"seed": 0} | options
    return RadianceField(settings, optimizer=optimizer, device=device, backend=backend, **options)


def set_constant(field, raw, rgb=0.0):
    """Give a field the same raw density everywhere, and the same color before the sigmoid.

    The table is 1 throughout, every hidden unit of the first row is too, and so is the sum of what
    comes out of the last layer, times ``raw``.
    """
    s, n_in = field.settings, field.encoding.n_outputs
    n = s.density_network.n_neurons
    assert s.density_network.n_hidden_layers == 1
    hidden = np.full((n, n_in), 1 / n_in)
    last = np.zeros((N_GEOMETRY, n))
    last[0] = raw / n
    # the harmonics' first row is 0.2821 for every direction
    color = np.zeros(field.weights.value.size - n * (n_in + N_GEOMETRY))
    width, rows = s.color_network.n_neurons, N_GEOMETRY + N_DIRECTION + s.n_latent_dims
    first = color[: width * rows].reshape(width, rows)
    first[:, N_GEOMETRY] = 1 / 0.28209479
    at = width * rows
    for _ in range(s.color_network.n_hidden_layers - 1):
        color[at : at + width**2] = 1 / width
        at += width**2
    color[at:] = rgb / width
    flat = np.concatenate([hidden.ravel(), last.ravel(), color]).astype(np.float32)
    field.parameters()["network"].assign(flat)
    field.parameters()["encoding"].assign(np.ones(field.encoding.n_params, np.float32))


def set_random(field, seed=0, scale=1.0):
    """Give a field a table of the order of ``scale``, and random weights."""
    rng = np.random.default_rng(seed)
    table, weights = field.parameters()["encoding"], field.parameters()["network"]
    table.assign(rng.uniform(-scale, scale, table.value.size).astype(np.float32))
    weights.assign(
        weights.value.numpy() + rng.normal(0, 0.05, weights.value.size).astype(np.float32)
    )


def sparse(field, seed=0):
    """Give a field's grid some occupied cells; return them, [cascade, z, y, x]."""
    occupied = blobs(field.settings, seed, radius=0.3)
    field.occupancy.bits.assign(grid_of(field.settings, occupied, field.device).bits)
    return occupied


def twin_of(field):
    """The float64 twin of a field with its parameters."""
    shape = (-1, max(field.settings.n_latent_dims, 1))
    return FieldTwin(
        field.settings,
        field.encoding.levels,
        field.weights.value.numpy(),
        field.table.value.numpy().reshape(-1, field.encoding.n_features),
        None if field.latents is None else field.latents.value.numpy().reshape(shape),
    )


def n_density_params(field):
    """Weights of the density network."""
    c, n_in = field.settings.density_network, field.encoding.n_outputs
    return sum(v.n_out * (v.n_in + c.bias) for v in make_layers(c, n_in, N_GEOMETRY))


def twin_case(field, batch):
    """The twin of a field, a batch's values for it, and (t, dt) of every ray's samples."""
    samples = march(field.settings, field.occupancy, batch)
    values = {}
    for name in ("origin", "direction", "background", "target"):
        values[name] = getattr(batch, name).numpy().astype(np.float64).reshape(-1, 3)
    for name in ("weight", "depth_target"):
        values[name] = getattr(batch, name).numpy().astype(np.float64)
    values["view"] = batch.view.numpy().copy()
    values["stops"] = np.zeros_like(values["origin"])
    if field.settings.exposure:
        values["stops"] += batch.exposure.numpy().reshape(-1, 3)
    values["span"] = samples.span.numpy().reshape(-1, 3).astype(np.float64)[:, [0, 2]]
    lists = [(t.astype(np.float64), dt.astype(np.float64)) for t, dt, _ in sample_lists(samples)]
    return twin_of(field), values, lists
