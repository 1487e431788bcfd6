"""Value loss with the eikonal term in float64, and all its gradients. Twin of kernels/eikonal.py,
kernels/mlp_eikonal.py and kernels/grid_jacobian.py.

    L = mean loss(f, target) + w mean (|g| - 1)^2,  f = network(y(x)),  g = (dy/dx)^T df/dy
"""

import numpy as np

from tests.reference import grid, losses, mlp
from tests.reference.mlp import ACTIVATIONS, K


def _logistic_curvature(z):
    s = ACTIVATIONS["sigmoid"][0](z)
    return s * (1 - s) * (1 - 2 * s)


# second derivatives; zero almost everywhere for the others
CURVATURES = {
    "exponential": np.exp,
    "sine": lambda z: -np.sin(z),
    "sigmoid": _logistic_curvature,
    "squareplus": lambda z: 2 * K / ((K * z) ** 2 + 4) ** 1.5,
    "softplus": lambda z: K * ACTIVATIONS["sigmoid"][1](K * z),
    "tanh": lambda z: -2 * np.tanh(z) * (1 - np.tanh(z) ** 2),
}


def jacobian(x, table, levels, grid_type, interpolation):
    """dy/dx [n, L * F, d] of the features."""
    parts = []
    for level in levels:
        corners = grid.corners(x, level, grid_type, interpolation)
        parts.append(sum(table[k][:, :, None] * slope[:, None, :] for k, _, slope in corners))
    return np.concatenate(parts, axis=1)


def scatter_jacobian(x, d_jacobian, levels, grid_type, interpolation, n_entries):
    """Gradient of the table for a gradient [n, L * F, d] of the Jacobian."""
    n_features = d_jacobian.shape[1] // len(levels)
    d_table = np.zeros((n_entries, n_features))
    for i, level in enumerate(levels):
        d = d_jacobian[:, i * n_features : (i + 1) * n_features]
        for k, _, slope in grid.corners(x, level, grid_type, interpolation):
            np.add.at(d_table, k, np.einsum("nfd,nd->nf", d, slope))
    return d_table


class Network:
    """A network of one output at features y [n, n_in]: its value, and first and second order."""

    def __init__(self, matrices, activation, output_activation, biases=None, skip_layer=None):
        self.matrices, self.biases, self.skip_layer = matrices, biases, skip_layer
        self.names = [activation] * (len(matrices) - 1) + [output_activation]

    def value(self, y):
        """f [n]."""
        names = self.names[0], self.names[-1]
        f, self.inputs, self.pre = mlp.forward(
            self.matrices, y, *names, biases=self.biases, skip_layer=self.skip_layer
        )
        return f[:, 0]

    def _slopes(self, i):
        return ACTIVATIONS[self.names[i]][1](self.pre[i])

    def _curvature(self, i):
        z = self.pre[i]
        return CURVATURES.get(self.names[i], np.zeros_like)(z)

    def _back(self, i, gradient, d_y):
        """Gradient of a layer's input, parted into that of the layer before and y's."""
        if i == self.skip_layer:
            width = self.matrices[i - 1].shape[0]
            return gradient[:, :width], d_y + gradient[:, width:]
        return (gradient, d_y) if i else (None, d_y + gradient)

    def slope(self):
        """df/dy [n, n_in] of the last ``value``; keeps df/dh and df/dz of every layer."""
        n = len(self.matrices)
        self.q, self.e = [None] * n, [None] * n
        q, slope = np.ones((len(self.pre[0]), 1)), 0.0
        for i in reversed(range(n)):
            self.q[i], self.e[i] = q, q * self._slopes(i)
            q, slope = self._back(i, self.e[i] @ self.matrices[i], slope)
        return slope

    def gradients(self, c, t):
        """Gradients of sum c f + <t, df/dy> with c, t held: (in y, flat in weights and biases)."""
        n = len(self.matrices)
        tangents, u, h = [], [], t
        for i, w in enumerate(self.matrices):
            tangents.append(np.hstack([h, t]) if i == self.skip_layer else h)
            u.append(tangents[i] @ w.T)
            h = self._slopes(i) * u[i]
        p, d_y, dw = c[:, None], 0.0, []
        for i in reversed(range(n)):
            d = p * self._slopes(i) + self._curvature(i) * u[i] * self.q[i]
            if self.biases:
                dw.append(d.sum(axis=0))
            dw.append((d.T @ self.inputs[i] + self.e[i].T @ tangents[i]).ravel())
            p, d_y = self._back(i, d @ self.matrices[i], d_y)
        return d_y, np.concatenate(dw[::-1])


def term(g, weight):
    """Return (residuals (|g| - 1)^2 [n], gradient in g of weight times their mean)."""
    length = np.linalg.norm(g, axis=1, keepdims=True)
    safe = np.where(length > 0, length, 1.0)
    v = np.where(length > 0, 2 * weight / len(g) * (1 - 1 / safe) * g, 0.0)
    return ((length - 1) ** 2)[:, 0], v


def network_pass(network, y, jac, target, name, weight):
    """Return what a training pass fills, as a dict; ``jac`` [n, n_in, d] is held."""
    f = network.value(y)
    value, gradient = losses.loss(name, f, target)
    slope = network.slope()
    g = np.einsum("nkd,nk->nd", jac, slope)
    residuals, v = term(g, weight)
    t = np.einsum("nkd,nd->nk", jac, v)
    d_features, dw = network.gradients(gradient / len(y), t)
    return {
        "f": f, "g": g, "slope": slope, "v": v, "d_features": d_features, "dw": dw,
        "loss": value.sum(), "squares": ((f - target) ** 2).sum(), "residual": residuals.sum(),
        "total": value.mean() + weight * residuals.mean(),
    }  # fmt: skip


def training_pass(network, x, table, levels, grid_type, interpolation, target, name, weight):
    """The same of network(grid(x)), with the table's gradient in d_table [n_entries, F]."""
    kind = levels, grid_type, interpolation
    table = np.asarray(table, np.float64)
    y = grid.forward(x, table, *kind)
    result = network_pass(network, y, jacobian(x, table, *kind), target, name, weight)
    d_jacobian = result["slope"][:, :, None] * result["v"][:, None, :]
    result["d_table"] = grid.backward(x, result["d_features"], *kind, len(table))[0]
    result["d_table"] += scatter_jacobian(x, d_jacobian, *kind, len(table))
    return result
