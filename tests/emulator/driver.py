"""Stands in for CUDA's driver below Warp: allocations of the host, launches run by ``machine``.

Work is done where it is queued; a captured graph keeps it as functions and repeats them. Warp's own
device functions (scan, sort, fill, meshes) are its host functions.
"""

import contextlib
import ctypes
import functools
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp
from warp._src import context as warp_context

from ngp_warp import launch
from tests.emulator import machine
from tests.emulator.memory import GlobalMemory
from tests.emulator.program import Program
from tests.emulator.text import Module, PtxError

ARCH = 90
_ALIGNMENT = 256
_MEMORY = 1 << 29
"""Small: the package fills a share of it with room for samples, each of them a thread."""
_CONTEXT = 0xC0DA
_ALLOCATED = 0xFF
"""What new memory holds: NaN, or -1."""


class Driver:
    """The functions of Warp's library that need a driver, by their names there."""

    def __init__(self, core: Any):
        self._core = core
        self.memory = GlobalMemory()
        self.present = False
        """Whether Warp is to see the device."""
        self.looks_for_races = False
        """Whether a race ends a launch; slower."""
        self.kernels_launched: dict[str, int] = {}
        """Launches by the kernel's name in the PTX."""
        self._buffers: dict[int, np.ndarray] = {}
        self._handles = itertools.count(1)
        self._modules: dict[int, tuple[Module, dict[str, int]]] = {}
        self._kernels: dict[int, tuple[int, str]] = {}
        self._programs: dict[int, Program] = {}
        self._native: set[int] = set()
        self._times: dict[int, float] = {}
        self._graphs: dict[int, list[Callable[[], None]]] = {}
        self._capture: list[Callable[[], None]] | None = None
        self._stream: int | None = None

    def _do(self, work: Callable[[], None]) -> bool:
        """Do something now, or note it for the graph that is being captured."""
        if self._capture is not None:
            if not self._stream:
                raise PtxError("work of the null stream while a graph is captured")
            self._capture.append(work)
        else:
            work()
        return True

    # devices and contexts

    def wp_cuda_driver_is_initialized(self) -> bool:
        return self.present

    def wp_cuda_driver_version(self) -> int:
        return self._core.wp_cuda_toolkit_version()

    def wp_cuda_device_get_count(self) -> int:
        return 1

    def wp_cuda_device_get_name(self, ordinal: int) -> bytes:
        return b"emulated sm_90"

    def wp_cuda_device_get_arch(self, ordinal: int) -> int:
        return ARCH

    def wp_cuda_device_get_sm_count(self, ordinal: int) -> int:
        return 1

    def wp_cuda_device_get_max_shared_memory(self, ordinal: int) -> int:
        return 227 << 10

    def wp_cuda_device_is_uva(self, ordinal: int) -> int:
        return 1

    def wp_cuda_device_get_pageable_memory_access(self, ordinal: int) -> int:
        return 0

    wp_cuda_device_get_direct_managed_mem_access_from_host = (
        wp_cuda_device_get_pageable_memory_access
    )
    wp_cuda_device_get_host_native_atomic_supported = wp_cuda_device_get_pageable_memory_access
    wp_cuda_device_get_managed_memory_supported = wp_cuda_device_get_pageable_memory_access
    wp_cuda_device_get_concurrent_managed_access_supported = (
        wp_cuda_device_get_pageable_memory_access
    )
    wp_cuda_device_is_ipc_supported = wp_cuda_device_get_pageable_memory_access
    wp_cuda_device_get_pci_domain_id = wp_cuda_device_get_pageable_memory_access
    wp_cuda_device_get_pci_bus_id = wp_cuda_device_get_pageable_memory_access
    wp_cuda_device_get_pci_device_id = wp_cuda_device_get_pageable_memory_access
    wp_cuda_device_is_mempool_supported = wp_cuda_device_is_uva

    def wp_cuda_device_get_uuid(self, ordinal: int, uuid: Any) -> None:
        """All zeros."""

    def wp_cuda_device_get_memory_info(self, ordinal: int, free: Any, total: Any) -> None:
        used = sum(b.nbytes for b in self._buffers.values())
        for pointer, value in ((free, _MEMORY - used), (total, _MEMORY)):
            if pointer is not None:
                pointer._obj.value = value

    def wp_cuda_device_get_primary_context(self, ordinal: int) -> int:
        return _CONTEXT

    def wp_cuda_context_get_current(self) -> int:
        return _CONTEXT

    def wp_cuda_context_is_primary(self, context: int) -> int:
        return 1

    def wp_cuda_context_get_device_ordinal(self, context: int) -> int:
        return 0

    def _nothing(self, *args: Any) -> int:
        return 0

    wp_cuda_context_set_current = _nothing
    wp_cuda_context_push_current = _nothing
    wp_cuda_context_pop_current = _nothing

    wp_cuda_context_check = _nothing

    # streams and events

    def wp_cuda_context_set_stream(self, context: int, stream: int | None, sync: int) -> None:
        self._stream = stream

    def _handle(self, *args: Any) -> int:
        return next(self._handles)

    wp_cuda_stream_create = _handle
    wp_cuda_event_create = _handle
    wp_cuda_stream_destroy = _nothing
    wp_cuda_stream_register = _nothing
    wp_cuda_stream_unregister = _nothing
    wp_cuda_stream_query = _nothing
    wp_cuda_stream_wait_event = _nothing
    wp_cuda_stream_wait_stream = _nothing
    wp_cuda_event_destroy = _nothing
    wp_cuda_event_query = _nothing

    def _wait(self, what: int) -> bool:
        if self._capture is not None:
            raise PtxError("a wait for the device while a graph is captured")
        return True

    wp_cuda_context_synchronize = _wait
    wp_cuda_stream_synchronize = _wait
    wp_cuda_event_synchronize = _wait

    def wp_cuda_stream_is_capturing(self, stream: int) -> int:
        return int(self._capture is not None)

    def wp_cuda_stream_get_capture_id(self, stream: int) -> int:
        return int(self._capture is not None)

    def wp_cuda_event_record(self, event: int, stream: int, timing: bool) -> None:
        self._times[event] = time.perf_counter()

    def wp_cuda_event_elapsed_time(self, first: int, last: int) -> float:
        return (self._times[last] - self._times[first]) * 1e3

    # memory

    def wp_alloc_device_default(self, context: int, size: int, tag: Any) -> int:
        if self._capture is not None:
            raise PtxError("an allocation outside of the pool while a graph is captured")
        return self._allocate(size)

    def wp_alloc_device_async(self, context: int, size: int, stream: Any, tag: Any) -> int:
        return self._allocate(size)

    def _allocate(self, size: int) -> int:
        buffer = np.full(size + _ALIGNMENT, _ALLOCATED, np.uint8)
        base = -(-buffer.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        self._buffers[base] = buffer
        self.memory.add(base, size)
        return base

    def wp_free_device_default(self, context: int, address: int) -> None:
        self.memory.remove(address)
        del self._buffers[address]

    def wp_free_device_async(self, context: int, address: int, stream: Any) -> None:
        self.wp_free_device_default(context, address)

    def wp_alloc_pinned(self, size: int, tag: Any) -> int:
        return self._core.wp_alloc_host(size, tag)

    def wp_free_pinned(self, address: int) -> None:
        self._core.wp_free_host(address)

    def _move(self, to: Any, of: Any, size: int, *, device: str) -> bool:
        to, of = _address(to), _address(of)
        for side, address in (("to", to), ("from", of)):
            if side in device:
                inside = self.memory.find(address, address + size)
                if inside is None:
                    raise PtxError(f"a copy of {size} bytes {side} {address:#x}: no allocation")
        return self._do(lambda: _copied(to, of, size))

    def wp_memcpy_h2d(self, context: int, to: Any, of: Any, size: int, stream: Any) -> bool:
        return self._move(to, of, size, device="to")

    def wp_memcpy_d2h(self, context: int, to: Any, of: Any, size: int, stream: Any) -> bool:
        return self._move(to, of, size, device="from")

    def wp_memcpy_d2d(self, context: int, to: Any, of: Any, size: int, stream: Any) -> bool:
        return self._move(to, of, size, device="to from")

    def wp_memset_device(self, context: int, to: Any, value: int, size: int, stream: Any) -> bool:
        to = _address(to)
        return self._do(lambda: ctypes.memset(to, value, size) and None)

    def wp_memtile_device(self, context: int, to: Any, of: Any, size: int, count: int) -> None:
        kept = ctypes.create_string_buffer(ctypes.string_at(_address(of), size), size)
        self._do(lambda: self._core.wp_memtile_host(to, kept, size, count))

    def wp_array_fill_device(
        self, context: int, array: Any, kind: int, value: Any, size: int
    ) -> None:
        kept = ctypes.create_string_buffer(ctypes.string_at(_address(value), size), size)
        self._do(lambda: self._core.wp_array_fill_host(array, kind, kept, size))

    def wp_array_copy_device(self, context: int, *args: Any) -> bool:
        return self._do(lambda: self._core.wp_array_copy_host(*args) and None)

    # Warp's own algorithms

    def __getattr__(self, name: str) -> Any:
        """Return Warp's host function for those of its device functions that take the same."""
        same = ("wp_array_scan_", "wp_radix_sort_", "wp_array_sum_", "wp_runlength_encode_")
        if name.startswith(same) and name.endswith("_device"):
            host = getattr(self._core, name.removesuffix("_device") + "_host")
            return lambda *args: self._do(lambda: host(*args) and None)
        raise AttributeError(name)

    def wp_mesh_create_device(
        self, context: int, points: Any, velocities: Any, indices: Any, n_points: int,
        n_triangles: int, winding: int, constructor: int, groups: Any, leaf_size: int,
    ) -> int:  # fmt: skip
        # a host's tree is made by SAH; a GPU's default is another
        handle = self._core.wp_mesh_create_host(
            points, velocities, indices, n_points, n_triangles, winding, 0, groups, leaf_size
        )
        self._native.add(handle)
        return handle

    def wp_mesh_destroy_device(self, mesh: int) -> None:
        self._core.wp_mesh_destroy_host(mesh)

    # modules and launches

    def wp_cuda_load_module(self, context: int, path: bytes) -> int:
        module = Module(Path(path.decode()).read_text())
        handle = next(self._handles)
        # where each variable lies that a kernel may name; filled in as kernels are built
        self._modules[handle] = (module, {})
        return handle

    wp_cuda_unload_module = _nothing

    def wp_cuda_get_kernel(self, context: int, module: int, name: bytes) -> int | None:
        if name.decode() not in self._modules[module][0].names:
            return None
        handle = next(self._handles)
        self._kernels[handle] = (module, name.decode())
        return handle

    def wp_cuda_configure_kernel_shared_memory(self, kernel: int, size: int) -> bool:
        return True

    def wp_cuda_get_kernel_static_shared_memory(self, context: int, kernel: int) -> int:
        return self._program(kernel).shared_size

    def wp_cuda_launch_kernel(
        self, context: int, kernel: int, dim: int, max_blocks: int, block_dim: int,
        grid_stride: int, cluster_dim: int, shared: int, params: Any, stream: Any, info: Any,
    ) -> int:  # fmt: skip
        if dim == 0:
            return 0
        program = self._program(kernel)
        if shared:
            raise PtxError(f"{program.name}: {shared} bytes of dynamic shared memory")
        raw = np.zeros(-(-program.params_size // 16) * 16, np.uint8)
        for (at, size), pointer in zip(program.params.values(), params, strict=True):
            raw[at : at + size] = np.frombuffer(ctypes.string_at(pointer, size), np.uint8)
        grid = machine.Grid(_blocks(dim, block_dim, max_blocks, bool(grid_stride)), block_dim)
        words = raw.view(np.uint64)
        foreign = any(int(w) in self._native for w in words)

        def work() -> None:
            name = program.name
            self.kernels_launched[name] = self.kernels_launched.get(name, 0) + 1
            machine.launch(
                program, grid, raw, self.memory, foreign=foreign, races=self.looks_for_races
            )

        self._do(work)
        return 0

    def _program(self, kernel: int) -> Program:
        if kernel not in self._programs:
            handle, name = self._kernels[kernel]
            module, addresses = self._modules[handle]
            self._place_variables(module, addresses, module.used_by(name))
            self._programs[kernel] = Program(module, name, addresses)
        return self._programs[kernel]

    def _place_variables(self, module: Module, addresses: dict[str, int], names: set[str]) -> None:
        for name in names - set(addresses):
            variable = module.variables[name]
            if variable.space in ("global", "const"):
                base = self._allocate(max(variable.size, 1))
                initial = variable.initial.ljust(variable.size, b"\0")
                ctypes.memmove(base, initial, variable.size)
                addresses[name] = base

    # graphs

    def wp_cuda_graph_begin_capture(self, context: int, stream: int, *args: Any) -> bool:
        if self._capture is not None:
            raise PtxError("a capture inside a capture")
        self._capture = []
        return True

    def wp_cuda_graph_end_capture(self, context: int, stream: int, graph: Any) -> bool:
        handle = next(self._handles)
        self._graphs[handle], self._capture = self._capture or [], None
        graph._obj.value = handle
        return True

    def wp_cuda_graph_create_exec(self, context: int, stream: int, graph: Any, made: Any) -> bool:
        handle = next(self._handles)
        self._graphs[handle] = self._graphs[_address(graph)]
        made._obj.value = handle
        return True

    def wp_cuda_graph_launch(self, graph: Any, stream: Any) -> bool:
        for work in self._graphs[_address(graph)]:
            work()
        return True

    def wp_cuda_graph_destroy(self, context: int, graph: Any) -> bool:
        self._graphs.pop(_address(graph), None)
        return True

    wp_cuda_graph_exec_destroy = wp_cuda_graph_destroy


def _address(pointer: Any) -> int:
    """Return the address that a pointer of any of ctypes' kinds holds."""
    if isinstance(pointer, int):
        return pointer
    if isinstance(pointer, ctypes.c_void_p):
        return pointer.value or 0
    if hasattr(pointer, "_obj"):  # byref
        return ctypes.addressof(pointer._obj)
    return ctypes.addressof(pointer) if not hasattr(pointer, "contents") else ctypes.cast(
        pointer, ctypes.c_void_p).value or 0  # fmt: skip


def _copied(to: int, of: int, size: int) -> None:
    ctypes.memmove(to, of, size)


def _blocks(dim: int, block_dim: int, max_blocks: int, grid_stride: bool) -> tuple[int, int, int]:
    """Return a launch's blocks as Warp's ``wp_cuda_launch_kernel`` does."""
    total = -(-dim // block_dim)
    if grid_stride:
        return (min(total, max_blocks) if max_blocks > 0 else total, 1, 1)
    nx = min(total, (1 << 24) // block_dim)
    ny = min(-(-total // nx), 65535)
    return nx, ny, -(-total // (nx * ny))


class Library:
    """Warp's library with the driver's functions in place of those that need a GPU."""

    def __init__(self, core: Any, driver: Driver):
        self._core, self._driver = core, driver

    def __getattr__(self, name: str) -> Any:
        needs_gpu = name.endswith("_device") or name.startswith("wp_cuda_")
        found = getattr(self._driver, name, None)
        if found is None:
            if needs_gpu and not name.startswith(("wp_cuda_compile_", "wp_cuda_toolkit_")):
                raise PtxError(f"{name} is not emulated")
            found = getattr(self._core, name)
        setattr(self, name, found)  # looked up once
        return found


def is_emulated() -> bool:
    """Return whether Warp's CUDA device is the emulated one."""
    return bool(_device.cache_info().currsize) and installed().present


def installed() -> Driver:
    """Return the driver; puts it in place at the first call."""
    return _device()[0]


@functools.cache
def _device() -> tuple[Driver, Any]:
    """Put the driver below Warp, for good: arrays may be freed at any time."""
    runtime: Any = warp_context.runtime
    driver = Driver(runtime.core)
    runtime.core = Library(runtime.core, driver)
    return driver, warp_context.Device(runtime, "cuda:0", 0, is_primary=True)


@contextlib.contextmanager
def emulated() -> Iterator[Driver]:
    """Give Warp a device "cuda:0" inside.

    Raises:
        PtxError: it has one.
    """
    launch.init()
    runtime: Any = warp_context.runtime
    if runtime.cuda_devices:
        raise PtxError("there is a CUDA device already")
    driver, device = _device()
    before = (wp.config.cuda_output, runtime.default_ptx_arch, runtime.driver_version)
    wp.config.cuda_output, runtime.default_ptx_arch = "ptx", ARCH
    runtime.driver_version = runtime.toolkit_version
    driver.present = True
    runtime.cuda_devices.append(device)
    runtime.cuda_primary_devices.append(device)
    runtime.device_map["cuda:0"] = device
    runtime.set_default_device("cuda:0")  # as Warp does where there is one
    try:
        yield driver
    finally:
        driver.present = False
        runtime.cuda_devices.clear()
        runtime.cuda_primary_devices.clear()
        runtime.device_map.pop("cuda:0")
        runtime.set_default_device("cpu")
        wp.config.cuda_output, runtime.default_ptx_arch, runtime.driver_version = before
