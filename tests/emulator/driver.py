"""Stands in for CUDA's driver below Warp: allocations of the host, launches run by ``machine``.

Work is done where it is queued (``graphs``). Warp's own device functions (scan, sort, fill, meshes)
are its host functions.
"""

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any

import warp as wp
from warp._src import context as warp_context

from ngp_warp import launch
from tests.emulator.launches import Launches
from tests.emulator.variables import PtxError

ARCH = 90
_CONTEXT = 0xC0DA
_ANSWERS = {
    "wp_cuda_device_get_count": 1,
    "wp_cuda_device_get_name": b"emulated sm_90",
    "wp_cuda_device_get_arch": ARCH,
    "wp_cuda_device_get_sm_count": 132,
    "wp_cuda_device_get_max_shared_memory": 227 << 10,
    "wp_cuda_device_get_uuid": None,  # all zeros
    "wp_cuda_device_get_pci_domain_id": 0,
    "wp_cuda_device_get_pci_bus_id": 0,
    "wp_cuda_device_get_pci_device_id": 0,
    "wp_cuda_device_is_uva": 1,
    "wp_cuda_device_is_mempool_supported": 1,
    "wp_cuda_device_is_ipc_supported": 0,
    "wp_cuda_device_get_pageable_memory_access": 0,
    "wp_cuda_device_get_direct_managed_mem_access_from_host": 0,
    "wp_cuda_device_get_host_native_atomic_supported": 0,
    "wp_cuda_device_get_managed_memory_supported": 0,
    "wp_cuda_device_get_concurrent_managed_access_supported": 0,
    "wp_cuda_device_get_primary_context": _CONTEXT,
    "wp_cuda_context_get_current": _CONTEXT,
    "wp_cuda_context_get_device_ordinal": 0,
    "wp_cuda_context_is_primary": 1,
    # done already
    "wp_cuda_context_check": 0,
    "wp_cuda_context_set_current": None,
    "wp_cuda_context_push_current": None,
    "wp_cuda_context_pop_current": None,
    "wp_cuda_stream_query": 0,
    "wp_cuda_stream_destroy": None,
    "wp_cuda_stream_register": None,
    "wp_cuda_stream_unregister": None,
    "wp_cuda_event_query": 0,
}
"""What functions return that have nothing to do."""


class Driver(Launches):
    """The functions of Warp's library that need a driver, by their names there.

    Attributes:
        present: whether Warp is to see the device.
    """

    def __init__(self, core: Any):
        super().__init__(core)
        self.present = False
        self._times: dict[int, float] = {}

    def __getattr__(self, name: str) -> Any:
        """Return a function that is none of a class's own."""
        if name in _ANSWERS:
            return lambda *args: _ANSWERS[name]
        return super().__getattr__(name)

    def wp_cuda_driver_is_initialized(self) -> bool:
        return self.present

    def wp_cuda_driver_version(self) -> int:
        return self._core.wp_cuda_toolkit_version()

    # streams and events

    def wp_cuda_context_set_stream(self, context: int, stream: int | None, sync: int) -> None:
        self._stream = stream

    def _handle(self, *args: Any) -> int:
        return next(self._handles)

    wp_cuda_stream_create = _handle
    wp_cuda_event_create = _handle

    def _wait(self, what: int) -> bool:
        if self._capture is not None:
            raise PtxError("a wait for the device while a graph is captured")
        return True

    wp_cuda_context_synchronize = _wait
    wp_cuda_stream_synchronize = _wait
    wp_cuda_event_synchronize = _wait

    def wp_cuda_stream_is_capturing(self, stream: int) -> int:
        return int(self._capture is not None and stream in self._capture.last)

    wp_cuda_stream_get_capture_id = wp_cuda_stream_is_capturing

    def wp_cuda_event_record(self, event: int, stream: int, timing: bool) -> None:
        self._times[event] = time.perf_counter()
        self._note_event(event, stream)

    def wp_cuda_stream_wait_stream(
        self, stream: int, other: int, event: int, external: bool = False
    ) -> None:
        self._note_event(event, other)
        self.wp_cuda_stream_wait_event(stream, event)

    def wp_cuda_event_elapsed_time(self, first: int, last: int) -> float:
        return (self._times[last] - self._times[first]) * 1e3

    def wp_cuda_event_destroy(self, event: int) -> None:
        self._times.pop(event, None)
        self._noted.pop(event, None)


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
