"""Rows of the comparison of devices: grids, their slopes, other encodings, samplers."""

from functools import partial
from typing import Any

import numpy as np
import warp as wp

from benchmarks.gpu_compare import Arrays, Row, Side, Tolerance, blocked, run_list, to_device, zeros
from ngp_warp import samplers
from ngp_warp.config import GridEncodingConfig
from ngp_warp.encodings.frequency import FrequencyEncoding
from ngp_warp.encodings.grid import GridEncoding, resolve
from ngp_warp.encodings.grid_jacobian import GridJacobian
from ngp_warp.encodings.make import make_encoding
from ngp_warp.encodings.octree import OctreeEncoding
from ngp_warp.encodings.octree_cells import Octree
from ngp_warp.kernels.grid_portable import FIXED_POINT

# A place in a cell is x * scale + 0.5 less its floor: at a resolution of 2048 float32 leaves it
# 2^-13, and whether a device fuses the multiplication decides the last bit.
PLACE = Tolerance(2e-3, "float32 places in cells of 1/2048, 2^-13 of a cell, times slopes")
# The floor itself may be another there, where the function has a step.
STEP = Tolerance(2e-3, "as places in cells; steps at faces lie on either side", outliers=2e-3)
SUMS = Tolerance(2e-3, "places in cells; float32 sums of atomics in another order")
SMOOTH = Tolerance(1e-3, "float32 sines, powers and exponentials of two libraries")
DRAWN = Tolerance(2e-6, "random integers alike; one rounding of float32 differs where it is fused")


def grid_config(small: bool, **changes: Any) -> GridEncodingConfig:
    """Return the usual grid, or one that a CPU has at once."""
    sizes = {"n_levels": 6, "log2_hashmap_size": 12} if small else {}
    return resolve(GridEncodingConfig(**{**sizes, "finest_resolution": 2048, **changes}))


class _Grid:
    """A grid on a side with values of the order of 1, positions and gradients."""

    def __init__(self, side: Side, n_dims: int, config: GridEncodingConfig, n: int):
        rng = np.random.default_rng(3)
        self.device, self.n, self.n_dims = side.device, n, n_dims
        self.grid = GridEncoding(n_dims, config, side.device, side.backend)
        self.rows = self.grid.n_outputs
        table = rng.standard_normal(self.grid.n_params, dtype=np.float32)
        dtype = np.float16 if config.half else np.float32
        self.table = to_device(table.astype(dtype), side.device)
        self.x = blocked(rng.random((n, n_dims), dtype=np.float32), side.device)
        self.d_out = blocked(rng.standard_normal((n, self.rows)), side.device)
        self.v = blocked(rng.standard_normal((n, n_dims)), side.device)

    def zeros(self, n_rows: int) -> wp.array:
        return zeros(self.n * n_rows, self.device)

    def gradient(self, dtype: Any = wp.float32) -> tuple[wp.array, wp.array | None]:
        return zeros(self.grid.n_params, self.device, dtype), self.grid.make_flags()


def _forward(small: bool, n_dims: int, changes: dict[str, Any], side: Side) -> Arrays:
    g = _Grid(side, n_dims, grid_config(small, **changes), 2**10 if small else 2**16)
    out = g.zeros(g.rows)
    g.grid.forward(g.x, g.table, out, g.rows).run()
    return {"features": out.numpy()}


def _backward(small: bool, n_dims: int, changes: dict[str, Any], side: Side) -> Arrays:
    g = _Grid(side, n_dims, grid_config(small, **changes), 2**10 if small else 2**16)
    d_table, touched = g.gradient()
    g.grid.backward(g.x, g.d_out, d_table, touched, g.rows).run()
    return {"gradient": d_table.numpy()}


def _fixed_point(small: bool, side: Side) -> Arrays:
    """Float sums of the reference against integer sums, which only CUDA's kernels have."""
    g = _Grid(side, 3, grid_config(small), 2**10 if small else 2**16)
    d_table, touched = g.gradient(wp.int64 if side.serves_cuda else wp.float32)
    g.grid.backward(g.x, g.d_out, d_table, touched, g.rows).run()
    scale = 1.0 / FIXED_POINT if side.serves_cuda else 1.0
    return {"gradient": (d_table.numpy() * scale).astype(np.float32)}


