"""The identity, scaled and shifted."""

from ngp_warp.config import check_range
from ngp_warp.encodings.fixed import CoordinateEncoding
from ngp_warp.kernels.coordinates import Functions


class Identity(CoordinateEncoding):
    """Rows scale * x + offset."""

    def __init__(self, n_dims: int, device: str, *, scale: float = 1.0, offset: float = 0.0):
        check_range("encoding.scale", scale, -1e30, 1e30)
        check_range("encoding.offset", offset, -1e30, 1e30)
        functions = Functions(kind="identity", scale=float(scale), offset=float(offset))
        settings = {"otype": "Identity", "scale": functions.scale, "offset": functions.offset}
        super().__init__(n_dims, functions, device, settings)
