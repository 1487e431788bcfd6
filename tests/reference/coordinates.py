"""Functions of one coordinate in float64. Twin of ngp_warp/kernels/coordinates.py.

Each is (values, slopes) of x [n]: two arrays [n, rows of a coordinate].
"""

import numpy as np


def identity(x, scale=1.0, offset=0.0):
    return x[:, None] * scale + offset, np.full((len(x), 1), scale)


def frequency(x, n):
    w = np.pi * 2.0 ** np.arange(n)
    a = x[:, None] * w
    values = np.stack([np.sin(a), np.cos(a)], axis=2)
    slopes = np.stack([w * np.cos(a), -w * np.sin(a)], axis=2)
    return values.reshape(len(x), -1), slopes.reshape(len(x), -1)


def triangle_wave(x, n):
    k = np.arange(n)
    w = (x[:, None] * 2.0 ** (k - 1) + k / 4) % 1
    return np.abs(w - 0.5) * 4 - 1, np.where(w < 0.5, -1, 1) * 2.0 ** (k + 1)


def one_blob(x, n):
    edges = np.arange(n + 1) / n
    values, slopes = np.zeros((2, len(x), n))
    for turn in (-1, 0, 1):
        u = np.clip((edges + turn - x[:, None]) * n, -1, 1)
        values += np.diff(15 / 16 * (u - 2 / 3 * u**3 + u**5 / 5), axis=1)
        slopes -= np.diff(n * 15 / 16 * (1 - u**2) ** 2, axis=1)
    return values, slopes


class Coordinates:
    """One of the above for every coordinate: forward and backward as in tests/encoding_case.py."""

    n_params = 0

    def __init__(self, n_dims, function, *args):
        self.n_dims, self.function, self.args = n_dims, function, args

    def _parts(self, x):
        return [self.function(np.asarray(x[:, d], float), *self.args) for d in range(self.n_dims)]

    def forward(self, x, params):
        del params
        return np.concatenate([values for values, _ in self._parts(x)], axis=1)

    def backward(self, x, params, dy):
        del params
        dys = np.split(dy, self.n_dims, axis=1)
        parts = zip(self._parts(x), dys, strict=True)
        return np.stack([(s * d).sum(axis=1) for (_, s), d in parts], axis=1), np.zeros(0)
