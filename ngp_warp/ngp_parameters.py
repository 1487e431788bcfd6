"""Parameters and density grids of instant-ngp's snapshots in our layout.

Unproven; see ``ngp_snapshot``.

Layout: tiny-cuda-nn's. ``params_binary`` holds the evaluated parameters (of an average, where there
is one), float16 or float32: of each network its matrices, [outputs, inputs] row by row, with inputs
and outputs padded to 16; then the grid's levels, coarsest first. A radiance field has its density
network, its colour network, then the grid. ``density_grid_binary`` holds float16 cells of 128^3 a
cascade in Morton order (x in the lowest bit), in units of the shortest step's optical thickness.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ngp_warp.config import GridEncodingConfig, NetworkConfig
from ngp_warp.encodings.grid import grid_levels
from ngp_warp.encodings.padding import next_multiple
from ngp_warp.errors import DataError
from ngp_warp.ngp_snapshot import Snapshot

PADDINGS = (16, 8)
"""Inputs and outputs of tiny-cuda-nn's networks are padded to multiples of the first; those of its
CutlassMLP were to the second in 2022."""
CELLS = 128

_HALF = ("__half", "half", "float16")
_FLOAT = ("float", "float32")


@dataclass(frozen=True)
class PaddedNetwork:
    """A network's matrices as tiny-cuda-nn stores them, and the part of them that we keep."""

    config: NetworkConfig
    n_in: int
    """Inputs without padding."""
    n_out: int
    """Outputs without padding."""
    padding: int = PADDINGS[0]
    """Of inputs and outputs."""

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Outputs and inputs of each stored matrix."""
        widths = [next_multiple(self.n_in, self.padding)]
        widths += [self.config.n_neurons] * self.config.n_hidden_layers
        widths.append(next_multiple(self.n_out, self.padding))
        return [(b, a) for a, b in pairwise(widths)]

    @property
    def n_params(self) -> int:
        """Stored weights."""
        return sum(j * k for j, k in self.layers)

    def matrices(self, flat: np.ndarray) -> list[np.ndarray]:
        """Return the matrices: the first with its padded inputs, the last without its outputs'."""
        found, at = [], 0
        for j, k in self.layers:
            found.append(flat[at : at + j * k].reshape(j, k))
            at += j * k
        found[-1] = found[-1][: self.n_out]
        return found


def grid_sizes(encoding: GridEncodingConfig, n_dims: int) -> tuple[int, int]:
    """Return the features that a resolved grid gives, and its parameters."""
    n_features = int(encoding.n_features_per_level or 0)
    last = grid_levels(encoding, n_dims)[-1]
    return int(encoding.n_levels or 0) * n_features, (last.offset + last.size) * n_features


def padding_of(snapshot: Snapshot, counts: dict[int, int]) -> tuple[int, list[str]]:
    """Return the padding that the number of bytes fits, and what there is to say of it.

    Args:
        snapshot: as read.
        counts: parameters that there would be, by padding; the first is the usual one.
    """
    data: Any = snapshot.values.get("params_binary")
    usual, *others = counts
    n_bytes = len(data) if isinstance(data, bytes) else 0
    for padding in others:
        fits, n = counts[padding], counts[usual]
        if n_bytes in (2 * fits, 4 * fits) and n_bytes not in (2 * n, 4 * n):
            return padding, [f"networks are padded to {padding}, by the number of parameters"]
    return usual, []


def flat_parameters(snapshot: Snapshot, expected: int, parts: str) -> tuple[np.ndarray, bool]:
    """Return the parameters, float32, and whether they were float16.

    Args:
        snapshot: as read.
        expected: how many the config says.
        parts: what they are made of, for the error.

    Raises:
        DataError: there are none, another number, or some that are not finite.
    """
    data = snapshot.values.get("params_binary")
    if not isinstance(data, bytes):
        raise DataError(f"{snapshot.path} has no parameters (snapshot.params_binary)")
    half = 2 * expected == len(data)
    if not half and 4 * expected != len(data):
        raise DataError(
            f"{snapshot.path} has {len(data)} bytes of parameters ({len(data) // 2} of float16), "
            f"its config says {expected} parameters ({parts}): {2 * expected} bytes of float16 or "
            f"{4 * expected} of float32"
        )
    count, kind = snapshot.values.get("n_params"), snapshot.values.get("params_type")
    if count is not None and count != expected:
        raise DataError(f"{snapshot.path} says {count} parameters, its config {expected}")
    if kind is not None and str(kind) not in (_HALF if half else _FLOAT):
        raise DataError(
            f"{snapshot.path} says its parameters are {kind}, they have "
            f"{len(data) // expected} bytes each"
        )
    values = np.frombuffer(data, "<f2" if half else "<f4").astype(np.float32)
    if not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise DataError(f"{snapshot.path} has {bad} parameters that are no finite numbers")
    return values, half


def density_cells(snapshot: Snapshot, n_cascades: int) -> tuple[np.ndarray | None, list[str]]:
    """Return the density grid, float32 [cascade, z, y, x], and what there is to say of it.

    A cell of a coarser cascade holds at least what those of the finer ones inside it hold.

    Returns:
        None where the file has no grid.

    Raises:
        DataError: a grid of another size or kind, or cells that are no numbers.
    """
    data = snapshot.values.get("density_grid_binary")
    if data is None or data == b"":
        return None, ["snapshot.density_grid_binary is not there: cells are filled from the field"]
    if not isinstance(data, bytes):
        raise DataError(
            f"{snapshot.path}: snapshot.density_grid_binary must be bytes, "
            f"got {type(data).__name__}"
        )
    size = snapshot.values.get("density_grid_size", CELLS)
    if size != CELLS:
        raise DataError(f"{snapshot.path} has a density grid of {size}^3 cells, not of {CELLS}^3")
    cube = CELLS**3
    stored, rest = divmod(len(data), 2 * cube)
    if rest or stored < n_cascades:
        raise DataError(
            f"{snapshot.path} has {len(data)} bytes of density grid, its box needs "
            f"{2 * cube * n_cascades} ({n_cascades} times {CELLS}^3 of float16)"
        )
    notes = []
    if stored > n_cascades:
        notes.append(f"not taken over: cascades {n_cascades} to {stored - 1} of the density grid")
    flat = np.frombuffer(data, "<f2", cube * n_cascades).reshape(n_cascades, cube)
    if bad := int(np.count_nonzero(np.isnan(flat))):
        raise DataError(f"{snapshot.path} has {bad} cells of density that are no numbers")
    most = np.finfo(np.float16).max  # infinity: denser than float16 holds
    cells = np.minimum(flat[:, morton_codes().reshape(-1)], most).astype(np.float32)
    cells = cells.reshape(n_cascades, CELLS, CELLS, CELLS)
    low, high = CELLS // 4, CELLS - CELLS // 4
    for coarse, fine in zip(cells[1:], cells, strict=False):
        middle = coarse[low:high, low:high, low:high]
        half = CELLS // 2
        np.maximum(middle, fine.reshape(half, 2, half, 2, half, 2).max((1, 3, 5)), out=middle)
    return cells, notes


def morton_codes() -> np.ndarray:
    """Return each cell's place in Morton order, int [z, y, x]."""
    axis = np.arange(CELLS)
    spread = sum(((axis >> bit) & 1) << (3 * bit) for bit in range(int(math.log2(CELLS))))
    spread = np.asarray(spread)
    return spread[None, None, :] | spread[None, :, None] << 1 | spread[:, None, None] << 2
