"""``python -m benchmarks registers``: registers, stack and shared memory of the hot CUDA kernels.

Read by NVIDIA's cuobjdump (a wheel of 0.3 MB) from the machine code that Warp would load. Needs no
GPU, and says nothing of time.
"""

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import warp as wp

from benchmarks.hot_kernels import Hot, hot_kernels
from ngp_warp import launch
from ngp_warp.errors import ResourceError
from ngp_warp.files import atomic_path

ARCHITECTURES = (80, 90, 120)

# Warps of a multiprocessor, and warps and shared memory in bytes; 65,536 registers on all.
# Source: CUDA C++ Programming Guide, technical specifications per compute capability.
_WARPS = {80: 64, 90: 64, 120: 48}
_SHARED = {80: 164 << 10, 90: 228 << 10, 120: 100 << 10}
_REGISTERS, _BLOCKS = 65536, {80: 32, 90: 32, 120: 24}
# A warp gets registers by 256, a thread's are rounded up to 8.
_REGISTER_UNIT, _WARP_UNIT = 8, 256
_NAME = re.compile(r"Function (\S+):\s+(.*)")
_FIELD = re.compile(r"(REG|STACK|SHARED|LOCAL):(\d+)")


@dataclass(frozen=True)
class Usage:
    """What a kernel uses on one architecture."""

    part: str
    kernel: str
    arch: int
    registers: int
    stack: int
    """Bytes of a thread: spilled registers, and arrays that are indexed at run time."""
    arrays: int | None
    """Bytes of the stack that are such arrays, as the PTX declares them; None: not looked up."""
    local: int
    shared: int
    """Bytes of a block."""
    block_dim: int

    @property
    def spilled(self) -> int | None:
        """Bytes of a thread's stack that are no array: spilled registers, or alignment."""
        return None if self.arrays is None else max(self.stack - -(-self.arrays // 8) * 8, 0)

    @property
    def occupancy(self) -> float:
        """Share of a multiprocessor's warps that fit at once."""
        a_warp = -(-self.registers // _REGISTER_UNIT) * _REGISTER_UNIT * 32
        a_warp = -(-a_warp // _WARP_UNIT) * _WARP_UNIT
        warps = self.block_dim // 32
        fits = [_REGISTERS // (a_warp * warps), _WARPS[self.arch] // warps, _BLOCKS[self.arch]]
        if self.shared:
            fits.append(_SHARED[self.arch] // self.shared)
        return min(fits) * warps / _WARPS[self.arch]


def find_tool() -> str | None:
    """Return the path of cuobjdump: of the wheel nvidia-cuda-cuobjdump, else on the path."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        for found in sorted(Path(folder).glob("cu*/bin/cuobjdump*")):
            return str(found)
    return shutil.which("cuobjdump")


def read(cubin: Path, tool: str) -> dict[str, dict[str, int]]:
    """Return {function: {"REG", "STACK", "SHARED", "LOCAL": number}} of a binary.

    Raises:
        ResourceError: cuobjdump cannot read it.
    """
    command = [tool, "-res-usage", str(cubin)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = {
        name: {key: int(value) for key, value in _FIELD.findall(rest)}
        for name, rest in _NAME.findall(done.stdout)
    }
    if done.returncode or not found:
        raise ResourceError(f"cuobjdump cannot read {cubin}: {done.stderr.strip()}")
    return found


def measure(
    kernels: Sequence[Hot], arch: int, folder: Path, tool: str, *, arrays: bool = False
) -> list[Usage]:
    """Compile kernels for an architecture and return what they use.

    Args:
        kernels: see ``hot_kernels``.
        arch: 80, 90 or 120.
        folder: for binaries.
        tool: path of cuobjdump.
        arrays: also compile to PTX, which says how much of the stack is arrays.
    """
    modules = {hot.module.name: hot.module for hot in kernels}
    with ThreadPoolExecutor(launch.num_threads()) as pool:
        made = pool.map(lambda m: _compile(m, arch, folder, arrays=arrays), modules.values())
        compiled = dict(zip(modules, made, strict=True))
    usages = []
    for hot in kernels:
        binary, text = compiled[hot.module.name]
        functions = read(binary, tool)
        function = next(f for f in functions if re.match(rf"{hot.key}_[0-9a-f]{{8}}_", f))
        found = functions[function]
        usages.append(
            Usage(
                part=hot.part,
                kernel=hot.name,
                arch=arch,
                registers=found["REG"],
                stack=found["STACK"],
                arrays=local_arrays(text, function) if arrays else None,
                local=found["LOCAL"],
                shared=found["SHARED"],
                block_dim=hot.block_dim,
            )
        )
    return usages


def _compile(module: Any, arch: int, folder: Path, *, arrays: bool) -> tuple[Path, str]:
    """Return the machine code's file, and the PTX if it is wanted."""
    options: dict[str, Any] = {"arch": arch, "module_dir": folder / module.name}
    (binary,) = wp.compile_aot_module(module, use_ptx=False, **options)
    if not arrays:
        return binary, ""
    (text,) = wp.compile_aot_module(module, use_ptx=True, **options)
    return binary, text.read_text()


def local_arrays(ptx: str, function: str) -> int:
    """Return the bytes of the local arrays that a function of a PTX text declares."""
    body = ptx.partition(f".entry {function}(")[2].partition(".entry ")[0]
    return sum(int(n) for n in re.findall(r"\.local .*?__local_depot\w+\[(\d+)\]", body))


def run(out: Path) -> dict[str, Any]:
    """Compile the hot kernels for every architecture; write the table.

    Raises:
        ResourceError: cuobjdump is not installed.
    """
    tool = find_tool()
    if tool is None:
        raise ResourceError("cuobjdump is not installed: pip install nvidia-cuda-cuobjdump")
    kernels = hot_kernels()
    usages = []
    with tempfile.TemporaryDirectory() as temporary:
        for arch in ARCHITECTURES:
            folder = Path(temporary) / str(arch)
            usages += measure(kernels, arch, folder, tool, arrays=True)
    with atomic_path(out) as path:
        path.write_text(document(usages))
    rows = [{**asdict(u), "spilled": u.spilled, "occupancy": u.occupancy} for u in usages]
    return {"kernels": rows, "file": str(out)}


def document(usages: Sequence[Usage]) -> str:
    """Return the page of docs/: one row a kernel, the architectures side by side."""
    head = "| kernel | " + " | ".join(
        f"sm_{a} registers | stack | occupancy" for a in ARCHITECTURES
    )
    lines = [
        _PREFACE.replace("{version}", wp.config.version),
        head + " | shared |",
        "|---" * (3 * len(ARCHITECTURES) + 2) + "|",
    ]
    by_kernel: dict[tuple[str, str], list[Usage]] = {}
    for usage in usages:
        by_kernel.setdefault((usage.part, usage.kernel), []).append(usage)
    for (part, kernel), found in by_kernel.items():
        cells = [f"{u.registers} | {_stack(u)} | {u.occupancy:.0%}" for u in found]
        shared = max(u.shared for u in found)
        lines.append(f"| {part}: {kernel} | " + " | ".join(cells) + f" | {shared} |")
    return "\n".join(lines) + "\n"


def _stack(usage: Usage) -> str:
    if not usage.stack:
        return "0"
    return f"{usage.stack}" + (f" ({usage.spilled} spilled)" if usage.spilled else "")


def describe(results: dict[str, Any]) -> str:
    """Return the results as plain text."""
    rows = results["kernels"]
    spilled = [f"{r['kernel']} sm_{r['arch']}" for r in rows if r["spilled"]]
    return (
        f"{len(rows)} kernels for {len(ARCHITECTURES)} architectures: {results['file']}\n"
        f"spill registers: {', '.join(spilled) or 'none'}"
    )


_PREFACE = """# Registers, stack and shared memory of the hot CUDA kernels

Made by `python -m benchmarks registers` from the machine code that the NVRTC of Warp {version}
compiles, read by cuobjdump; **nothing here is a time.** Stack and
shared memory are in bytes, of a thread and of a block (which holds the system's 1024 from sm_90 on,
and 1024 that Warp's tiles reserve). Occupancy is theoretical: the share of a multiprocessor's warps
that fit at once, in blocks as they are launched. `tests/test_registers.py` fails where a hot kernel
spills.

A stack without spilled registers is an array that is indexed at run time: 32 bytes are the exact
argument reduction of sinf and cosf, entered from |x| = 105,615 on and never in practice; of
`distance`, 64 are the levels of a warp's tree walk, others the stack of Warp's own (32 nodes a
walk, and two more for the ray and winding number walks).
"""
