"""Any encoding as a table with features, which is what the fields train."""

from typing import Any

import numpy as np
import warp as wp

from ngp_warp.encodings.composite import Composite
from ngp_warp.encodings.encoding import Encoding
from ngp_warp.encodings.grid_features import GridFeatures
from ngp_warp.encodings.octree import OctreeEncoding
from ngp_warp.launch import Call, Launch


class TableEncoding:
    """Implements ``ngp_warp.radiance.positions.PositionEncoding`` on a CPU.

    Adam steps the entries that are flagged as touched: grids flag theirs, of other encodings all
    are, for their kernels have no flags.

    Args:
        encoding: its features are linear in its parameters, or it has none.
    """

    def __init__(self, encoding: Encoding):
        self.encoding = encoding
        self.device = encoding.device
        self.n_outputs, self.n_params = encoding.n_outputs, encoding.n_params
        self.n_features = _n_features(encoding)

    def initial_table(self, seed: int) -> np.ndarray:
        """Return float32 [n_params] to start training from; empty if nothing is trained."""
        if self.n_params == 0:
            return np.zeros(0, np.float32)
        return self.encoding.initial_params(seed)

    def forward(
        self,
        x: wp.array,
        table: wp.array,
        out: wp.array,
        n_rows: int,
        count: wp.array | None = None,
    ) -> list[Launch]:
        """Record the features of x, blocked [n_blocks, n_outputs, 32]; n_rows is n_outputs."""
        return self.encoding.forward(x, table, out)

    def backward(
        self, x: wp.array, d_out: wp.array, d_table: wp.array, touched: wp.array | None, n_rows: int
    ) -> list[Launch]:
        """Record the gradients of the table, added to, and the flags of what has some."""
        if isinstance(self.encoding, GridFeatures):
            return [self.encoding.grid.backward(x, d_out, d_table, touched, n_rows)]
        if self.n_params == 0:
            return [Launch([], self.device)]
        # features are linear in the table: no kernel reads it, and its gradients stand in for it
        scatter = self.encoding.backward(x, d_table, d_out, d_params=d_table)
        assert touched is not None  # on a CPU
        mark: Any = Call(lambda: touched.fill_(1))
        return [*scatter, Launch([mark], self.device)]

    def input_gradient(
        self, x: wp.array, d_out: wp.array, table: wp.array, dx: wp.array, n_rows: int
    ) -> list[Launch]:
        """Record the gradients of x, overwritten."""
        return self.encoding.backward(x, table, d_out, dx=dx)


def _n_features(encoding: Encoding) -> int:
    """Return the values of an entry: Adam steps them together."""
    if isinstance(encoding, Composite):
        return max(_n_features(part) for part in encoding.encodings)
    if isinstance(encoding, GridFeatures):
        return encoding.grid.n_features
    return encoding.n_features if isinstance(encoding, OctreeEncoding) else 1