def _slopes(small: bool, n_dims: int, changes: dict[str, Any], side: Side) -> Arrays:
    """The gradient in the positions, and the Jacobian forward and backward."""
    g = _Grid(side, n_dims, grid_config(small, **changes), 2**10 if small else 2**14)
    dx, out = g.zeros(n_dims), g.zeros(g.rows)
    g.grid.input_gradient(g.x, g.d_out, g.table, dx, g.rows).run()
    jacobian = g.zeros(g.rows * n_dims)
    both = GridJacobian(g.grid)
    both.forward(g.x, g.table, out, jacobian).run()
    d_table, touched = g.gradient()
    both.backward(g.x, g.d_out, g.d_out, g.v, d_table, touched).run()
    arrays = {"dx": dx, "features": out, "jacobian": jacobian, "gradient": d_table}
    return {name: a.numpy() for name, a in arrays.items()}


def _second_order(small: bool, n_dims: int, changes: dict[str, Any], side: Side) -> Arrays:
    g = _Grid(side, n_dims, grid_config(small, **changes), 2**10 if small else 2**14)
    dd_out, ddx = g.zeros(g.rows), g.zeros(n_dims)
    d_table, touched = g.gradient()
    run_list(
        g.grid.second_order(
            g.x, g.d_out, g.v, g.table, g.rows,
            dd_out=dd_out, d_table=d_table, touched=touched, ddx=ddx,
        )
    )  # fmt: skip
    return {"d_dy": dd_out.numpy(), "gradient": d_table.numpy(), "dx": ddx.numpy()}


HASH = {"n_levels": 4, "base_resolution": 4, "log2_hashmap_size": 10}
COMPOSITE = [
    {"otype": "HashGrid", **HASH, "n_dims_to_encode": 2, "dims_to_encode_begin": 0},
    {"otype": "OneBlob", "n_bins": 8, "n_dims_to_encode": 1, "dims_to_encode_begin": 3},
    {"otype": "HashGrid", **HASH, "n_dims_to_encode": 3, "dims_to_encode_begin": 1,
     "interpolation": "Smoothstep"},
]  # fmt: skip
OTHERS: list[tuple[int, dict[str, Any]]] = [
    (3, {"otype": "Identity", "scale": 2.0, "offset": -0.5}),
    (3, {"otype": "Frequency", "n_frequencies": 8}),
    (2, {"otype": "TriangleWave", "n_frequencies": 8}),
    (3, {"otype": "OneBlob", "n_bins": 16}),
    (3, {"otype": "SphericalHarmonics", "degree": 4}),
    (3, {"otype": "SphericalHarmonics", "degree": 8}),
    (3, {"otype": "HashGrid", **HASH}),
    (3, {"otype": "TiledGrid", **HASH, "interpolation": "Smoothstep"}),
    *(
        (5, {"otype": "Composite", "nested": COMPOSITE, "reduction": reduction})
        for reduction in ("Concatenation", "Sum", "Product")
    ),
    (5, {"otype": "Composite", "nested": [
        {"otype": "Composite", "n_dims_to_encode": 3, "nested": [
            {"n_dims_to_encode": 2, "otype": "Identity"},
            {"otype": "TriangleWave", "n_frequencies": 4}]},
        {"otype": "DenseGrid", "n_levels": 4, "base_resolution": 4, "n_features_per_level": 4},
    ]}),
]  # fmt: skip


def _encoding(small: bool, n_dims: int, config: dict[str, Any], side: Side) -> Arrays:
    return _all_passes(make_encoding(n_dims, config, side.device), small)


def _octree(small: bool, n_dims: int, reduction: str, side: Side) -> Arrays:
    points = np.random.default_rng(5).random((400, n_dims)) ** 2
    tree = Octree.from_points(points, 1, 5)
    features = {2: 2, 3: 4}[n_dims]
    encoding = OctreeEncoding(tree, side.device, n_features=features, reduction=reduction)
    return _all_passes(encoding, small)


