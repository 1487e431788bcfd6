"""A regular lattice over a box, of which only the blocks near a surface are ever evaluated.

The box is cut into ``resolution`` cells a side; node (i, j, k) lies at
``lower + (i, j, k) * cell``. Blocks have 8^3 cells, and own the nodes at their cells' lower
corners. Each node is evaluated at most once, so that cells and blocks that share it see one value,
whatever a field's rounding does.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ngp_warp import memory
from ngp_warp.errors import ConfigError, DataError, ResourceError, ShapeError
from ngp_warp.files import format_bytes

Evaluate = Callable[[np.ndarray], Any]
"""float32 points [n, 3] -> values [n] or [n, 1], negative inside."""

BLOCK = 8
"""Cells along a block's side: a leaf of NanoVDB."""
RESOLUTION_MAX = 4096

# A scan of at least this many points a side is affordable (1 to 7 million points), and finds
# floaters of one hundredth of the box even where the field's values are wrong around them.
_SCAN_MIN = 96
_POINTS_AT_ONCE = 1 << 18
_SLOTS_AT_ONCE = 1 << 10
# Measured at the peak: a block's nodes with those of its neighbours, its vertices and faces.
_BYTES_PER_BLOCK = 10_000
_OFFSETS = tuple(itertools.product((0, 1), repeat=3))


