"""The frequency encoding as tiny-cuda-nn has it."""

from ngp_warp.config import check_range
from ngp_warp.encodings.fixed import CoordinateEncoding
from ngp_warp.encodings.frequency import MAX_FREQUENCIES
from ngp_warp.kernels.coordinates import Functions


class Sinusoids(CoordinateEncoding):
    """Rows sin(2^k pi x), cos(2^k pi x): all of the first coordinate, then of the next.

    The otype "Frequency". Its values are those of ``frequency.FrequencyEncoding``, which is the
    original NeRF's: that one orders rows by frequency first, and has x itself.
    """

    def __init__(self, n_dims: int, device: str, *, n_frequencies: int = 12):
        check_range("encoding.n_frequencies", n_frequencies, 1, MAX_FREQUENCIES)
        functions = Functions(kind="frequency", n=n_frequencies)
        settings = {"otype": "Frequency", "n_frequencies": n_frequencies}
        super().__init__(n_dims, functions, device, settings)
