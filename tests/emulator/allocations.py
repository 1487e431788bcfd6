"""The device's memory, which is the host's: allocations, copies and fills.

Every copy and fill is looked up when it is done, in a graph at each of its launches.
"""

import ctypes
from typing import Any

import numpy as np

from tests.emulator.graphs import Graph, Graphs, address_of
from tests.emulator.memory import GlobalMemory
from tests.emulator.variables import PtxError

_ALIGNMENT = 256
_MEMORY = 1 << 29
"""Small: the package fills a share of it with room for samples, each of them a thread."""
_ALLOCATED = 0xFF
"""What new memory holds: NaN, or -1."""
_REGULAR = 0
"""The kind of an array that has its address first, as ``ARRAY_TYPE_REGULAR``."""


class Allocations(Graphs):
    """The functions of Warp's library that deal with a device's memory.

    Attributes:
        memory_size: bytes that it has; more may be allocated.
    """

    def __init__(self, core: Any):
        super().__init__(core)
        self.memory_size = _MEMORY
        self.memory = GlobalMemory()
        self._buffers: dict[int, np.ndarray] = {}
        self._owners: dict[int, Graph] = {}
        """The graphs in whose captures memory was allocated, by its address."""

    @property
    def memory_used(self) -> int:
        """Bytes of all allocations."""
        return sum(b.nbytes for b in self._buffers.values())

    def wp_cuda_device_get_memory_info(self, ordinal: int, free: Any, total: Any) -> None:
        left = max(self.memory_size - self.memory_used, 0)
        for pointer, value in ((free, left), (total, self.memory_size)):
            if pointer is not None:
                pointer._obj.value = value

    def _allocate(self, size: int) -> int:
        buffer = np.full(size + _ALIGNMENT, _ALLOCATED, np.uint8)
        base = -(-buffer.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        self._buffers[base] = buffer
        self.memory.add(base, size)
        return base

    def _release(self, address: int) -> None:
        self.memory.remove(address)
        del self._buffers[address]

    def _end(self, graph: Graph) -> None:
        """Release what a graph has allocated, but for what is in use elsewhere."""
        for address in [a for a, owner in self._owners.items() if owner is graph]:
            del self._owners[address]
            if address in graph.freed:
                self._release(address)

    def wp_alloc_device_default(self, context: int, size: int, tag: Any) -> int:
        if self._capture is not None:
            raise PtxError("an allocation outside of the pool while a graph is captured")
        return self._allocate(size)

    def wp_alloc_device_async(self, context: int, size: int, stream: Any, tag: Any) -> int:
        base = self._allocate(size)
        if self._capture is not None:
            self._owners[base] = self._capture
            # every launch allocates it anew
            self._do(lambda: ctypes.memset(base, _ALLOCATED, size))
        return base

    def wp_free_device_default(self, context: int, address: int) -> None:
        graph = self._owners.get(address)
        if graph is None:
            self._release(address)
        elif address in graph.freed:
            raise PtxError(f"freed twice: {address:#x}")
        else:
            graph.freed.add(address)

    def wp_free_device_async(self, context: int, address: int, stream: Any) -> None:
        self.wp_free_device_default(context, address)

    def wp_alloc_pinned(self, size: int, tag: Any) -> int:
        return self._core.wp_alloc_host(size, tag)

    def wp_free_pinned(self, address: int) -> None:
        self._core.wp_free_host(address)

    # copies and fills

    def _check(self, address: int, size: int) -> None:
        if size and self.memory.find(address, address + size) is None:
            raise PtxError(f"a copy or fill of {size} bytes at {address:#x}: no allocation")

    def _check_array(self, array: Any, kind: int) -> None:
        if kind == _REGULAR:
            data = ctypes.c_uint64.from_address(address_of(array)).value
            self._check(data, int(data != 0))

    def _move(self, to: Any, of: Any, size: int, *, device: str) -> bool:
        to, of = address_of(to), address_of(of)

        def work() -> None:
            for side, address in (("to", to), ("from", of)):
                if side in device:
                    self._check(address, size)
            ctypes.memmove(to, of, size)

        return self._do(work)

    def wp_memcpy_h2d(self, context: int, to: Any, of: Any, size: int, stream: Any) -> bool:
        return self._move(to, of, size, device="to")

    def wp_memcpy_d2h(self, context: int, to: Any, of: Any, size: int, stream: Any) -> bool:
        return self._move(to, of, size, device="from")

    def wp_memcpy_d2d(self, context: int, to: Any, of: Any, size: int, stream: Any) -> bool:
        return self._move(to, of, size, device="to from")

    def wp_memset_device(self, context: int, to: Any, value: int, size: int, stream: Any) -> bool:
        to = address_of(to)

        def work() -> None:
            self._check(to, size)
            ctypes.memset(to, value, size)

        return self._do(work)

    def wp_memtile_device(self, context: int, to: Any, of: Any, size: int, count: int) -> None:
        to, kept = address_of(to), _kept(of, size)

        def work() -> None:
            self._check(to, size * count)
            self._core.wp_memtile_host(to, kept, size, count)

        self._do(work)

    def wp_array_fill_device(
        self, context: int, array: Any, kind: int, value: Any, size: int
    ) -> None:
        kept = _kept(value, size)

        def work() -> None:
            self._check_array(array, kind)
            self._core.wp_array_fill_host(array, kind, kept, size)

        self._do(work)

    def wp_array_copy_device(
        self, context: int, to: Any, of: Any, to_kind: int, of_kind: int, size: int
    ) -> bool:
        def work() -> None:
            self._check_array(to, to_kind)
            self._check_array(of, of_kind)
            self._core.wp_array_copy_host(to, of, to_kind, of_kind, size)

        return self._do(work)


def _kept(value: Any, size: int) -> Any:
    """Return a copy of a value that may be gone when it is used."""
    return ctypes.create_string_buffer(ctypes.string_at(address_of(value), size), size)
