"""Every encoding with its float64 twin, at O(1) parameters, and what runs both.

A twin has n_dims, n_params, forward(x, params) and backward(x, params, dy) -> (dx, d_params).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp

from ngp_warp.encodings.encoding import Encoding
from ngp_warp.encodings.grid import grid_levels
from ngp_warp.encodings.make import make_encoding
from ngp_warp.encodings.octree import OctreeEncoding
from ngp_warp.encodings.octree_cells import Octree
from tests.grid_case import small
from tests.reference import coordinates as c
from tests.reference import grid, layout
from tests.reference.harmonics import Harmonics
from tests.reference.octree import OctreeFeatures
from tests.reference.reduction import Constant, Reduced


class GridTwin:
    """Twin of a small grid: tests/reference/grid.py."""

    def __init__(self, n_dims, **changes):
        self.config = small(**changes)
        self.n_dims, self.levels = n_dims, grid_levels(self.config, n_dims)
        self.n_features = self.config.n_features_per_level or 2
        self.n_entries = self.levels[-1].offset + self.levels[-1].size
        self.n_params = self.n_entries * self.n_features
        self._args = self.levels, self.config.grid_type, self.config.interpolation

    def forward(self, x, params):
        return grid.forward(x, params.reshape(-1, self.n_features), *self._args)

    def backward(self, x, params, dy):
        dx = grid.input_gradient(x, dy, params.reshape(-1, self.n_features), *self._args)
        return dx, grid.backward(x, dy, *self._args, self.n_entries)[0].reshape(-1)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An encoding, its twin, and where it may be sampled."""

    name: str
    make: Callable[[str], Encoding]
    twin: Any
    config: dict | None = None
    """What ``make`` makes it from, if it does."""
    faces: tuple[tuple[float, float], ...] = ()
    """(scale, offset): slopes jump where x * scale + offset is whole."""
    around: np.ndarray | None = None
    """[n, n_dims]: half of the points are drawn around these, where features are."""
    product: bool = False
    """Not linear in the parameters."""

    def points(self, n, seed=0, margin=2e-3):
        """float32 [n, n_dims] in the unit cube, ``margin`` of a cell away from faces."""
        rng = np.random.default_rng(seed)
        x = rng.random((400 * n, self.twin.n_dims), dtype=np.float32)
        if self.around is not None:
            near = self.around[np.arange(200 * n) % len(self.around)]
            x[::2] = np.clip(near + rng.uniform(-0.05, 0.05, near.shape), 0, 1)
        for scale, offset in self.faces:
            f = (x.astype(np.float64) * scale + offset) % 1
            x = x[np.all((f > margin) & (f < 1 - margin), axis=1)]
        assert len(x) >= n
        return x[:n]


def made(name, n_dims, config, twin, **more):
    def make(device):
        return make_encoding(n_dims, config, device)

    return Case(name=name, make=make, twin=twin, config=config, **more)


GRID = {"n_levels": 4, "base_resolution": 4, "per_level_scale": 2.0}
GRID_FACES = tuple((4.0 * 2**level - 1, 0.5) for level in range(4))
OCTREE_POINTS = {d: np.random.default_rng(5).random((12, d)) ** 2 for d in (2, 3)}


def octree_case(n_dims, n_features, summed):
    def make(device):
        tree = Octree.from_points(OCTREE_POINTS[n_dims], 1, 4)
        reduction = "sum" if summed else "concatenation"
        return OctreeEncoding(tree, device, n_features=n_features, reduction=reduction)

    twin = OctreeFeatures(OCTREE_POINTS[n_dims], 1, 4, n_features, summed)
    name = f"octree {n_dims}D{' summed' if summed else ''}"
    return Case(name=name, make=make, twin=twin, faces=((16.0, 0.0),),
                around=OCTREE_POINTS[n_dims])  # fmt: skip


def grid_case(n_dims, otype, interpolation, n_features=2):
    config = {"otype": otype, "interpolation": interpolation, **GRID}
    config |= {"n_features_per_level": n_features}
    changes = {"grid_type": otype.removesuffix("Grid").lower(), "interpolation": interpolation}
    if otype == "HashGrid":
        config["log2_hashmap_size"] = 8
    twin = GridTwin(n_dims, n_features_per_level=n_features, **changes)
    name = f"{otype} {interpolation} {n_dims}D"
    return made(name, n_dims, config, twin, faces=GRID_FACES)


def composite_case(reduction):
    """Two grids and a blob over overlapping slices of five dimensions, one left out."""
    hashed = {"otype": "HashGrid", "log2_hashmap_size": 8, "n_features_per_level": 2, **GRID}
    nested = [
        {**hashed, "n_dims_to_encode": 2, "dims_to_encode_begin": 0},
        {"otype": "OneBlob", "n_bins": 8, "n_dims_to_encode": 1, "dims_to_encode_begin": 3},
        {**hashed, "n_dims_to_encode": 3, "dims_to_encode_begin": 1, "interpolation": "Smoothstep"},
    ]
    twins = [
        (GridTwin(2), 0),
        (c.Coordinates(1, c.one_blob, 8), 3),
        (GridTwin(3, interpolation="smoothstep"), 1),
    ]
    config = {"otype": "Composite", "nested": nested, "reduction": reduction}
    twin = Reduced(5, twins, reduction.lower())
    faces = (*GRID_FACES, (8.0, 0.0))
    return made(reduction, 5, config, twin, faces=faces, product=reduction == "Product")


