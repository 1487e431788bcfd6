"""Modules of PTX, their kernels and launches."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from tests.emulator import machine
from tests.emulator.allocations import Allocations
from tests.emulator.program import Program
from tests.emulator.text import Module
from tests.emulator.traffic import Traffic
from tests.emulator.variables import PtxError


class Launches(Allocations):
    """The functions of Warp's library that load modules and launch kernels.

    Attributes:
        looks_for_races: whether a race ends a launch; slower.
        kernels_launched: launches by the kernel's name in the PTX.
        traffic: what launches ask of a GPU, by the same name; None: nobody counts.
    """

    def __init__(self, core: Any):
        super().__init__(core)
        self.looks_for_races = False
        self.kernels_launched: dict[str, int] = {}
        self.traffic: dict[str, Traffic] | None = None
        self._modules: dict[int, tuple[Module, dict[str, int]]] = {}
        """With where each variable lies that a kernel may name; filled in as kernels are built."""
        self._kernels: dict[int, tuple[int, str]] = {}
        self._programs: dict[int, Program] = {}
        self._native: set[int] = set()
        """Handles of what Warp's native code has allocated."""

    def wp_cuda_load_module(self, context: int, path: bytes) -> int:
        handle = next(self._handles)
        self._modules[handle] = (Module(Path(path.decode()).read_text()), {})
        return handle

    def wp_cuda_unload_module(self, context: int, module: int) -> None:
        _, addresses = self._modules.pop(module)
        for kernel in [k for k, (of, _) in self._kernels.items() if of == module]:
            del self._kernels[kernel]
            self._programs.pop(kernel, None)
        for address in addresses.values():
            self._release(address)

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
        if shared or cluster_dim > 1:
            raise PtxError(f"{program.name}: dynamic shared memory or a cluster is not emulated")
        raw = np.zeros(-(-program.params_size // 16) * 16, np.uint8)
        for (at, size), pointer in zip(program.params.values(), params, strict=True):
            raw[at : at + size] = np.frombuffer(ctypes.string_at(pointer, size), np.uint8)
        grid = machine.Grid(_blocks(dim, block_dim, max_blocks, bool(grid_stride)), block_dim)
        foreign = any(int(word) in self._native for word in raw.view(np.uint64))

        def work() -> None:
            name = program.name
            self.kernels_launched[name] = self.kernels_launched.get(name, 0) + 1
            counts = None
            if self.traffic is not None:
                counts = self.traffic.setdefault(name, Traffic())
                counts.launches += 1
            machine.launch(
                program, grid, raw, self.memory, foreign=foreign, races=self.looks_for_races,
                traffic=counts,
            )  # fmt: skip

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

    # Warp's own algorithms

    def __getattr__(self, name: str) -> Any:
        """Return Warp's host function for those of its device functions that take the same."""
        same = ("wp_array_scan_", "wp_radix_sort_", "wp_array_sum_", "wp_runlength_encode_")
        if name.startswith(same) and name.endswith("_device"):
            host = getattr(self._core, name.removesuffix("_device") + "_host")
            return lambda *args: self._do(lambda: host(*args))
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
        self._native.discard(mesh)
        self._core.wp_mesh_destroy_host(mesh)


def _blocks(dim: int, block_dim: int, max_blocks: int, grid_stride: bool) -> tuple[int, int, int]:
    """Return a launch's blocks as Warp's ``wp_cuda_launch_kernel`` does."""
    total = -(-dim // block_dim)
    if grid_stride:
        return (min(total, max_blocks) if max_blocks > 0 else total, 1, 1)
    nx = min(total, (1 << 24) // block_dim)
    ny = min(-(-total // nx), 65535)
    return nx, ny, -(-total // (nx * ny))
