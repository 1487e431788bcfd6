"""Between an image's values and what the field is trained on.

Integers become their share of full scale. High-dynamic-range values v become asinh(v / k): nearly
linear below k, logarithmic above, odd, so that the sign of small negative values survives.
"""

from dataclasses import dataclass, replace

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.primitives.image.config import ImageConfig
from ngp_warp.primitives.image.data import Image

_SAMPLED_VALUES = 1 << 22
_SINH_MAX = 88.0  # where the exponential of float32 overflows
_SCALE_MIN, _RANGE_MAX = 1e-30, 1e36


@dataclass(frozen=True)
class Transfer:
    """value -> gain * value, or asinh(gain * value)."""

    gain: float
    asinh: bool

    def inverse(self, trained: np.ndarray) -> np.ndarray:
        """Return float32 values in the image's units."""
        if not self.asinh:
            return trained / np.float32(self.gain)
        return np.sinh(np.clip(trained, -_SINH_MAX, _SINH_MAX)) / np.float32(self.gain)


def choose(config: ImageConfig, image: Image) -> tuple[Transfer, ImageConfig]:
    """Return the transfer of an image, and the config that says which it is.

    Float images whose values all lie in 0..1 are fitted as they are; others by asinh with k the
    size of the smallest values that matter: the 5th percentile of the negative values' magnitudes
    where there are any, else the 1st percentile of the positive ones.

    Raises:
        ConfigError: asinh for an image of integers.
    """
    if image.info.dtype != "float32":
        if config.transfer == "asinh":
            raise ConfigError(
                f"--transfer asinh is for float images; {image.info.path} is {image.info.dtype}"
            )
        gain = 1.0 / np.iinfo(image.info.dtype).max
        return Transfer(gain, False), _with(config, "linear", 1.0 / gain)
    kind = config.transfer
    if kind == "auto":
        kind = "linear" if image.unit_range else "asinh"
    if kind == "linear":
        return Transfer(1.0, False), _with(config, "linear", 1.0)
    scale = config.transfer_scale or _smallest_that_matters(image.pixels)
    return Transfer(1.0 / scale, True), _with(config, "asinh", scale)


def in_units(
    config: ImageConfig, values: np.ndarray, jacobian: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return trained values and their Jacobians as a user wants them.

    Integers stay shares of full scale; high dynamic range gets its own values back.

    Args:
        config: resolved.
        values: float32 [n, channels].
        jacobian: float32 [n, channels, 2], or None.
    """
    if config.transfer != "asinh":
        return values, jacobian
    scale = np.float32(config.transfer_scale or 1.0)
    values = np.clip(values, -_SINH_MAX, _SINH_MAX)
    if jacobian is not None:
        jacobian = jacobian * (scale * np.cosh(values))[..., None]
    return scale * np.sinh(values), jacobian


def _with(config: ImageConfig, kind: str, scale: float) -> ImageConfig:
    return replace(config, transfer=kind, transfer_scale=float(scale))


def _smallest_that_matters(pixels: np.ndarray) -> float:
    flat = pixels.reshape(-1)
    values = flat[:: max(1, flat.size // _SAMPLED_VALUES)]
    negative, positive = -values[values < 0], values[values > 0]
    if not negative.size and not positive.size:
        return 1.0
    smallest = np.percentile(negative, 5) if negative.size else np.percentile(positive, 1)
    # The largest value's share of it must be a float32 too.
    least = max(_SCALE_MIN, float(np.abs(values).max()) / _RANGE_MAX)
    return max(float(smallest), least)
