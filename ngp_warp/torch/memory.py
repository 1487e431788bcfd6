"""Tensors' memory for Warp's launches, and the stream that these are queued on."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import numpy as np
import torch
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ConfigError
from ngp_warp.launch import Launch

BLOCK = 32
_LARGE = 1 << 20
"""Floats from which NumPy's memory is worth it: huge pages, and zeros that the system makes when
they are first touched. A gradient of 12 million floats, all touched, costs 13 ms that way and 39 ms
with torch.zeros; the features of 2^18 points (32 MB) cost 12 and 20 ms (2 cores of an EPYC)."""

# Making kernels and compiling modules is not for two threads at once; running them is.
_RECORDING = threading.RLock()


def run(record: Callable[[], list[list[Launch]]], device: torch.device) -> None:
    """Record stages of launches, and run them one after another, each one's side by side."""
    if device.type != "cpu":
        with on_torch_stream(device):
            stages = record()
            for stage in stages:
                launch.run_all(stage)
            # scratch arrays are freed here, in the order of the stream
            del stages
        return
    with _RECORDING:
        stages = record()
    for stage in stages:
        launch.run_all(stage)


def allocate(n: int, device: str, *, zero: bool = False) -> torch.Tensor:
    """Return n float32 of any value, or zeros."""
    if device != "cpu" or n < _LARGE:
        return torch.zeros(n, device=device) if zero else torch.empty(n, device=device)
    # 16 floats more, so that it can begin at a whole vector
    memory = np.zeros(n + 16, np.float32) if zero else np.empty(n + 16, np.float32)
    first = -memory.ctypes.data % 64 // 4
    return torch.from_numpy(memory)[first : first + n]


def flat(tensor: torch.Tensor) -> wp.array:
    """Return a tensor's memory as a flat Warp array."""
    return wp.from_torch(tensor.view(-1), dtype=wp.float32, requires_grad=False)


def flat_or_none(tensor: torch.Tensor | None) -> wp.array | None:
    """Return the same, or None for None."""
    return None if tensor is None else flat(tensor)


@contextlib.contextmanager
def on_torch_stream(device: torch.device) -> Iterator[None]:
    """Make torch's current stream Warp's, which all threads have in common; no-op on a CPU."""
    if device.type != "cuda":
        yield
        return
    stream = wp.stream_from_torch(torch.cuda.current_stream(device))
    with _RECORDING, wp.ScopedStream(stream, sync_enter=False):
        yield


def warp_device(device: torch.device) -> str:
    """Return Warp's name of a torch device.

    Raises:
        ConfigError: neither a CPU nor CUDA.
    """
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda":
        raise ConfigError(f"modules run on cpu and cuda, their parameters are on {device}")
    index = torch.cuda.current_device() if device.index is None else device.index
    return f"cuda:{index}"
