"""Rows of a constant beside an encoding's own, up to a width that a network asks for."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp

from ngp_warp.encodings.encoding import Encoding, check_rows
from ngp_warp.encodings.rows import copy_rows, fill_rows, scratch
from ngp_warp.launch import Launch


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Where tiny-cuda-nn pads an encoding, and with what."""

    value: float = 1.0
    """Most have ones, so that a network without biases has one; grids have zeros."""
    before: bool = False
    """Spherical harmonics have it before their rows."""


class Padded:
    """An encoding with constant rows before or after its own.

    Args:
        encoding: what is padded.
        n_outputs: rows with the padding.
        padding: what it is.
    """

    def __init__(self, encoding: Encoding, n_outputs: int, padding: Padding):
        self.encoding = encoding
        self.padding = padding
        self.n_dims = encoding.n_dims
        self.n_outputs = n_outputs
        self.n_params = encoding.n_params
        self.device = encoding.device
        n = n_outputs - encoding.n_outputs
        self._first = n if padding.before else 0
        self._pad = (n, 0 if padding.before else encoding.n_outputs)

    def initial_params(self, seed: int) -> np.ndarray:
        """Return the parameters of what is padded."""
        return self.encoding.initial_params(seed)

    def forward(self, x: wp.array, params: wp.array | None, y: wp.array) -> list[Launch]:
        """Record y = (encoding(x), constants)."""
        n_blocks = check_rows(self, x=x, params=params, y=y)
        inner = scratch(n_blocks, self.encoding.n_outputs, self.device)
        launches = self.encoding.forward(x, params, inner)
        return [*launches, *self._outside(inner, y, self.padding.value)]

    def backward(
        self,
        x: wp.array,
        params: wp.array | None,
        dy: wp.array,
        *,
        dx: wp.array | None = None,
        d_params: wp.array | None = None,
    ) -> list[Launch]:
        """Record the gradients in x and the parameters."""
        check_rows(self, x=x, params=params, dy=dy, dx=dx, d_params=d_params)
        launch, inner = self._inside(dy)
        return [launch, *self.encoding.backward(x, params, inner, dx=dx, d_params=d_params)]

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
        """Record the gradients of <v, dx>."""
        check_rows(self, x=x, params=params, dy=dy, v=v, d_dy=d_dy, dx=dx, d_params=d_params)
        launch, inner = self._inside(dy)
        d_inner = None if d_dy is None else wp.empty_like(inner)
        launches = self.encoding.second_order(
            x, params, inner, v, d_dy=d_inner, dx=dx, d_params=d_params
        )
        if d_dy is not None and d_inner is not None:
            launches = [*launches, *self._outside(d_inner, d_dy, 0.0)]
        return [launch, *launches]

    def hyperparams(self) -> dict[str, Any]:
        """Return those of what is padded: a width is not an encoding's in tiny-cuda-nn."""
        return self.encoding.hyperparams()

    def _inside(self, rows: wp.array) -> tuple[Launch, wp.array]:
        n = self.encoding.n_outputs
        inner = scratch(rows.size // (self.n_outputs * 32), n, self.device)
        return copy_rows(rows, inner, (self.n_outputs, n), at=self._first, n=n), inner

    def _outside(self, inner: wp.array, rows: wp.array, value: float) -> list[Launch]:
        n = self.encoding.n_outputs
        copy = copy_rows(inner, rows, (n, self.n_outputs), to=self._first, n=n)
        return [copy, fill_rows(value, self._pad[0], rows, self.n_outputs, self._pad[1])]


def next_multiple(n: int, alignment: int) -> int:
    """Return the least multiple of ``alignment`` that is at least n."""
    return math.ceil(n / alignment) * alignment
