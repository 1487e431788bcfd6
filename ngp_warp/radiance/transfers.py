"""Between the host and the arrays of a pass, which are waited for once."""

from collections.abc import Mapping

import numpy as np
import warp as wp


def with_room(n_samples: np.ndarray) -> int:
    """Return how many rays, from the first on, had room for their samples."""
    if not len(n_samples) or n_samples.min() >= 0:
        return len(n_samples)
    return int(np.flatnonzero(n_samples < 0)[0])


class Transfers:
    """A CPU's arrays as they are.

    Args:
        arrays: flat, by name.
    """

    def __init__(self, arrays: Mapping[str, wp.array]):
        self._arrays = arrays

    def put(self, name: str, values: np.ndarray) -> None:
        """Set the first values of an array."""
        self._arrays[name].numpy()[: values.size] = values

    def get(self, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Return the first values of arrays, so many of each; until the next pass."""
        return {name: self._arrays[name].numpy()[:n] for name, n in sizes.items()}


class Staging(Transfers):
    """Copies of the arrays in memory that the device reads and writes by itself.

    Copies are queued like launches; ``get`` waits, once a pass.

    Args:
        arrays: flat, by name, on one device.
        pinned: page-locked memory.
    """

    def __init__(self, arrays: Mapping[str, wp.array], *, pinned: bool):
        super().__init__(arrays)
        self._host = {
            name: wp.empty(a.size, dtype=a.dtype, device="cpu", pinned=pinned)
            for name, a in arrays.items()
        }

    def put(self, name: str, values: np.ndarray) -> None:
        """See ``Transfers.put``."""
        if not values.size:
            return
        self._host[name].numpy()[: values.size] = values
        wp.copy(self._arrays[name], self._host[name], count=values.size)

    def get(self, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        """See ``Transfers.get``."""
        for name, n in sizes.items():
            wp.copy(self._host[name], self._arrays[name], count=n)
        wp.synchronize_device(next(iter(self._arrays.values())).device)
        return {name: self._host[name].numpy()[:n] for name, n in sizes.items()}


def make_transfers(arrays: Mapping[str, wp.array], device: str, staging: bool = False) -> Transfers:
    """Return what suits a device; staging: copy on a CPU too, as on CUDA, where the host must."""
    on_cuda = device != "cpu"
    if on_cuda or staging:
        return Staging(arrays, pinned=on_cuda)
    return Transfers(arrays)
