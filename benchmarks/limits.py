"""The machine's limits, measured through the thread pool that the training step runs on."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import warp as wp

from benchmarks import kernels
from ngp_warp import launch

_FLOP_ROUNDS = 1 << 19
_GATHER_ROUNDS = 1 << 16
_ITEMS_PER_THREAD = 2


@dataclass(frozen=True)
class Limits:
    """Rates of the whole machine, a second."""

    flops: float
    """Float32 operations; a multiply-add is two."""
    bandwidth: float
    """Bytes read, or read and written, in order."""
    gather: Mapping[int, float]
    """Entries (a power of two, of two floats) to random reads that all threads do in one table."""
    update: Mapping[int, float]
    """Entries to random additions, each thread in a table of its own."""

    def gather_rate(self, n_entries: int) -> float:
        """Return the random reads a second from a level of so many entries."""
        return self.gather[size_class(n_entries)]

    def update_rate(self, n_entries: int) -> float:
        """Return the random additions a second to a level of so many entries."""
        return self.update[size_class(n_entries)]


def size_class(n_entries: int) -> int:
    """Return the largest power of two of at most n_entries: a smaller table is never slower."""
    return 1 << (n_entries.bit_length() - 1)


class LimitKernels:
    """The launches that measure the limits, to be timed in turns with what is held against them.

    Args:
        level_sizes: entries of a grid's levels.
        state_bytes: size of the memory that the bandwidth is measured in: that of the parameters
            with what the optimizer keeps, since a cache may hold it.
        n_rounds_share: share of the usual amount of work, for tests.
    """

    def __init__(self, level_sizes: Iterable[int], state_bytes: int, n_rounds_share: float = 1.0):
        self.parts: dict[str, Callable[[], None]] = {}
        self._work: dict[str, float] = {}
        self._sizes = sorted({size_class(n) for n in level_sizes})
        self._share = n_rounds_share
        self._n_items = _ITEMS_PER_THREAD * launch.num_threads()
        self._add_flops()
        self._add_bandwidth(state_bytes)
        self._add_random()

    def limits(self, seconds: Mapping[str, float]) -> Limits:
        """Return the limits from the time of every part."""
        rate = {name: work / seconds[name] for name, work in self._work.items()}
        loads = ("gather one by one", "gather in vectors")
        return Limits(
            flops=rate["multiply-add"],
            bandwidth=max(rate["read"], rate["rewrite"]),
            gather={n: max(rate[f"{kind} {n}"] for kind in loads) for n in self._sizes},
            update={n: rate[f"update {n}"] for n in self._sizes},
        )

    def _add(self, name: str, item: launch.Launch, work: float) -> None:
        self.parts[name] = item.run
        self._work[name] = work

    def _add_flops(self) -> None:
        # factor below one: the sums stay normal numbers
        numbers = np.linspace(0.1, 0.9, 16, dtype=np.float32)
        numbers[:2] = 0.999, 1e-3
        n_rounds = max(int(_FLOP_ROUNDS * self._share), 1)
        out = _zeros(2 * self._n_items)
        args = [wp.array(numbers, device="cpu"), n_rounds, out]
        item = launch.record(kernels.multiply_add_kernel(), self._n_items, args, "cpu")
        item.run()
        self._add("multiply-add", item, float(out.numpy()[1]) * n_rounds * self._n_items)

    def _add_bandwidth(self, state_bytes: int) -> None:
        n_chunks = max(state_bytes // (4 * kernels.CHUNK), self._n_items)
        x, out = _zeros(n_chunks * kernels.CHUNK), _zeros(n_chunks)
        n_bytes = 4 * x.size
        self._add("read", launch.record(kernels.read_kernel(), n_chunks, [x, out], "cpu"), n_bytes)
        rewrite = launch.record(kernels.rewrite_kernel(), n_chunks, [1.0, x], "cpu")
        self._add("rewrite", rewrite, 2 * n_bytes)

    def _add_random(self) -> None:
        n_rounds = max(int(_GATHER_ROUNDS * self._share), 1)
        n_items, n_tables = self._n_items, launch.num_threads()
        tables, out = _zeros(2 * self._sizes[-1] * n_tables), _zeros(n_items)
        work = n_rounds * kernels.GATHERS
        for n in self._sizes:
            args = [tables, n - 1, n_rounds, out]
            for kind, vector in (("one by one", False), ("in vectors", True)):
                item = launch.record(kernels.gather_kernel(vector), n_items, args, "cpu")
                self._add(f"gather {kind} {n}", item, work * n_items)
            args = [1.0, n - 1, n_rounds, tables]
            item = launch.record(kernels.update_kernel(), n_tables, args, "cpu", shards=n_tables)
            self._add(f"update {n}", item, work * n_tables)


def _zeros(n: int) -> wp.array:
    return wp.zeros(n, dtype=float, device="cpu")
