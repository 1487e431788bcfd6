"""What the staged backend asks of the encoding of positions: grids have it, others may."""

from typing import Protocol

import numpy as np
import warp as wp

from ngp_warp.launch import Launch

Launches = Launch | list[Launch]
"""One, or at least one, to be run in their order, each after the one before has ended."""


class PositionEncoding(Protocol):
    """Features of positions from a table of entries, as ``GridEncoding`` has them."""

    device: str
    n_outputs: int
    """Rows of the features."""
    n_features: int
    """Values of an entry, at least 1: the optimizer steps them together."""
    n_params: int
    """Values of the table; 0: nothing is trained."""

    def initial_table(self, seed: int) -> np.ndarray:
        """Return float32 [n_params] to start training from."""
        ...

    def forward(
        self,
        x: wp.array,
        table: wp.array,
        out: wp.array,
        n_rows: int,
        count: wp.array | None = None,
    ) -> Launches:
        """Record the features; see ``GridEncoding.forward``."""
        ...

    def backward(
        self, x: wp.array, d_out: wp.array, d_table: wp.array, touched: wp.array | None, n_rows: int
    ) -> Launches:
        """Record the table's gradients; see ``GridEncoding.backward``."""
        ...

    def input_gradient(
        self, x: wp.array, d_out: wp.array, table: wp.array, dx: wp.array, n_rows: int
    ) -> Launches:
        """Record the positions' gradients; see ``GridEncoding.input_gradient``."""
        ...


def in_order(launches: Launches) -> list[Launch]:
    """Return launches as a list that is to be run in its order."""
    return launches if isinstance(launches, list) else [launches]
