"""What every encoding supplies: features of a point, and two orders of their gradients."""

from typing import Any, Protocol

import numpy as np
import warp as wp

from ngp_warp.launch import Launch, check_size


class Encoding(Protocol):
    """Features y of a point x, with parameters or without.

    Arrays of points are blocked, flat float32 [n_blocks * n_rows * 32] on the encoding's device.
    Parameters are flat float32 [n_params]; where n_params is 0 they are not looked at, and may be
    None. A padded block repeats any point, with gradients of zero.

    The lists of launches are to be run in their order, each after the one before has ended. They
    may be repeated, and hold their own scratch arrays; on CUDA a graph may capture them.
    """

    n_dims: int
    """Rows of x."""
    n_outputs: int
    """Rows of y."""
    n_params: int
    """0: nothing is trained."""
    device: str

    def initial_params(self, seed: int) -> np.ndarray:
        """Return float32 [n_params] to start training from."""
        ...

    def forward(self, x: wp.array, params: wp.array | None, y: wp.array) -> list[Launch]:
        """Record y = encoding(x), overwritten.

        Raises:
            ShapeError: an array that does not fit, here and below.
        """
        ...

    def backward(
        self,
        x: wp.array,
        params: wp.array | None,
        dy: wp.array,
        *,
        dx: wp.array | None = None,
        d_params: wp.array | None = None,
    ) -> list[Launch]:
        """Record the gradients of <y, dy>; either may be left out.

        Args:
            x: points.
            params: those of the forward pass.
            dy: gradient of y.
            dx: out, gradient of x, overwritten.
            d_params: gradient of the parameters, added to.
        """
        ...

    def second_order(
        self,
        x: wp.array,
        params: wp.array | None,
        dy: wp.array,
        v: wp.array,
        *,
        d_dy: wp.array | None,
        dx: wp.array | None,
        d_params: wp.array | None,
    ) -> list[Launch]:
        """Record the gradients of S = <v, dx(x, params, dy)>; any may be None.

        Args:
            x: points.
            params: those of the forward pass.
            dy: what ``backward`` was given.
            v: gradient of the loss in what ``backward`` calls dx.
            d_dy: out, dS/d dy, overwritten.
            dx: out, dS/dx, overwritten.
            d_params: dS/d params, added to.
        """
        ...

    def hyperparams(self) -> dict[str, Any]:
        """Return the settings in tiny-cuda-nn's JSON form: {"otype": ..., ...}."""
        ...


def check_rows(encoding: Encoding, *, x: wp.array, **arrays: wp.array | None) -> int:
    """Return the number of blocks of x; raise unless every array fits.

    Args:
        encoding: gives the rows and the device.
        x: points.
        arrays: y, dy and d_dy have the encoding's outputs; v and dx its dimensions; params and
            d_params its parameters, if any. None is not looked at.

    Raises:
        ShapeError: names the array, what is wanted and what it is.
    """
    e = encoding
    n_blocks = x.size // (e.n_dims * 32)
    rows = dict.fromkeys(("y", "dy", "d_dy"), e.n_outputs) | dict.fromkeys(("v", "dx"), e.n_dims)
    check_size("x", x, n_blocks * e.n_dims * 32, e.device)
    for name, array in arrays.items():
        if name in rows and array is not None:
            check_size(name, array, n_blocks * rows[name] * 32, e.device)
        elif name not in rows and e.n_params and (array is not None or name == "params"):
            check_size(name, array, e.n_params, e.device)
    return n_blocks
