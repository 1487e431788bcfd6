"""Triangle waves of doubling frequency."""

from ngp_warp.config import check_range
from ngp_warp.encodings.fixed import CoordinateEncoding
from ngp_warp.encodings.frequency import MAX_FREQUENCIES
from ngp_warp.kernels.coordinates import Functions


class TriangleWave(CoordinateEncoding):
    """Rows of waves in -1 to 1 with period 2^(1-k), shifted by k quarters (Mueller et al. 2021).

    The second order in x is 0: the waves are straight but for their corners.
    """

    def __init__(self, n_dims: int, device: str, *, n_frequencies: int = 12):
        check_range("encoding.n_frequencies", n_frequencies, 1, MAX_FREQUENCIES)
        functions = Functions(kind="triangle_wave", n=n_frequencies)
        settings = {"otype": "TriangleWave", "n_frequencies": n_frequencies}
        super().__init__(n_dims, functions, device, settings)
