"""A small grid with O(1) table values, on a device, and the same through its float64 twin."""

import numpy as np
import warp as wp

from ngp_warp.config import GridEncodingConfig
from ngp_warp.encodings.grid import GridEncoding, resolve
from ngp_warp.kernels.grid import GROUP
from tests.reference import grid, layout


def small(**changes):
    """Four levels of resolution 4 to 32 and at most 2^8 entries: some dense, some not."""
    settings = {"n_levels": 4, "base_resolution": 4, "per_level_scale": 2.0, "log2_hashmap_size": 8}
    return resolve(GridEncodingConfig(**{**settings, **changes}))


def inner_points(rng, n, n_dims, levels, margin=1e-3):
    """Points [n, n_dims], float32, whose cells' faces are at least ``margin`` of a cell away."""
    x = rng.random((64 * n, n_dims), dtype=np.float32)
    for level in levels:
        f = (x.astype(np.float64) * level.scale + 0.5) % 1
        x = x[np.all((f > margin) & (f < 1 - margin), axis=1)]
    assert len(x) >= n
    return x[:n]


class GridCase:
    """An encoding, a table, positions and the gradient of the features."""

    def __init__(self, n_dims, config, device, backend, n=70, seed=0):
        rng = np.random.default_rng(seed)
        self.config, self.device, self.n, self.n_dims = config, device, n, n_dims
        self.encoding = GridEncoding(n_dims, config, device, backend)
        self.levels = self.encoding.levels
        n_features = self.encoding.n_features
        self.table = rng.normal(size=(self.encoding.n_entries, n_features)).astype(np.float32)
        if config.dtype == "float16":
            self.table = self.table.astype(np.float16)
        self.x = inner_points(rng, n, n_dims, self.levels)
        self.d_out = rng.normal(size=(n, self.encoding.n_outputs)).astype(np.float32)
        self.v = rng.normal(size=(n, n_dims)).astype(np.float32)

    def array(self, values, dtype=wp.float32):
        return wp.array(np.ascontiguousarray(values).ravel(), dtype=dtype, device=self.device)

    def blocked(self, points):
        """[n, n_rows] to the device, point 0 in the padding."""
        return self.array(layout.to_blocked(points))

    def gradient(self, points):
        """[n, n_rows] to the device, zero in the padding."""
        padded = np.zeros((-(-self.n // 32) * 32, points.shape[1]), np.float32)
        padded[: self.n] = points
        return self.array(layout.to_blocked(padded))

    def zeros(self, n_rows):
        return wp.zeros(-(-self.n // 32) * 32 * n_rows, dtype=wp.float32, device=self.device)

    def points(self, array, n_rows):
        """Back from the device, [n, n_rows]."""
        return layout.from_blocked(array.numpy().reshape(-1, n_rows, 32), self.n)

    def read(self):
        return self.array(self.table, self.encoding.table_dtype)

    def table_gradient(self, dtype=wp.float32):
        """Zeros for the table's gradient, and for the flags of its groups (None on CUDA)."""
        d_table = wp.zeros(self.encoding.n_params, dtype=dtype, device=self.device)
        return d_table, self.encoding.make_flags()

    def forward(self, n_extra_rows=0):
        n_rows = self.encoding.n_outputs + n_extra_rows
        out = self.zeros(n_rows)
        out.fill_(7.0)
        self.encoding.forward(self.blocked(self.x), self.read(), out, n_rows).run()
        return self.points(out, n_rows)

    def backward(self, dtype=wp.float32):
        """Return (d_table [n_entries, F], flags [n_groups] or None)."""
        d_table, touched = self.table_gradient(dtype)
        n_rows = self.encoding.n_outputs
        d_out = self.gradient(self.d_out)
        self.encoding.backward(self.blocked(self.x), d_out, d_table, touched, n_rows).run()
        return d_table.numpy().reshape(self.table.shape), flags_of(touched, self.device)

    def input_gradient(self):
        dx = self.zeros(self.n_dims)
        n_rows = self.encoding.n_outputs
        args = self.blocked(self.x), self.gradient(self.d_out), self.read(), dx, n_rows
        self.encoding.input_gradient(*args).run()
        return self.points(dx, self.n_dims)

    def second_order(self):
        """Return (dd_out [n, L * F], d_table, flags, ddx [n, d])."""
        n_rows = self.encoding.n_outputs
        dd_out, ddx = self.zeros(n_rows), self.zeros(self.n_dims)
        d_table, touched = self.table_gradient()
        x, d_out = self.blocked(self.x), self.gradient(self.d_out)
        for item in self.encoding.second_order(
            x, d_out, self.gradient(self.v), self.read(), n_rows,
            dd_out=dd_out, d_table=d_table, touched=touched, ddx=ddx,
        ):  # fmt: skip
            item.run()
        return (
            self.points(dd_out, n_rows),
            d_table.numpy().reshape(self.table.shape),
            flags_of(touched, self.device),
            self.points(ddx, self.n_dims),
        )

    def _twin_args(self):
        return self.levels, self.config.grid_type, self.config.interpolation

    def twin_forward(self, x=None, table=None, primes=grid.PRIMES):
        table = self.table if table is None else table
        x = self.x if x is None else x
        return grid.forward(x, table.astype(np.float64), *self._twin_args(), primes)

    def twin_backward(self, x=None):
        """Return (d_table, flags of the groups)."""
        x = self.x if x is None else x
        d_table, hit = grid.backward(x, self.d_out, *self._twin_args(), self.encoding.n_entries)
        return d_table, hit.reshape(-1, GROUP).any(axis=1)

    def twin_input_gradient(self, x=None):
        x = self.x if x is None else x
        table = self.table.astype(np.float64)
        return grid.input_gradient(x, self.d_out, table, *self._twin_args())


def flags_of(touched, device):
    """Return the flags of groups, bool [n_groups], or None on CUDA, which has none."""
    assert (touched is None) == (device != "cpu")
    return None if touched is None else touched.numpy() != 0


def flags_are(touched, wanted):
    """Return whether flags are as they should be, where there are some."""
    return touched is None or np.array_equal(touched, wanted)


def along(function, x, v, h=1e-6):
    """Central difference of function at x along v, in float64."""
    x, v = np.asarray(x, np.float64), np.asarray(v, np.float64)
    return (function(x + h * v) - function(x - h * v)) / (2 * h)