def _all_passes(e: Any, small: bool) -> Arrays:
    """Forward, backward and second order of an encoding."""
    rng, n = np.random.default_rng(1), 2**9 if small else 2**13
    x = blocked(rng.random((n, e.n_dims), dtype=np.float32) ** 2, e.device)
    dy = blocked(rng.standard_normal((n, e.n_outputs)), e.device)
    v = blocked(rng.standard_normal((n, e.n_dims)), e.device)
    params = to_device(rng.standard_normal(max(e.n_params, 1), dtype=np.float32), e.device)
    rows = {"y": e.n_outputs, "dx": e.n_dims, "d_dy": e.n_outputs, "ddx": e.n_dims}
    out = {name: zeros(n * k, e.device) for name, k in rows.items()}
    out |= {name: zeros(e.n_params, e.device) for name in ("d_params", "dd_params")}
    run_list(e.forward(x, params, out["y"]))
    run_list(e.backward(x, params, dy, dx=out["dx"], d_params=out["d_params"]))
    run_list(
        e.second_order(
            x, params, dy, v, d_dy=out["d_dy"], dx=out["ddx"], d_params=out["dd_params"]
        )
    )  # fmt: skip
    # what is constant has no second derivative, on any device
    found = {name: array.numpy() for name, array in out.items()}
    return {name: values for name, values in found.items() if values.any()}


def _vanilla_frequency(identity: bool, side: Side) -> Arrays:
    n, rng = 2**10, np.random.default_rng(2)
    e = FrequencyEncoding(3, 10, side.device, identity=identity)
    x = blocked(rng.uniform(-1, 1, (n, 3)), side.device)
    y, dx = zeros(n * e.n_outputs, side.device), zeros(n * 3, side.device)
    e.forward(x, y).run()
    dy = blocked(rng.standard_normal((n, e.n_outputs)), side.device)
    e.backward(x, dy, dx).run()
    return {"y": y.numpy(), "dx": dx.numpy()}


def _sampler(kind: Any, n_dims: int, side: Side) -> Arrays:
    step = to_device(np.array([12345], np.int64), side.device)
    x = zeros(2**14 * n_dims, side.device)
    samplers.sample(kind, n_dims, 7, step, x, side.device).run()
    return {"points": x.numpy()}


GRIDS: list[tuple[str, int, dict[str, Any]]] = [
    ("hash 3D linear", 3, {}),
    ("hash 2D linear", 2, {}),
    ("hash 3D smoothstep half F=4", 3, {"interpolation": "smoothstep", "dtype": "float16",
                                       "n_features_per_level": 4}),
    ("hash 2D nearest half F=1", 2, {"interpolation": "nearest", "dtype": "float16",
                                    "n_features_per_level": 1}),
    ("tiled 3D linear F=8", 3, {"grid_type": "tiled", "n_features_per_level": 8}),
    ("dense 2D smoothstep", 2, {"grid_type": "dense", "finest_resolution": 256,
                                "interpolation": "smoothstep"}),
]  # fmt: skip


def rows(small: bool) -> list[Row]:
    """Return the rows of this module."""
    made = [_grid_row(*case, small) for case in GRIDS]
    made += [
        Row(f"grid backward, {name}", partial(_backward, small, d, changes), tolerance=SUMS,
            on_cpu=True)
        if changes.get("interpolation") != "nearest"
        else Row(f"grid backward, {name}", partial(_backward, small, d, changes), STEP, on_cpu=True)
        for name, d, changes in GRIDS
    ]  # fmt: skip
    made.append(
        Row("grid backward in fixed point", partial(_fixed_point, small), SUMS, on_cpu=True)
    )
    for name, d, changes in GRIDS:
        if changes.get("interpolation") != "nearest":
            run = partial(_slopes, small, d, changes)
            made.append(Row(f"grid slopes, {name}", run, STEP, on_cpu=True))
            run = partial(_second_order, small, d, changes)
            made.append(Row(f"grid second order, {name}", run, STEP))
    for d, config in OTHERS:
        name = config["otype"] + "".join(f" {config[k]}" for k in ("degree", "reduction")
                                         if k in config)  # fmt: skip
        made.append(Row(f"encoding {name} {d}D", partial(_encoding, small, d, config), STEP))
    for d, reduction in ((2, "concatenation"), (3, "concatenation"), (3, "sum")):
        run = partial(_octree, small, d, reduction)
        made.append(Row(f"octree {d}D {reduction}", run, STEP))
    for identity in (True, False):
        run = partial(_vanilla_frequency, identity)
        made.append(Row(f"frequencies, identity {identity}", run, SMOOTH))
    for kind in ("stratified", "uniform", "halton", "sobol"):
        for d in (2, 3):
            made.append(Row(f"sampler {kind} {d}D", partial(_sampler, kind, d), DRAWN))
    return made


def _grid_row(name: str, d: int, changes: dict[str, Any], small: bool) -> Row:
    tolerance = STEP if changes.get("interpolation") == "nearest" else PLACE
    return Row(
        f"grid forward, {name}", partial(_forward, small, d, changes), tolerance, on_cpu=True
    )
