"""The one-blob encoding: a coordinate as a blob over bins."""

from ngp_warp.encodings.fixed import CoordinateEncoding
from ngp_warp.errors import ConfigError
from ngp_warp.kernels.coordinates import Functions

MAX_BINS = 1024


class OneBlob(CoordinateEncoding):
    """Shares of a blob around x in n_bins bins over [0, 1] (Mueller et al. 2019).

    The blob is quartic, one bin wide on each side. What leaves [0, 1] at one end comes in at the
    other, so that the bins of a point in [0, 1] sum to 1 and the ends are neighbours.

    Raises:
        ConfigError: bins that are not a power of two from 2 to 1024 (tiny-cuda-nn also takes 1 bin,
            which is constant).
    """

    def __init__(self, n_dims: int, device: str, *, n_bins: int = 16):
        if not 2 <= n_bins <= MAX_BINS or n_bins & (n_bins - 1):
            raise ConfigError(
                f"encoding.n_bins must be a power of two from 2 to {MAX_BINS}, got {n_bins}"
            )
        settings = {"otype": "OneBlob", "n_bins": n_bins}
        super().__init__(n_dims, Functions(kind="one_blob", n=n_bins), device, settings)
