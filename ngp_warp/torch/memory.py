"""Tensors' memory for Warp's launches, and the stream that these are queued on."""

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterator

import numpy as np
import torch
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.launch import Launch

BLOCK = 32
MAX_VALUES = 2**31 - 1
_LARGE = 1 << 20
"""Floats from which NumPy's memory is worth it: huge pages, and zeros that the system makes when
they are first touched. A gradient of 12 million floats, all touched, costs 13 ms that way and 39 ms
with torch.zeros; the features of 2^18 points (32 MB) cost 12 and 20 ms (2 cores of an EPYC)."""

# Making kernels and compiling modules is not for two threads at once; running them is.
_RECORDING = threading.RLock()
if hasattr(os, "register_at_fork"):
    # held by another thread, it would stay held in the child, which has not got that thread
    os.register_at_fork(
        before=_RECORDING.acquire,
        after_in_parent=_RECORDING.release,
        after_in_child=_RECORDING.release,
    )


def run(record: Callable[[], list[list[Launch]]], device: torch.device) -> None:
    """Record stages of launches, and run them one after another, each one's side by side."""
    if device.type != "cpu":
        with on_torch_stream(device):
            # scratch arrays are freed when it returns: while the stream is still Warp's
            _run_stages(record(), device)
        return
    with _RECORDING:
        stages = record()
    _run_stages(stages, device)


def _run_stages(stages: list[list[Launch]], device: torch.device) -> None:
    launch.run_stages(stages)
    if device.type == "cuda":
        _order_frees(device)


def _order_frees(device: torch.device) -> None:
    """Make the null stream wait for torch's current one, for Warp frees memory in its order.

    Torch's other streams do not take turns with it, so that memory would be given away while they
    still work with it. A capture has frees of its own, and must not wait.
    """
    current, null = torch.cuda.current_stream(device), torch.cuda.default_stream(device)
    if current == null:
        return
    with torch.cuda.device(device):
        if not torch.cuda.is_current_stream_capturing():
            null.wait_stream(current)


def allocate(shape: tuple[int, ...], device: str, *, zero: bool = False) -> torch.Tensor:
    """Return float32 of any value, or zeros; never a view, which autograd lets nobody change."""
    n = math.prod(shape)
    if device != "cpu" or n < _LARGE:
        make = torch.zeros if zero else torch.empty
        return make(shape, dtype=torch.float32, device=device)
    # 16 floats more, so that it can begin at a whole vector
    memory = np.zeros(n + 16, np.float32) if zero else np.empty(n + 16, np.float32)
    first = -memory.ctypes.data % 64 // 4
    return torch.from_numpy(memory[first : first + n].reshape(shape))


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor, or a copy if it does not begin at whole 16 bytes."""
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def flat(tensor: torch.Tensor) -> wp.array:
    """Return a tensor's memory as a flat Warp array.

    Raises:
        ShapeError: more values than Warp's arrays can have.
    """
    if tensor.numel() > MAX_VALUES:
        raise ShapeError(
            f"points, features and outputs may have {MAX_VALUES} values at a time (points times "
            f"columns), got {tensor.numel()}; split the batch"
        )
    return wp.from_torch(tensor.view(-1), dtype=wp.float32, requires_grad=False)


def flat_or_none(tensor: torch.Tensor | None) -> wp.array | None:
    """Return the same, or None for None."""
    return None if tensor is None else flat(tensor)


@contextlib.contextmanager
def on_torch_stream(device: torch.device) -> Iterator[None]:
    """Make torch's current stream Warp's, which all threads have in common; keep them out."""
    with _RECORDING:
        if device.type != "cuda":
            yield
            return
        stream = wp.stream_from_torch(torch.cuda.current_stream(device))
        with wp.ScopedStream(stream, sync_enter=False):
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
