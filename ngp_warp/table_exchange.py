"""The exchange of a table's gradient between processes on CPUs.

The parts of a batch lie apart, so that processes touch mostly different groups of entries: sending
each one's own to all takes half as long as summing what any of them has touched (measured on an
image), and a tenth of what the whole table would take.
"""

from typing import Any

import warp as wp

from ngp_warp import launch
from ngp_warp.kernels import exchange as kernels

# Rows more than were needed, so that buffers seldom grow.
_SPARE = 1.25


class TableExchange:
    """Averages the touched groups of a table's gradient; the result is the same bits everywhere.

    Args:
        gradient: float32 [n_groups * n].
        touched: uint8 [n_groups]; becomes the union over the processes.
        n_processes: how many there are.
    """

    def __init__(self, gradient: wp.array, touched: wp.array, n_processes: int):
        self.gradient, self.touched, self.n_processes = gradient, touched, n_processes
        self.n_groups = touched.size
        self.n = gradient.size // max(self.n_groups, 1)
        n_items = -(-self.n_groups // kernels.FLAGS_PER_ITEM)
        self._item_counts, self._offsets = self._ints(n_items), self._ints(n_items)
        self.counts, self._most = self._ints(n_processes), self._ints(1)
        """int32 [n_processes]: groups that each process has touched."""
        args = [self.n_groups, touched, self._item_counts]
        self._count = launch.record(kernels.count_kernel(), n_items, args, "cpu")
        self._grow(0)

    def _ints(self, n: int) -> wp.array:
        return wp.zeros(n, dtype=wp.int32, device="cpu")

    def _grow(self, n_rows: int) -> None:
        """Make room for messages of so many rows, and record what works on them."""
        self._room, width, n = n_rows, self.n + 1, self.n_processes
        self.message = wp.empty(n_rows * width, dtype=float, device="cpu")
        self.messages = wp.empty(n * n_rows * width, dtype=float, device="cpu")
        args = [self.n_groups, 1.0 / n, self.touched, self._offsets, self._most]
        args += [self.gradient, self.message]
        n_items = self._offsets.size
        self._pick = launch.record(kernels.pick_kernel(self.n), n_items, args, "cpu")
        kernel = kernels.add_kernel(self.n)
        args = [self.counts, self._most, self.messages, self.gradient, self.touched]
        self._add = [
            launch.record(kernel, kernels.N_ITEMS, [rank, *args], "cpu") for rank in range(n)
        ]

    def count(self) -> int:
        """Return how many groups this process has touched."""
        self._count.run()
        counts: Any = self._item_counts.numpy()
        offsets: Any = self._offsets.numpy()
        offsets[1:] = counts.cumsum()[:-1]
        return int(counts.sum())

    def pick(self) -> tuple[wp.array, wp.array]:
        """Return this process's message, and where all processes' are wanted, one after another.

        ``counts`` must have been filled.
        """
        # none may have touched any: one row that no one reads
        most = max(int(self.counts.numpy().max()), 1)
        self._most.fill_(most)
        if most > self._room:
            self._grow(int(most * _SPARE))
        self._pick.run()
        n = most * (self.n + 1)
        message: Any = self.message[:n]
        messages: Any = self.messages[: n * self.n_processes]
        return message, messages

    def add(self) -> None:
        """Add all processes' messages, in their order."""
        for item in self._add:
            item.run()
