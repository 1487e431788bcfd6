"""Multilayer perceptron in float64: forward and backward. Twin of ngp_warp/kernels/mlp_*.py."""

import numpy as np

K = 10.0  # scale of the argument of squareplus and softplus


def _sigmoid(z):
    return np.where(
        z >= 0, 1 / (1 + np.exp(-np.abs(z))), np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z)))
    )


def _squareplus_slope(z):
    return 0.5 * (1 + K * z / np.sqrt((K * z) ** 2 + 4))


# name: (h of z, dh/dz of z)
ACTIVATIONS = {
    "none": (lambda z: z, np.ones_like),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1, 0.01)),
    "exponential": (np.exp, np.exp),
    "sine": (np.sin, np.cos),
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * (1 - _sigmoid(z))),
    "squareplus": (lambda z: 0.5 * (K * z + np.sqrt((K * z) ** 2 + 4)) / K, _squareplus_slope),
    "softplus": (lambda z: np.logaddexp(K * z, 0) / K, lambda z: _sigmoid(K * z)),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
}


def split_weights(flat, widths):
    """Return the matrices W [n_out, n_in] of the flat array; widths: inputs, hidden..., outputs."""
    sizes = [a * b for a, b in zip(widths[1:], widths[:-1], strict=True)]
    parts = np.split(np.asarray(flat, np.float64), np.cumsum(sizes)[:-1])
    return [
        w.reshape(rows, columns)
        for w, rows, columns in zip(parts, widths[1:], widths[:-1], strict=True)
    ]


def _exact(values):
    return values


def to_half(values, scale=1.0):
    """Round scale * values to half precision, saturating, and return it without the scale."""
    return np.clip(np.asarray(values) * scale, -65504, 65504).astype(np.float16) / np.float64(scale)


def split_parameters(flat, n_in, n_neurons, n_hidden_layers, n_out, bias=False, skip_layer=None):
    """Return (matrices, biases or None): layer after layer, W [n_out, n_in] and then its bias."""
    matrices, biases, first = [], [], 0
    for i in range(n_hidden_layers + 1):
        rows = n_out if i == n_hidden_layers else n_neurons
        columns = (n_neurons if i else 0) + (n_in if i in {0, skip_layer} else 0)
        matrices.append(np.asarray(flat[first : first + rows * columns], np.float64))
        matrices[-1] = matrices[-1].reshape(rows, columns)
        first += rows * columns
        if bias:
            biases.append(np.asarray(flat[first : first + rows], np.float64))
            first += rows
    assert first == len(flat)
    return matrices, biases if bias else None


def forward(matrices, x, activation, output_activation, cast=_exact, biases=None, skip_layer=None):
    """Return (y [n, n_out], list of layer inputs, list of pre-activations) of x [n, n_in].

    ``cast`` rounds every operand of a matrix product, as mixed precision does. The input of layer
    ``skip_layer`` is the layer before and, behind it, x.
    """
    inputs, pre = [], []
    h = np.asarray(x, np.float64)
    for i, w in enumerate(matrices):
        name = output_activation if i == len(matrices) - 1 else activation
        inputs.append(cast(np.hstack([h, x]) if i == skip_layer else h))
        pre.append(inputs[-1] @ cast(w).T + (biases[i] if biases else 0.0))
        h = ACTIVATIONS[name][0](pre[-1])
    return h, inputs, pre


def backward(
    matrices, x, dy, activation, output_activation, cast=_exact, cast_delta=_exact,
    biases=None, skip_layer=None,
):  # fmt: skip
    """Return (dx [n, n_in], flat gradient of weights and biases) of dL/dy [n, n_out]."""
    _, inputs, pre = forward(matrices, x, activation, output_activation, cast, biases, skip_layer)
    gradient, dw, dx = np.asarray(dy, np.float64), [], 0.0
    for i in reversed(range(len(matrices))):
        name = output_activation if i == len(matrices) - 1 else activation
        delta = cast_delta(gradient * ACTIVATIONS[name][1](pre[i]))
        if biases:
            dw.append(delta.sum(axis=0))
        dw.append((delta.T @ inputs[i]).ravel())
        gradient = delta @ cast(matrices[i])
        if i == skip_layer:
            width = gradient.shape[1] - np.shape(x)[1]
            gradient, dx = gradient[:, :width], gradient[:, width:]
    return gradient + dx, np.concatenate(dw[::-1])


def to_blocks(values, fill=0.0):
    """[n, n_rows] to blocked [ceil(n / 32), n_rows, 32], the padding filled."""
    n, n_rows = values.shape
    padded = np.full((-(-n // 32) * 32, n_rows), fill, np.float32)
    padded[:n] = values
    return np.ascontiguousarray(padded.reshape(-1, 32, n_rows).transpose(0, 2, 1))


def from_blocks(blocks, n):
    """Blocked [n_blocks, n_rows, 32] to [n, n_rows]."""
    return blocks.transpose(0, 2, 1).reshape(-1, blocks.shape[1])[:n]
