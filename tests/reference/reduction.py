"""Encodings made of encodings in float64. Twin of ngp_warp/kernels/reduction.py, and of padding."""

import numpy as np


class Reduced:
    """Twins of slices of x, concatenated, summed or multiplied.

    Args:
        n_dims: of x.
        parts: (twin, first dimension).
        reduction: concatenation, sum or product.
    """

    def __init__(self, n_dims, parts, reduction):
        self.n_dims, self.parts, self.reduction = n_dims, parts, reduction
        self.n_params = sum(twin.n_params for twin, _ in parts)

    def _values(self, x, params):
        offset = 0
        for twin, begin in self.parts:
            own = params[offset : offset + twin.n_params]
            offset += twin.n_params
            x_part = x[:, begin : begin + twin.n_dims]
            yield twin, begin, x_part, own, twin.forward(x_part, own)

    def forward(self, x, params):
        values = [v for *_, v in self._values(x, params)]
        if self.reduction == "concatenation":
            return np.concatenate(values, axis=1)
        return np.sum(values, axis=0) if self.reduction == "sum" else np.prod(values, axis=0)

    def backward(self, x, params, dy):
        dx, d_params, row = np.zeros(x.shape), [], 0
        found = list(self._values(x, params))
        for i, (twin, begin, x_part, own, value) in enumerate(found):
            d = dy
            if self.reduction == "concatenation":
                d = dy[:, row : row + value.shape[1]]
                row += value.shape[1]
            elif self.reduction == "product":
                d = dy * np.prod([f[-1] for j, f in enumerate(found) if j != i], axis=0)
            dx_part, d_own = twin.backward(x_part, own, d)
            dx[:, begin : begin + twin.n_dims] += dx_part
            d_params.append(d_own)
        return dx, np.concatenate(d_params)


class Constant:
    """n rows of a value, whatever x is: what padding adds."""

    n_params = n_dims = 0

    def __init__(self, n, value):
        self.n, self.value = n, value

    def forward(self, x, params):
        del params
        return np.full((len(x), self.n), self.value)

    def backward(self, x, params, dy):
        del params, dy
        return np.zeros((len(x), 0)), np.zeros(0)
