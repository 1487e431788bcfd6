"""Between a volume's values and what the field is trained on: shares of the volume's range."""

from dataclasses import dataclass

import numpy as np

from ngp_warp.primitives.volume.grid import Volume


@dataclass(frozen=True)
class Transfer:
    """trained = (value - low) * gain."""

    low: float
    gain: float

    @classmethod
    def of(cls, volume: Volume) -> "Transfer":
        """Return what takes a volume's values to 0..1, all channels alike."""
        low, high = float(volume.values.min()), float(volume.values.max())
        # a constant volume has no range: its value is one step above low
        return cls(low, 1 / (high - low)) if high > low else cls(low - abs(low), 1 / abs(low))

    @property
    def range(self) -> float:
        """Difference of the largest and the smallest value."""
        return 1 / self.gain

    @property
    def high(self) -> float:
        """The largest value."""
        return self.low + self.range

    def inverse(self, trained: np.ndarray) -> np.ndarray:
        """Return float32 values in the volume's units."""
        return trained * np.float32(self.range) + np.float32(self.low)


def is_integer(dtype: str) -> bool:
    """Whether a grid's dtype, as stored, has whole numbers alone."""
    try:
        return np.dtype(dtype).kind in "iub"
    except TypeError:  # "vec3f", "fp8", "mask"
        return dtype == "mask"


def value_dtype(volume: Volume) -> str:
    """Return the dtype of a volume's values: as stored, but of scaled integers (NIfTI) float32."""
    if not is_integer(volume.dtype):
        return volume.dtype
    whole = all(np.array_equal(part, np.rint(part)) for part in volume.values)
    return volume.dtype if whole else "float32"


def dense_bytes(volume: Volume) -> int:
    """Return the bytes of all voxels of the box as numbers of the stored kind, uncompressed."""
    try:
        size = np.dtype(volume.dtype).itemsize
    except TypeError:  # "vec3f", "fp8", "mask"
        size = 4
    return volume.values.size * size


def quantize(values: np.ndarray, transfer: Transfer, dtype: str) -> np.ndarray:
    """Return trained values in the volume's units, float32: within its range, integers whole."""
    decoded = transfer.inverse(values)
    decoded = np.rint(decoded) if is_integer(dtype) else decoded
    return np.clip(decoded, np.float32(transfer.low), np.float32(transfer.high))