def nested_case():
    """A composite in a composite; rows are padded so that the grid's begin at a multiple of 4."""
    config = {
        "otype": "Composite",
        "nested": [
            {
                "otype": "Composite",
                "n_dims_to_encode": 3,
                "nested": [{"n_dims_to_encode": 2, "otype": "Identity"}, {"otype": "TriangleWave",
                    "n_frequencies": 4}],
            },
            {"otype": "DenseGrid", "n_features_per_level": 4, **GRID},
        ],
    }  # fmt: skip
    waves = [(c.Coordinates(2, c.identity), 0), (c.Coordinates(1, c.triangle_wave, 4), 2)]
    inner = Reduced(3, [*waves, (Constant(2, 1.0), 0)], "concatenation")
    dense = GridTwin(2, grid_type="dense", n_features_per_level=4)
    twin = Reduced(5, [(inner, 0), (dense, 3)], "concatenation")
    return made("nested", 5, config, twin, faces=(*GRID_FACES, (8.0, 0.0)))


CASES = [
    made("identity", 3, {"otype": "Identity", "scale": -1.5, "offset": 0.25},
         c.Coordinates(3, c.identity, -1.5, 0.25)),
    made("frequency", 3, {"otype": "Frequency", "n_frequencies": 5},
         c.Coordinates(3, c.frequency, 5)),
    made("triangle wave", 2, {"otype": "TriangleWave", "n_frequencies": 6},
         c.Coordinates(2, c.triangle_wave, 6), faces=((64.0, 0.0),)),
    made("one-blob", 3, {"otype": "OneBlob", "n_bins": 16}, c.Coordinates(3, c.one_blob, 16)),
    made("one-blob of 2", 1, {"otype": "OneBlob", "n_bins": 2}, c.Coordinates(1, c.one_blob, 2)),
    *(made(f"harmonics {n}", 3, {"otype": "SphericalHarmonics", "degree": n}, Harmonics(n))
      for n in (1, 4, 8)),
    grid_case(2, "HashGrid", "linear"),
    grid_case(3, "HashGrid", "smoothstep"),
    grid_case(2, "DenseGrid", "smoothstep", 4),
    grid_case(3, "DenseGrid", "linear", 1),
    grid_case(3, "TiledGrid", "linear"),
    grid_case(2, "HashGrid", "nearest"),
    octree_case(2, 2, False),
    octree_case(3, 4, False),
    octree_case(3, 1, True),
    *(composite_case(reduction) for reduction in ("Concatenation", "Sum", "Product")),
    nested_case(),
]  # fmt: skip


class Runner:
    """A case on a device with n points."""

    def __init__(self, case, device, n=45, seed=1):
        rng = np.random.default_rng(seed)
        self.case, self.device, self.n = case, device, n
        self.encoding = case.make(device)
        self.x = case.points(n)
        self.params = rng.normal(size=self.encoding.n_params).astype(np.float32)
        self.dy = rng.normal(size=(n, self.encoding.n_outputs)).astype(np.float32)
        self.v = rng.normal(size=self.x.shape).astype(np.float32)

    def array(self, values):
        return wp.array(np.ascontiguousarray(values).ravel(), dtype=float, device=self.device)

    def blocked(self, points):
        return self.array(layout.to_blocked(points))

    def gradient(self, points):
        """Blocked with zeros in the padding."""
        padded = np.zeros((-(-self.n // 32) * 32, points.shape[1]), np.float32)
        padded[: self.n] = points
        return self.array(layout.to_blocked(padded))

    def empty(self, n_rows):
        """Blocked, for results that overwrite."""
        size = -(-self.n // 32) * 32 * n_rows
        return wp.full(size, np.nan, dtype=float, device=self.device)

    def ones(self):
        """For gradients that are added."""
        return wp.full(self.encoding.n_params, 1.0, dtype=float, device=self.device)

    def points(self, array):
        n_rows = array.size // (-(-self.n // 32) * 32)
        return layout.from_blocked(array.numpy().reshape(-1, n_rows, 32), self.n)

    def forward(self):
        y = self.empty(self.encoding.n_outputs)
        run(self.encoding.forward(self.blocked(self.x), self.array(self.params), y))
        return self.points(y)

    def backward(self, wanted=("dx", "d_params")):
        """Return {name: gradient}."""
        out = {"dx": self.empty(self.encoding.n_dims), "d_params": self.ones()}
        out = {name: out[name] for name in wanted}
        x, dy = self.blocked(self.x), self.gradient(self.dy)
        run(self.encoding.backward(x, self.array(self.params), dy, **out))
        return self._results(out)

    def second_order(self, wanted=("d_dy", "dx", "d_params")):
        """Return {name: gradient}."""
        e = self.encoding
        out = {"d_dy": self.empty(e.n_outputs), "dx": self.empty(e.n_dims), "d_params": self.ones()}
        arrays = {name: out[name] if name in wanted else None for name in out}
        x, dy, v = self.blocked(self.x), self.gradient(self.dy), self.gradient(self.v)
        run(e.second_order(x, self.array(self.params), dy, v, **arrays))
        return self._results({name: out[name] for name in wanted})

    def _results(self, arrays):
        return {
            name: array.numpy() - 1 if name == "d_params" else self.points(array)
            for name, array in arrays.items()
        }

    def twin_forward(self, x=None, params=None):
        x, params = self.x if x is None else x, self.params if params is None else params
        return self.case.twin.forward(np.asarray(x, float), np.asarray(params, float))

    def twin_backward(self, x=None):
        x = np.asarray(self.x if x is None else x, float)
        return self.case.twin.backward(x, self.params.astype(float), self.dy.astype(float))


def run(launches):
    for launch in launches:
        launch.run()
