"""What a device does at best: bytes, random reads and additions, tensor cores, launches."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import warp as wp

from benchmarks import gpu_kernels as kernels
from benchmarks.gpu_timing import host_milliseconds, milliseconds
from ngp_warp import launch
from ngp_warp.recording import recorded_step

ENTRIES_LOG2 = (12, 15, 19, 22, 25)
"""log2 of the entries that are read at random: levels' of a grid, from the coarsest to a whole
table of 2^19, then what leaves little of the second cache (50 MB) and what is beyond any."""
_ITEMS = 2**20
_COPY_BYTES = 2**30
_MATRIX, _PRODUCTS = 8192, 5
_LAUNCHES = 200


def jobs(device: str, small: bool) -> dict[str, Callable[[], Any]]:
    """Return what measures each limit, by name: rates a second; None: cannot be measured there."""
    entries = (10, 12) if small else ENTRIES_LOG2
    items, side = (2**10, 256) if small else (_ITEMS, _MATRIX)

    def by_size(rate: Callable[[str, int, int], float | None]) -> Callable[[], Any]:
        return lambda: {str(n): rate(device, n, items) for n in entries}

    return {
        "bandwidth": lambda: _bandwidth(device, 2**22 if small else _COPY_BYTES),
        "gather": by_size(_gather),
        "scatter": by_size(_scatter),
        "scatter_half": by_size(_scatter_half),
        "tensor_flops": lambda: _tensor_flops(device, side),
        "float32_flops": lambda: _matmul_flops(device, side, "float32"),
        "launches": lambda: _launches(device),
    }


def rate_at(limits: Mapping[str, Any], name: str, entries: float) -> float | None:
    """Return the rate at the smallest measured size of at least so many entries, or the largest.

    None: it was not measured.
    """
    rates = limits.get(name)
    if not isinstance(rates, Mapping) or "error" in rates:
        return None
    sizes = sorted(int(n) for n in rates)
    fitting = next((n for n in sizes if 2**n >= entries), sizes[-1])
    return rates[str(fitting)]


def rate(limits: Mapping[str, Any], name: str) -> float | None:
    """Return one rate; None: it was not measured."""
    value = limits.get(name)
    return value if isinstance(value, int | float) else None


def _bandwidth(device: str, n_bytes: int) -> float:
    """Bytes read and written of a copy."""
    a, b = (wp.zeros(n_bytes // 4, dtype=float, device=device) for _ in range(2))
    ms = milliseconds(lambda: wp.copy(b, a), device, inner=5)
    return 2 * n_bytes / ms * 1e3


def _rate(device: str, item: launch.Launch, n_items: int) -> float:
    return n_items * kernels.READS / milliseconds(item.run, device, inner=5) * 1e3


def _gather(device: str, log2_entries: int, n_items: int) -> float:
    table, out = (
        wp.zeros(n, dtype=wp.vec2, device=device)  # type: ignore[arg-type]
        for n in (2**log2_entries, n_items)
    )
    args = [table, 2**log2_entries - 1, out]
    return _rate(device, launch.record(kernels.gather, n_items, args, device), n_items)


def _scatter(device: str, log2_entries: int, n_items: int) -> float:
    table = wp.zeros(2 * 2**log2_entries, dtype=float, device=device)
    args = [1.0, 2**log2_entries - 1, table]
    # one shard on a CPU, where additions of two would meet
    item = launch.record(kernels.scatter, n_items, args, device, shards=1)
    return _rate(device, item, n_items)


def _scatter_half(device: str, log2_entries: int, n_items: int) -> float | None:
    if device == "cpu":
        return None
    table = wp.zeros(2**log2_entries, dtype=wp.uint32, device=device)
    item = launch.record(
        kernels.scatter_half, n_items, [0, 2**log2_entries - 1, table], device, shards=1
    )
    return _rate(device, item, n_items)


def _tensor_flops(device: str, n: int) -> float | None:
    return None if device == "cpu" else _matmul_flops(device, n, "float16")


def _matmul_flops(device: str, n: int, dtype: str) -> float | None:
    """Operations of torch's product of two square matrices; None: without torch on the device."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    if device != "cpu" and not torch.cuda.is_available():
        return None
    a, b = (torch.rand(n, n, device=device).to(getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(a)
    if device == "cpu":
        ms = milliseconds(lambda: torch.mm(a, b, out=out), device, inner=2, repeats=3)
        return 2 * n**3 / ms * 1e3
    found = []
    for _ in range(8):
        # torch's own events, on the stream of its products
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(_PRODUCTS):
            torch.mm(a, b, out=out)
        last.record()
        torch.cuda.synchronize()
        found.append(first.elapsed_time(last) / _PRODUCTS)
    return 2 * n**3 / float(np.median(found[2:])) * 1e3


def _launches(device: str) -> dict[str, float]:
    """Microseconds of a launch: to queue one, and of one among many in a graph."""
    out = wp.zeros(1, dtype=float, device=device)
    item = launch.record(kernels.nothing, 32, [out], device)
    many = recorded_step([[item] for _ in range(_LAUNCHES)], device)
    return {
        "queue_us": host_milliseconds(item.run, device) * 1e3,
        "in_graph_us": milliseconds(many, device, inner=5) * 1e3 / _LAUNCHES,
    }


def describe(limits: Mapping[str, Any]) -> str:
    """Return the limits as plain text."""
    queue = limits.get("launches") or {}
    lines = [
        f"bandwidth {_scaled(rate(limits, 'bandwidth'), 1e9)} GB/s; matrices in half "
        f"{_scaled(rate(limits, 'tensor_flops'), 1e12)} TFLOP/s, in float32 "
        f"{_scaled(rate(limits, 'float32_flops'), 1e12)} TFLOP/s; microseconds of a launch: "
        f"{_scaled(queue.get('queue_us'), 1)} to queue it, "
        f"{_scaled(queue.get('in_graph_us'), 1)} in a graph",
    ]
    for name in ("gather", "scatter", "scatter_half"):
        sizes = limits.get(name) or {}
        rates = ", ".join(f"2^{n}: {_scaled(rate_at(limits, name, 2**int(n)), 1e9)}"
                          for n in sizes if n.isdecimal())  # fmt: skip
        lines.append(f"{name}, billion a second by entries: {rates or '-'}")
    return "\n".join(lines)


def _scaled(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:.4g}"
