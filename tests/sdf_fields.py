"""Fields of known geometry, without training: distances sampled on a dense grid.

One dense level and a network that is the identity make the field the trilinear interpolation of the
samples, which is exact for planes and off by h^2 / (4 r) at most for a sphere of radius r.
"""

import numpy as np

from ngp_warp.config import GridEncodingConfig, NetworkConfig, OptimizerConfig
from ngp_warp.encodings.grid import resolve
from ngp_warp.field import Field

RESOLUTION = 64


def sampled(distance, device, resolution=RESOLUTION):
    """Return the field whose values at the grid's vertices are ``distance`` [n, 3] -> [n]."""
    encoding = GridEncodingConfig(
        grid_type="dense",
        n_levels=1,
        n_features_per_level=1,
        base_resolution=resolution,
        per_level_scale=1.0,
    )
    field = Field(
        3,
        1,
        encoding=resolve(encoding),
        network=NetworkConfig(n_hidden_layers=0),
        optimizer=OptimizerConfig(),
        seed=0,
        device=device,
        trainable=False,
    )
    (level,) = field.encoding.levels
    n = level.resolution
    # vertex i lies where x * scale + 0.5 = i
    axis = (np.arange(n) - 0.5) / level.scale
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    values = distance(np.stack([x, y, z], axis=-1).reshape(-1, 3))
    table = np.zeros(field.table.value.size, np.float32)
    table[: n**3] = values
    field.table.value.assign(table)
    field.weights.value.assign(np.ones(1, np.float32))
    return field


def sphere(radius=0.3, centre=(0.5, 0.5, 0.5)):
    """Return the signed distance to a sphere."""
    return lambda p: np.linalg.norm(p - np.asarray(centre), axis=1) - radius


def interpolation_error(radius, resolution=RESOLUTION):
    """Bound of what trilinear interpolation adds to a sphere's distance near its surface.

    h^2 / 8 times the sum of the three second derivatives, which is 2 / r.
    """
    return (1 / (resolution - 1)) ** 2 / (4 * radius)
