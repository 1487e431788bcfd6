"""Sparse octree features in float64. Twin of ngp_warp/kernels/octree.py and its tables.

Cells and corners are sets of tuples, found without codes or a tree.
"""

from itertools import product

import numpy as np


class OctreeFeatures:
    """Cells of the levels first to last that contain ``points``, with F features a corner."""

    def __init__(self, points, first, last, n_features, summed=False):
        self.points, self.n_dims = np.asarray(points, np.float32), points.shape[1]
        self.levels, self.n_features, self.summed = range(first, last + 1), n_features, summed
        self.cells, self.corners = {}, {}
        for level in self.levels:
            inside = {self._cell(p, level) for p in self.points}
            vertices = {tuple(np.add(c, bit)) for c in inside for bit in self._bits()}
            self.cells[level] = inside
            # x varies fastest
            for vertex in sorted(vertices, key=lambda v: v[::-1]):
                self.corners[level, vertex] = len(self.corners)
        self.n_params = -(-len(self.corners) // 8) * 8 * n_features

    def _bits(self):
        return product((0, 1), repeat=self.n_dims)

    @staticmethod
    def _cell(p, level):
        n = 2**level
        return tuple(min(int(v * n), n - 1) for v in np.asarray(p, np.float64))

    def _found(self, x):
        """Yield (point, level's number, corner, weight, its gradient [d])."""
        for i, p in enumerate(np.asarray(x, np.float64)):
            if not np.all((p >= 0) & (p <= 1)):
                continue
            for number, level in enumerate(self.levels):
                cell = self._cell(p, level)
                if cell not in self.cells[level]:
                    continue
                f = p * 2**level - cell
                for bit in self._bits():
                    a, s = np.where(bit, f, 1 - f), np.where(bit, 1, -1) * 2**level
                    slope = [s[d] * np.delete(a, d).prod() for d in range(self.n_dims)]
                    yield i, number, self.corners[level, tuple(np.add(cell, bit))], a.prod(), slope

    def _rows(self, number):
        first = 0 if self.summed else number * self.n_features
        return slice(first, first + self.n_features)

    def forward(self, x, params):
        table = params.reshape(-1, self.n_features)
        n_levels = 1 if self.summed else len(self.levels)
        y = np.zeros((len(x), n_levels * self.n_features))
        for i, number, corner, weight, _ in self._found(x):
            y[i, self._rows(number)] += weight * table[corner]
        return y

    def backward(self, x, params, dy):
        table = params.reshape(-1, self.n_features)
        dx, d_table = np.zeros(x.shape), np.zeros(table.shape)
        for i, number, corner, weight, slope in self._found(x):
            d = dy[i, self._rows(number)]
            dx[i] += np.multiply(slope, table[corner] @ d)
            d_table[corner] += weight * d
        return dx, d_table.reshape(-1)
