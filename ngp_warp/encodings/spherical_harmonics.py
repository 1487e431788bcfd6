"""Spherical harmonics of directions."""

from ngp_warp.config import check_range
from ngp_warp.encodings.fixed import FixedEncoding
from ngp_warp.errors import ConfigError
from ngp_warp.kernels import harmonics
from ngp_warp.kernels.spherical_harmonics import MAX_BANDS


class SphericalHarmonics(FixedEncoding):
    """Real harmonics of the bands below ``degree``, of directions d given as (d + 1) / 2.

    Args:
        n_dims: 3.
        device: "cpu" or a CUDA device.
        degree: number of bands, 1 to 8; there are degree^2 rows, in tiny-cuda-nn's order and signs.

    Raises:
        ConfigError: other dimensions or degrees.
    """

    def __init__(self, n_dims: int, device: str, *, degree: int = 4):
        if n_dims != 3:
            raise ConfigError(f"spherical harmonics have 3 dimensions, got {n_dims}")
        check_range("encoding.degree", degree, 1, MAX_BANDS)
        settings = {"otype": "SphericalHarmonics", "degree": degree}
        super().__init__(n_dims, degree**2, device, harmonics, (degree,), settings)
