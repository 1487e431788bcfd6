"""Large NumPy arrays as flat Warp arrays, mapped files among them."""

from typing import Any

import numpy as np
import warp as wp

_WARP_TYPES = {
    "uint8": wp.uint8,
    "uint16": wp.uint16,
    "float16": wp.float16,
    "float32": wp.float32,
}


def flat_view(values: np.ndarray, device: str) -> wp.array:
    """Return an array of any shape as a flat Warp array: on a CPU without a copy, mapped or not.

    Kernels index it in 64 bits; its length is cut where 31 bits cannot say it.

    Args:
        values: uint8, uint16, float16 or float32, contiguous; may be empty.
        device: "cpu" or a CUDA device.
    """
    dtype = _WARP_TYPES[values.dtype.name]
    if values.size == 0:
        return wp.zeros(0, dtype=dtype, device=device)
    owner: Any = values
    # a read-only map may not be wrapped; Warp only reads
    address = values.ctypes.data
    if device != "cpu":
        # rows, as a dimension has at most 2^31 - 1
        owner = wp.array(values.reshape(len(values), -1), dtype=dtype, device=device)
        address = owner.ptr
    size = min(values.size, 2**31 - 1)
    view: Any = wp.array(ptr=address, dtype=dtype, shape=(size,), device=device)
    view.owner = owner  # keeps the memory alive as long as the view
    return view