class Lattice:
    """Nodes over a box, and the function whose values they hold.

    Args:
        evaluate: the field; negative inside.
        resolution: cells along each side of the box, 2 to RESOLUTION_MAX.
        level: subtracted from the values.
        lower: the box.
        upper: the box.

    Raises:
        ConfigError: a resolution or a box out of range.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        resolution: int,
        *,
        level: float = 0.0,
        lower: tuple[float, float, float] = (0.0, 0.0, 0.0),
        upper: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ):
        if not 2 <= resolution <= RESOLUTION_MAX:
            raise ConfigError(f"resolution must be 2 to {RESOLUTION_MAX}, got {resolution}")
        self.lower = np.asarray(lower, np.float64)
        self.cell = (np.asarray(upper, np.float64) - self.lower) / resolution
        if not (np.all(np.isfinite(self.cell)) and np.all(self.cell > 0)):
            raise ConfigError(f"the box must have lower < upper, got {lower} and {upper}")
        self.resolution = resolution
        self.n_blocks = -(-resolution // BLOCK)
        self.n_evaluated = 0
        self._evaluate = evaluate
        self._level = level

    def positions(self, nodes: np.ndarray) -> np.ndarray:
        """Return the positions float64 [n, 3] of nodes [n, 3], which may be fractions."""
        return self.lower + nodes * self.cell

    def values(self, nodes: np.ndarray) -> np.ndarray:
        """Return the field minus the level, float32 [n], at nodes [n, 3].

        Raises:
            DataError: the field is not finite.
            ShapeError: not one value a point came back.
        """
        result = np.empty(len(nodes), np.float32)
        for begin in range(0, len(nodes), _POINTS_AT_ONCE):
            part = slice(begin, begin + _POINTS_AT_ONCE)
            points = self.positions(nodes[part]).astype(np.float32)
            values = np.asarray(self._evaluate(points), np.float32)
            if values.size != len(points):
                raise ShapeError(f"a field must give [{len(points)}], got {list(values.shape)}")
            result[part] = values.reshape(-1)
        result -= np.float32(self._level)
        self.n_evaluated += len(nodes)
        if not np.all(np.isfinite(result)):
            at = self.positions(nodes[np.argmin(np.isfinite(result))])
            raise DataError(f"the field is not finite at {at.round(4).tolist()}: train it anew")
        return result

    def near_blocks(self, lipschitz: float, margin: float = 0.0) -> np.ndarray:
        """Return bool [n_blocks] * 3: the blocks that may hold a value of at most ``margin``.

        From coarse to fine, the field is taken at the centres of ever smaller cubes; a cube is kept
        if the surface can reach it (|value| <= lipschitz * half diagonal + margin), or if it
        differs in sign from a neighbour. The surface is closed at the sides of the box, so cubes
        there are kept wherever they are inside.

        Args:
            lipschitz: the field changes by no more than this for each unit of distance. A learned
                distance field needs more than 1. Infinite: all blocks.
            margin: width of the band about the surface, in the field's units.
        """
        size = 2 ** max(0, math.floor(math.log2(self.resolution / _SCAN_MIN)))
        if math.isinf(lipschitz) or size == 1:
            return np.ones((self.n_blocks,) * 3, bool)
        near = self._scan(None, size, lipschitz, margin)
        while size > BLOCK:
            size //= 2
            near = self._scan(near, size, lipschitz, margin)
        return _any_of(near, BLOCK // size, self.n_blocks)

    def _scan(
        self, coarse: np.ndarray | None, size: int, lipschitz: float, margin: float
    ) -> np.ndarray:
        """Return which cubes of ``size`` cells, within the coarser ones, are near the surface."""
        n = -(-self.resolution // size)
        values = np.full((n, n, n), np.nan, np.float32)
        for x in range(n):
            plane = np.ones((n, n), bool) if coarse is None else _doubled(coarse[x // 2])[:n, :n]
            index = np.argwhere(plane)
            cubes = np.column_stack([np.full(len(index), x), index])
            # The last cubes may reach out of the box: the middle of what lies in it is as good.
            centres = np.minimum((cubes + 0.5) * size, self.resolution)
            values[x][plane] = self.values(centres)
        reach = lipschitz * 0.5 * size * float(np.linalg.norm(self.cell)) + margin
        near = np.abs(values) <= reach
        for axis in range(3):
            v, kept = np.moveaxis(values, axis, 0), np.moveaxis(near, axis, 0)
            kept[0] |= v[0] < 0
            kept[-1] |= v[-1] < 0
            change = (v[1:] < 0) & (v[:-1] >= 0) | (v[1:] >= 0) & (v[:-1] < 0)
            kept[1:] |= change
            kept[:-1] |= change
        return near


class NodePool:
    """The values of the nodes of the blocks that were asked for.

    A block's cells reach to the first nodes of its seven upper neighbours; of those, only what is
    needed is evaluated.

    Args:
        lattice: the lattice.
        closed: nodes on the sides of the box are outside, so that every surface is closed.
        n_expected: blocks that will be asked for; more are possible, but cost a copy.
    """

    def __init__(self, lattice: Lattice, *, closed: bool, n_expected: int):
        self.lattice = lattice
        self._closed = closed
        n = lattice.n_blocks + 1
        self._slots = np.full((n, n, n), -1, np.int32)
        self._owners = np.empty((0, 3), np.int32)
        self._needs = np.empty(0, np.uint8)
        # Pages that are never written take no memory.
        self._values = np.empty((2 * n_expected + 64, BLOCK, BLOCK, BLOCK), np.float32)

    def add(self, blocks: np.ndarray, done: Callable[[float], None] = lambda share: None) -> None:
        """Evaluate all nodes of the cells of blocks [n, 3] that were not evaluated yet.

        Args:
            blocks: distinct blocks that were not added before.
            done: told the share of the nodes that are done.
        """
        self._assign_slots(blocks)
        before = self._needs.copy()
        for bit, offset in enumerate(_OFFSETS):
            # a block has one neighbour at each offset, so that no slot occurs twice
            self._needs[self._slots[tuple((blocks + offset).T)]] |= np.uint8(1 << bit)
        changed = np.flatnonzero(self._needs != before)
        for begin in range(0, len(changed), _SLOTS_AT_ONCE):
            part = changed[begin : begin + _SLOTS_AT_ONCE]
            self._fill(part, _NODES_NEEDED[self._needs[part]] & ~_NODES_NEEDED[before[part]])
            done((begin + len(part)) / len(changed))

    def _assign_slots(self, blocks: np.ndarray) -> None:
        wanted = np.zeros(self._slots.shape, bool)
        for offset in _OFFSETS:
            wanted[tuple((blocks + offset).T)] = True
        wanted &= self._slots < 0
        new = np.argwhere(wanted).astype(np.int32)
        begin, end = len(self._owners), len(self._owners) + len(new)
        self._slots[wanted] = np.arange(begin, end, dtype=np.int32)
        self._owners = np.concatenate([self._owners, new])
        self._needs = np.concatenate([self._needs, np.zeros(len(new), np.uint8)])
        if end > len(self._values):
            grown = np.empty((end + end // 4, BLOCK, BLOCK, BLOCK), np.float32)
            grown[:begin] = self._values[:begin]
            self._values = grown

    def _fill(self, slots: np.ndarray, needed: np.ndarray) -> None:
        """Evaluate ``needed`` [n, 512] of the nodes of ``slots`` [n]."""
        which, local = np.nonzero(needed)
        owners, last = self._owners[slots], self.lattice.resolution
        nodes = owners[which] * BLOCK + _LOCAL_NODES[local]
        at_side = np.any((owners == 0) | (owners * BLOCK + BLOCK > last), axis=1)
        outer = np.flatnonzero(at_side[which])
        in_box = np.ones(len(nodes), bool)
        in_box[outer] = np.all(nodes[outer] <= last, axis=1)
        values = np.full(len(nodes), np.float32(1.0))
        values[in_box] = self.lattice.values(nodes[in_box])
        if self._closed:
            sides = outer[np.any((nodes[outer] == 0) | (nodes[outer] == last), axis=1)]
            values[sides] = np.maximum(values[sides], np.finfo(np.float32).tiny)
        self._values.reshape(-1, BLOCK**3)[slots[which], local] = values

    def cubes(self, blocks: np.ndarray) -> np.ndarray:
        """Return the values float32 [n, 9, 9, 9] at the corners of all cells of blocks [n, 3]."""
        cubes = np.empty((len(blocks), BLOCK + 1, BLOCK + 1, BLOCK + 1), np.float32)
        for offset in _OFFSETS:
            slots = self._slots[tuple((blocks + offset).T)]
            source = tuple(0 if o else slice(None) for o in offset)
            target = tuple(BLOCK if o else slice(BLOCK) for o in offset)
            cubes[(slice(None), *target)] = self._values[(slots, *source)]
        return cubes


def check_memory(n_blocks: int, resolution: int) -> None:
    """Raise unless there is memory for blocks and for the surface in them.

    Raises:
        ResourceError: says how much is needed and how much is free.
    """
    needed, free = n_blocks * _BYTES_PER_BLOCK, memory.available_bytes()
    if needed > free:
        raise ResourceError(
            f"extraction at resolution {resolution} needs {format_bytes(needed)} of memory, "
            f"{format_bytes(free)} are free; choose a lower resolution"
        )


def batches(blocks: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield ``blocks`` in pieces of at most ``size``."""
    for begin in range(0, len(blocks), size):
        yield blocks[begin : begin + size]


def _doubled(plane: np.ndarray) -> np.ndarray:
    return plane.repeat(2, axis=0).repeat(2, axis=1)


def _any_of(near: np.ndarray, factor: int, n: int) -> np.ndarray:
    """Return bool [n] * 3: whether any of factor^3 cubes is near."""
    padded = np.zeros((n * factor,) * 3, bool)
    padded[tuple(slice(s) for s in near.shape)] = near
    return np.asarray(padded.reshape(n, factor, n, factor, n, factor).any(axis=(1, 3, 5)))


def _nodes_needed() -> np.ndarray:
    """Return bool [256, 512]: the nodes of a block that the blocks below it need.

    Bit b of a row's number says that the block ``_OFFSETS[b]`` below is asked for.
    """
    needed = np.zeros((256, BLOCK**3), bool)
    for need in range(256):
        for bit, offset in enumerate(_OFFSETS):
            if need >> bit & 1:
                needed[need] |= np.all((np.array(offset) == 0) | (_LOCAL_NODES == 0), axis=1)
    return needed


_LOCAL_NODES = np.stack(np.unravel_index(np.arange(BLOCK**3), (BLOCK,) * 3), axis=1).astype(
    np.int32
)
_NODES_NEEDED = _nodes_needed()
