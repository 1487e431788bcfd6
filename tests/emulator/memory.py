"""The address spaces: allocations of the host as global memory, windows for all others.

Every access is looked up: outside of an allocation or across its alignment it is an error, as a
GPU's is at best.
"""

import bisect
import ctypes
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.emulator.variables import PtxError

LOCAL, SHARED, PARAM = 1 << 56, 2 << 56, 3 << 56
"""Where the windows lie in generic addresses; all of the host's are below."""
_WINDOW = (1 << 56) - 1
_ALIGNED = 16


def space_of(address: int) -> str:
    """Return the space that a generic address lies in."""
    return {0: "global", 1: "local", 2: "shared", 3: "param"}.get(address >> 56, "nowhere")


def offset(address: np.ndarray) -> np.ndarray:
    """Return generic addresses without their windows."""
    return address & np.uint64(_WINDOW)


@dataclass
class Region:
    """Memory of the host that kernels may use."""

    base: int
    size: int
    foreign: bool = False
    """Whether Warp's native code has allocated it."""
    start: int = 0
    views: dict[np.dtype, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start = self.base - self.base % _ALIGNED

    def view(self, dtype: np.dtype) -> np.ndarray:
        """Return the memory from ``start`` on as an array of a type."""
        if dtype not in self.views:
            n = -(-(self.base + self.size - self.start) // dtype.itemsize)
            raw = (ctypes.c_uint8 * (n * dtype.itemsize)).from_address(self.start)
            self.views[dtype] = np.frombuffer(raw, dtype=dtype)
        return self.views[dtype]


class GlobalMemory:
    """The allocations that there are, by address."""

    def __init__(self) -> None:
        self._bases: list[int] = []
        self._regions: list[Region] = []

    def add(self, base: int, size: int) -> None:
        """Let kernels use memory of the host."""
        at = bisect.bisect(self._bases, base)
        self._bases.insert(at, base)
        self._regions.insert(at, Region(base, size))

    def remove(self, base: int) -> None:
        """End that.

        Raises:
            PtxError: it is no allocation.
        """
        at = bisect.bisect_left(self._bases, base)
        if at == len(self._bases) or self._bases[at] != base:
            raise PtxError(f"freed twice, or never allocated: {base:#x}")
        del self._bases[at], self._regions[at]

    def find(self, first: int, last: int) -> Region | None:
        """Return the allocation that holds the bytes from ``first`` to before ``last``."""
        at = bisect.bisect(self._bases, first) - 1
        if at < 0:
            return None
        region = self._regions[at]
        return region if last <= region.base + region.size else None


class Access:
    """Global memory as one launch sees it.

    Args:
        memory: the allocations.
        foreign: whether what Warp's native code has allocated may be read too (meshes, volumes).
        races: notes who reads and writes where; None: nobody looks.
        traffic: counts accesses; None: nobody does.
    """

    def __init__(self, memory: GlobalMemory, foreign: bool, races: Any = None, traffic: Any = None):
        self._memory, self._foreign, self.races = memory, foreign, races
        self.traffic = traffic
        self.shared: Any = None
        """``races.Shared``, where somebody looks."""
        self._mapped: list[tuple[int, int]] | None = None

    def parts(self, address: np.ndarray, size: int, align: int) -> list:
        """Return [(region, the accesses that lie in it or None for all)].

        Raises:
            PtxError: an access that is not aligned or lies in no allocation.
        """
        if int(np.bitwise_or.reduce(address)) & (align - 1):
            bad = int(address[np.flatnonzero(address & np.uint64(align - 1))[0]])
            raise PtxError(f"misaligned address {bad:#x} for {align} bytes")
        low, top = int(address.min()), int(address.max()) + size
        region = self._memory.find(low, top)
        if region is not None:
            return [(region, None)]
        found, left = [], np.arange(len(address))
        while left.size:
            first = int(address[left].min())
            region = self._memory.find(first, first + size) or self._unknown(first, size)
            end = region.base + region.size - size
            inside = address[left] <= np.uint64(end)
            found.append((region, left[inside]))
            left = left[~inside]
        return found

    def _unknown(self, address: int, size: int) -> Region:
        if self._foreign:
            if self._mapped is None:
                self._mapped = _mappings()
            for low, top in self._mapped:
                if low <= address and address + size <= top:
                    return Region(low, top - low, foreign=True)
        near = self._memory.find(address, address)
        where = "no allocation" if near is None else (
            f"an allocation of {near.size} bytes, from byte {address - near.base} on")  # fmt: skip
        raise PtxError(f"an access of {size} bytes at {address:#x}: {where}")


def _mappings() -> list[tuple[int, int]]:
    """Return the address ranges that this process may read and write."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if part := re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line):
            found.append((int(part[1], 16), int(part[2], 16)))
    return found
