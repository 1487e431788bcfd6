"""Several encodings of slices of the input as one: side by side, summed or multiplied."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import warp as wp

from ngp_warp.config import check_choice
from ngp_warp.encodings.encoding import Encoding, check_rows
from ngp_warp.encodings.rows import add_rows, copy_rows, fill_rows, scratch
from ngp_warp.errors import ConfigError
from ngp_warp.kernels import reduction as kernels
from ngp_warp.kernels.vector import block_items
from ngp_warp.launch import Launch, record

CONCATENATION = "concatenation"
REDUCTIONS = (CONCATENATION, kernels.SUM, kernels.PRODUCT)


class Composite:
    """Encodings of slices of x; parameters are theirs, one after another.

    Slices may overlap, and leave out dimensions, whose gradient is 0.

    Args:
        n_dims: dimensions of x.
        parts: (encoding, first dimension of its slice), all on one device.
        reduction: concatenation, sum or product; the last two need parts of one width.

    Raises:
        ConfigError: no parts, a slice beyond n_dims, another reduction, unequal widths.
    """

    def __init__(
        self, n_dims: int, parts: Sequence[tuple[Encoding, int]], reduction: str = CONCATENATION
    ):
        check_choice("encoding.reduction", reduction, REDUCTIONS)
        if not parts:
            raise ConfigError("a composite encoding needs at least one nested encoding")
        self.encodings = [encoding for encoding, _ in parts]
        self.begins = [begin for _, begin in parts]
        for encoding, begin in parts:
            if not 0 <= begin <= n_dims - encoding.n_dims:
                raise ConfigError(
                    f"a nested encoding has the dimensions {begin} to {begin + encoding.n_dims}, "
                    f"its composite {n_dims}"
                )
        widths = [encoding.n_outputs for encoding in self.encodings]
        if reduction != CONCATENATION and len(set(widths)) > 1:
            raise ConfigError(f"a {reduction} needs nested encodings of one width, got {widths}")
        self.n_dims = n_dims
        self.reduction = reduction
        self.n_outputs = sum(widths) if reduction == CONCATENATION else widths[0]
        self.n_params = sum(encoding.n_params for encoding in self.encodings)
        self.device = self.encodings[0].device
        self._all_rows = sum(widths)

    def initial_params(self, seed: int) -> np.ndarray:
        """Return the nested encodings' parameters, each drawn with another seed."""
        # 64 apart, so that composites in composites repeat no seed
        values = [e.initial_params(64 * seed + i) for i, e in enumerate(self.encodings)]
        return np.concatenate(values)

    def forward(self, x: wp.array, params: wp.array | None, y: wp.array) -> list[Launch]:
        """Record y = the nested encodings' features, reduced."""
        n_blocks = check_rows(self, x=x, params=params, y=y)
        if self.reduction == CONCATENATION:
            return self._features(x, params, y)
        features = scratch(n_blocks, self._all_rows, self.device)
        launches = self._features(x, params, features)
        return [*launches, self._reduce(kernels.forward_kernel, n_blocks, [features], [y])]

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
        if dx is None and (d_params is None or self.n_params == 0):
            return []
        launches, _, g = self._gradients(x, params, dy)
        if dx is not None:
            launches.append(fill_rows(0.0, self.n_dims, dx, self.n_dims))
        return launches + self._backward(x, params, g, dx, d_params)

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
        """Record the gradients of <v, dx>; a product's need those of the features too."""
        n_blocks = check_rows(
            self, x=x, params=params, dy=dy, v=v, d_dy=d_dy, dx=dx, d_params=d_params
        )
        launches, features, g = self._gradients(x, params, dy)
        if dx is not None:
            launches.append(fill_rows(0.0, self.n_dims, dx, self.n_dims))
        concatenated = self.reduction == CONCATENATION
        q = d_dy if concatenated else scratch(n_blocks, self._all_rows, self.device)
        launches += self._second_order(x, params, g, v, q, dx, d_params)
        if concatenated:
            return launches
        h = None if features is None else wp.empty_like(features)
        kernel = kernels.second_order_kernel
        launches.append(self._reduce(kernel, n_blocks, [features, dy, q], [d_dy, h]))
        if h is not None:
            launches += self._backward(x, params, h, dx, d_params)
        return launches

    def hyperparams(self) -> dict[str, Any]:
        """Return the settings in tiny-cuda-nn's JSON form, nested ones included."""
        nested = [
            {"n_dims_to_encode": e.n_dims, "dims_to_encode_begin": begin, **e.hyperparams()}
            for e, begin in zip(self.encodings, self.begins, strict=True)
        ]
        return {"otype": "Composite", "reduction": self.reduction.capitalize(), "nested": nested}

    def _parts(self) -> Iterator[tuple[Encoding, int, int, int]]:
        """Yield (encoding, first dimension, first row of its features, first parameter)."""
        row = param = 0
        for encoding, begin in zip(self.encodings, self.begins, strict=True):
            yield encoding, begin, row, param
            row, param = row + encoding.n_outputs, param + encoding.n_params

    def _slice(self, x: wp.array, encoding: Encoding, begin: int) -> tuple[list[Launch], wp.array]:
        """Return a nested encoding's dimensions of x (or v), and how they get there."""
        n = encoding.n_dims
        if n == self.n_dims:
            return [], x
        part = scratch(x.size // (self.n_dims * 32), n, self.device)
        return [copy_rows(x, part, (self.n_dims, n), at=begin, n=n)], part

    def _rows(self, rows: wp.array, e: Encoding, row: int) -> tuple[list[Launch], wp.array]:
        """Return a nested encoding's rows of all features' gradients, and how they get there."""
        n, n_all = e.n_outputs, self._all_rows
        if n == n_all:
            return [], rows
        part = scratch(rows.size // (n_all * 32), n, self.device)
        return [copy_rows(rows, part, (n_all, n), at=row, n=n)], part

    def _features(self, x: wp.array, params: wp.array | None, y: wp.array) -> list[Launch]:
        """Record the features of all nested encodings, side by side."""
        launches = []
        for e, begin, row, param in self._parts():
            copy, x_part = self._slice(x, e, begin)
            y_part = scratch(y.size // (self._all_rows * 32), e.n_outputs, self.device)
            launches += [
                *copy,
                *e.forward(x_part, _of(params, e, param), y_part),
                copy_rows(
                    y_part, y, (e.n_outputs, self._all_rows), to=row, n=e.n_outputs
                ),
            ]  # fmt: skip
        return launches

    def _gradients(
        self, x: wp.array, params: wp.array | None, dy: wp.array
    ) -> tuple[list[Launch], wp.array | None, wp.array]:
        """Return (launches, features if a product needs them, gradients of all features)."""
        if self.reduction == CONCATENATION:
            return [], None, dy
        n_blocks = x.size // (self.n_dims * 32)
        g, features, launches = scratch(n_blocks, self._all_rows, self.device), None, []
        if self.reduction == kernels.PRODUCT:
            features = wp.empty_like(g)
            launches = self._features(x, params, features)
        launches.append(self._reduce(kernels.backward_kernel, n_blocks, [features, dy], [g]))
        return launches, features, g

    def _backward(
        self,
        x: wp.array,
        params: wp.array | None,
        g: wp.array,
        dx: wp.array | None,
        d_params: wp.array | None,
    ) -> list[Launch]:
        """Record the nested backward passes, added to dx."""
        launches = []
        for e, begin, row, param in self._parts():
            copy_x, x_part = self._slice(x, e, begin)
            copy_g, g_part = self._rows(g, e, row)
            dx_part = None if dx is None else wp.empty_like(x_part)
            own, d_own = _of(params, e, param), _of(d_params, e, param)
            launches += [*copy_x, *copy_g]
            launches += e.backward(x_part, own, g_part, dx=dx_part, d_params=d_own)
            if dx is not None and dx_part is not None:
                launches.append(add_rows(dx_part, e.n_dims, dx, self.n_dims, begin))
        return launches

    def _second_order(
        self,
        x: wp.array,
        params: wp.array | None,
        g: wp.array,
        v: wp.array,
        q: wp.array | None,
        dx: wp.array | None,
        d_params: wp.array | None,
    ) -> list[Launch]:
        """Record the nested second orders: q overwritten, added to dx."""
        launches = []
        for e, begin, row, param in self._parts():
            copy_x, x_part = self._slice(x, e, begin)
            copy_v, v_part = self._slice(v, e, begin)
            copy_g, g_part = self._rows(g, e, row)
            dx_part = None if dx is None else wp.empty_like(x_part)
            q_part = None if q is None else wp.empty_like(g_part)
            own, d_own = _of(params, e, param), _of(d_params, e, param)
            launches += [*copy_x, *copy_v, *copy_g]
            launches += e.second_order(
                x_part, own, g_part, v_part, d_dy=q_part, dx=dx_part, d_params=d_own
            )
            if dx is not None and dx_part is not None:
                launches.append(add_rows(dx_part, e.n_dims, dx, self.n_dims, begin))
            if q is not None and q_part is not None:
                rows = e.n_outputs, self._all_rows
                launches.append(copy_rows(q_part, q, rows, to=row, n=e.n_outputs))
        return launches

    def _reduce(self, kernel: Any, n_blocks: int, inputs: list[Any], outputs: list[Any]) -> Launch:
        """Record a kernel of the reduction over all rows."""
        args = [*inputs, len(self.encodings), self.n_outputs, *outputs]
        return record(kernel(self.reduction), block_items(n_blocks, self.device), args, self.device)


def _of(params: wp.array | None, encoding: Encoding, first: int) -> wp.array | None:
    """Return a nested encoding's parameters or their gradients; None where it has none."""
    if params is None or encoding.n_params == 0:
        return None
    part: Any = params[first : first + encoding.n_params]
    return part
