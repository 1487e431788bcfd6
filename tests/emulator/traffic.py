"""What a kernel asks of a GPU: instructions of warps, and sectors of global memory.

A warp's access goes to memory in sectors of 32 bytes, however few of their bytes it wants; lanes in
one sector share it. A multiprocessor looks up one line of its cache, 128 bytes, in a cycle.
"""

from dataclasses import dataclass, field

import numpy as np

WARP, SECTOR, LINE = 32, 32, 128
KINDS = ("read", "write", "add")


@dataclass
class Traffic:
    """Sums over launches.

    Attributes:
        launches: how many.
        instructions: of warps; a warp whose lanes part counts once for each way.
        requests: instructions of warps that access global memory, by kind.
        sectors: that these want, by kind.
        lines: that these lie in.
        bytes: that their lanes want, by kind.
    """

    launches: int = 0
    instructions: int = 0
    requests: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    sectors: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    lines: int = 0
    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def note_instructions(self, n_threads: int, group: np.ndarray | None, count: int) -> None:
        """Note that threads (None: all) run so many instructions together."""
        warps = n_threads // WARP if group is None else len(np.unique(group // WARP))
        self.instructions += max(warps, 1) * count

    def note_access(self, kind: str, address: np.ndarray, threads: np.ndarray, size: int) -> None:
        """Note an access of each thread at its address, aligned to its size in bytes."""
        warps = threads.astype(np.uint64) // np.uint64(WARP)
        sectors = np.unique(address // np.uint64(SECTOR) | warps << np.uint64(48))
        self.requests[kind] += len(np.unique(warps))
        self.sectors[kind] += len(sectors)
        self.lines += len(np.unique(sectors // np.uint64(LINE // SECTOR)))
        self.bytes[kind] += size * len(address)
