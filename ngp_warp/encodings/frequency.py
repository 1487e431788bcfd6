"""The frequency encoding of Mildenhall et al. 2020 and its launches."""

import warp as wp

from ngp_warp import launch
from ngp_warp.config import check_range
from ngp_warp.kernels import frequency as kernels
from ngp_warp.kernels.vector import block_items

# 2^k x must leave bits for its fraction: a float32 has 24
MAX_FREQUENCIES = 20


class FrequencyEncoding:
    """Sines and cosines of doubling frequency; the equation stands in kernels/frequency.py.

    Args:
        n_dims: coordinates of a point; the encoding repeats outside +-1.
        n_frequencies: from pi to 2^(n_frequencies - 1) pi.
        device: "cpu" or a CUDA device.
        identity: the first rows are the coordinates themselves.

    Raises:
        ConfigError: a number of frequencies or dimensions out of its range.
    """

    def __init__(self, n_dims: int, n_frequencies: int, device: str, *, identity: bool = True):
        check_range("encoding.n_dims", n_dims, 1, 16)
        check_range("encoding.n_frequencies", n_frequencies, 0 if identity else 1, MAX_FREQUENCIES)
        self.n_dims = n_dims
        self.n_frequencies = n_frequencies
        self.identity = identity
        self.device = device
        self.n_outputs = n_dims * (2 * n_frequencies + int(identity))

    def forward(
        self, x: wp.array, y: wp.array, n_rows: int | None = None, first_row: int = 0
    ) -> launch.Launch:
        """Record y = encoding(x).

        Args:
            x: blocked, flat float32 [n_blocks * n_dims * 32].
            y: blocked, flat float32 [n_blocks * n_rows * 32]; rows beside the encoding's stay.
            n_rows: rows of y; None: those of the encoding.
            first_row: of the encoding in y.

        Raises:
            ShapeError: arrays that do not fit each other.
        """
        kernel = kernels.forward_kernel(self.n_dims, self.n_frequencies, self.identity)
        n_blocks, n_rows = self._check(x, "y", y, n_rows, first_row)
        n_items = block_items(n_blocks, self.device)
        return launch.record(kernel, n_items, [x, n_rows, first_row, y], self.device)

    def backward(
        self, x: wp.array, dy: wp.array, dx: wp.array, n_rows: int | None = None, first_row: int = 0
    ) -> launch.Launch:
        """Record the gradient dx in the coordinates; arguments as in ``forward``."""
        kernel = kernels.backward_kernel(self.n_dims, self.n_frequencies, self.identity)
        n_blocks, n_rows = self._check(x, "dy", dy, n_rows, first_row)
        launch.check_size("dx", dx, x.size, self.device)
        n_items = block_items(n_blocks, self.device)
        return launch.record(kernel, n_items, [x, n_rows, first_row, dy, dx], self.device)

    def _check(
        self, x: wp.array, name: str, y: wp.array, n_rows: int | None, first_row: int
    ) -> tuple[int, int]:
        """Return the number of blocks and the rows of y."""
        n_rows = self.n_outputs if n_rows is None else n_rows
        check_range("first_row", first_row, 0, n_rows - self.n_outputs)
        n_blocks = x.size // (self.n_dims * 32)
        launch.check_size("x", x, n_blocks * self.n_dims * 32, self.device)
        launch.check_size(name, y, n_blocks * n_rows * 32, self.device)
        return n_blocks, n_rows
