"""The rays that are still on their way, worked on in slots that are recorded once."""

from collections.abc import Callable
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.kernels import active as kernels

# Passes over the remaining rays shrink with them, by this factor, down to the fewest.
_SLOT_RATIO, _FEWEST_SLOTS = 4, 128


class ActiveRays:
    """A list of rays, compacted to those that have not ended.

    Args:
        status: int32 [capacity], of every ray; ``kernels.active.ENDED`` and more: it has ended.
        most_slots: rays of one pass.
        device: "cpu" or a CUDA device.
    """

    def __init__(self, status: wp.array, most_slots: int, device: str):
        self.capacity = status.size
        self.device = device
        self._status = status
        # the list of the rays on their way, and the one it is compacted to
        self.active, self._kept, self._flags, self._sums = (
            wp.zeros(self.capacity, dtype=int, device=device) for _ in range(4)
        )
        self._all = wp.array(np.arange(self.capacity, dtype=np.int32), device=device)
        self.span = wp.zeros(2, dtype=int, device=device)
        """int32 [2]: the part of ``active`` that the slots of a pass take."""
        self._slots = [most_slots]
        while self._slots[-1] > _FEWEST_SLOTS:
            self._slots.append(max(self._slots[-1] // _SLOT_RATIO, _FEWEST_SLOTS))

    def run(self, n: int, run_pass: Callable[[int], None]) -> None:
        """Bring the first ``n`` rays to their ends.

        Args:
            n: up to the capacity.
            run_pass: takes the rays of ``span`` on by some steps, in so many slots.
        """
        wp.copy(self.active, self._all, count=n)
        n_active = self._compact(n)
        while n_active:
            for begin in range(0, n_active, self._slots[0]):
                wanted = min(n_active - begin, self._slots[0])
                self.span.assign(np.array([begin, begin + wanted], np.int32))
                run_pass(min(s for s in self._slots if s >= wanted))
            n_active = self._compact(n_active)

    def _compact(self, n_active: int) -> int:
        """Drop the rays that have ended from the first ``n_active`` listed; return what is left."""
        if n_active == 0:
            return 0
        flags: Any = self._flags[:n_active]
        sums: Any = self._sums[:n_active]
        args = [self.active, self._status, self._flags]
        launch.launch(kernels.flag_kernel, n_active, args, self.device)
        wp.utils.array_scan(flags, sums, inclusive=True)
        args = [self.active, self._flags, self._sums, self._kept]
        launch.launch(kernels.compact_kernel, n_active, args, self.device)
        left = int(sums[n_active - 1 : n_active].numpy()[0])
        wp.copy(self.active, self._kept, count=n_active)
        return left
