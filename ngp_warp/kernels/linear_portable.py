"""One layer of a multilayer perceptron in Warp's own language, for CUDA.

Source, twin and arguments as in kernels/linear.py, which serves the CPU. A thread holds a few rows
of one point, the 32 lanes of a warp the 32 points of a block: points are read side by side, weights
once for all lanes.
"""

import functools

import warp as wp

from ngp_warp.kernels.linear import n_partials
from ngp_warp.kernels.mlp import ACTIVATIONS
from ngp_warp.kernels.vector import SCALAR
from ngp_warp.launch import module_options

__all__ = [
    "SLICE_FLOATS", "layer_items", "layer_kernel", "n_chunks", "n_partials", "reduce_items",
    "reduce_kernel", "slope_items", "slope_kernel", "weight_gradient_items",
    "weight_gradient_kernel",
]  # fmt: skip

# Rows of a thread: that many products for every value loaded
ROWS = 4
# Floats of the activations of all layers that are kept at a time, 256 MiB
SLICE_FLOATS = 2**26
_CHUNK_BLOCKS = 8
_WANTED_THREADS = 2**17


def _groups(n: int) -> int:
    return -(-n // ROWS)


def layer_items(n_blocks: int, n_out: int) -> int:
    """Return the number of items of ``layer_kernel``."""
    return n_blocks * _groups(n_out) * 32


def slope_items(n_blocks: int, n_rows: int) -> int:
    """Return the number of items of ``slope_kernel``."""
    return n_blocks * n_rows * 32


def n_chunks(n_blocks: int, n_out: int, n_in: int) -> int:
    """Return the parts of the points whose weight gradients are summed side by side."""
    wanted = -(-_WANTED_THREADS // (_groups(n_out) * (n_in + 1)))
    return max(1, min(n_blocks // _CHUNK_BLOCKS, wanted))


def weight_gradient_items(chunks: int, n_out: int, n_in: int) -> int:
    """Return the number of items of ``weight_gradient_kernel``: column n_in is the bias."""
    return chunks * _groups(n_out) * (n_in + 1)


def reduce_items(n_out: int, n_in: int) -> int:
    """Return the number of items of ``reduce_kernel``."""
    return n_out * (n_in + 1)


@functools.cache
def activation_function(name: str) -> wp.Function:
    """Return the activation of one value z, for kernels in Warp's language."""

    @wp.func_native(f"{SCALAR}return {ACTIVATIONS[name][0]};")
    def activation(z: float) -> float: ...

    return activation


@functools.cache
def slope_function(name: str) -> wp.Function:
    """Return the derivative in terms of h, the activation (of sine: of z)."""

    @wp.func_native(f"{SCALAR}const float z = h; (void)z; return {ACTIVATIONS[name][1]};")
    def activation_slope(h: float) -> float: ...

    return activation_slope


@functools.cache
def layer_kernel(activation: str, derivative: bool) -> wp.Kernel:
    """Return the kernel of a layer, or of its adjoint times a derivative."""
    act, slope = activation_function(activation), slope_function(activation)
    keeps = activation == "sine"

    @wp.kernel(module="unique", module_options=module_options())
    def linear_layer_portable(
        begin: int,
        # in
        w: wp.array[float],
        w_first: int,
        so: int,
        si: int,
        bias_first: int,
        accumulate: int,
        x: wp.array[float],  # [.., n_in, 32]
        x_block: int,
        n_in: int,
        n_out: int,
        n_blocks: int,
        # in: what act' is taken of; out: the sum before a sine
        h: wp.array[float],  # [.., n_out, 32]
        h_block: int,
        # out
        y: wp.array[float],  # [.., n_out, 32]
        y_block: int,
    ):
        """y = act(W x + b), or y = (W x) act'(h)."""
        i = begin + wp.tid()
        lane = i % 32
        groups = (n_out + wp.static(ROWS) - 1) / wp.static(ROWS)
        row = (i / 32) % groups * wp.static(ROWS)
        block = i / 32 / groups
        last = n_out - 1  # rows past the last one compute it again, and are not written
        w0 = w_first + row * so
        w1 = w_first + wp.min(row + 1, last) * so
        w2 = w_first + wp.min(row + 2, last) * so
        w3 = w_first + wp.min(row + 3, last) * so
        sums = wp.vec4(0.0, 0.0, 0.0, 0.0)
        source = (x_block + block) * n_in * 32 + lane
        for k in range(n_in):
            v = x[source + k * 32]
            s = k * si
            sums += wp.vec4(w[w0 + s], w[w1 + s], w[w2 + s], w[w3 + s]) * v
        for q in range(wp.static(ROWS)):
            j = row + q
            if j < n_out:
                z = sums[q]
                if bias_first >= 0:
                    z = z + w[bias_first + j]
                o = ((y_block + block) * n_out + j) * 32 + lane
                if accumulate != 0:
                    z = z + y[o]
                hh = ((h_block + block) * n_out + j) * 32 + lane
                if wp.static(derivative):
                    y[o] = z * slope(h[hh])
                else:
                    if wp.static(keeps):
                        h[hh] = z
                    y[o] = act(z)

    return linear_layer_portable


@functools.cache
def slope_kernel(activation: str) -> wp.Kernel:
    """Return the kernel d = dy act'(h)."""
    slope = slope_function(activation)

    @wp.kernel(module="unique", module_options=module_options())
    def linear_slope_portable(
        begin: int,
        # in
        dy: wp.array[float],  # [.., n_rows, 32]
        y_block: int,
        h: wp.array[float],  # [.., n_rows, 32]
        h_block: int,
        n_rows: int,
        # out
        d: wp.array[float],  # [n_blocks, n_rows, 32]
    ):
        """d = dy act'(h)."""
        i = begin + wp.tid()
        d[i] = dy[y_block * n_rows * 32 + i] * slope(h[h_block * n_rows * 32 + i])

    return linear_slope_portable


@functools.cache
def weight_gradient_kernel() -> wp.Kernel:
    """Return the kernel of the chunks' weight gradients, for (chunk, rows, column)."""

    @wp.kernel(module="unique", module_options=module_options())
    def linear_weight_gradient_portable(
        begin: int,
        # in
        d: wp.array[float],  # [.., n_out, 32]; zero in the last block's padding
        d_block: int,
        n_out: int,
        h: wp.array[float],  # [.., n_in, 32]
        h_block: int,
        n_in: int,
        n_blocks: int,
        chunks: int,
        # out
        partials: wp.array[float],  # [chunks, n_partials]
    ):
        """dW = sum over points d h^T, db = sum over points d; column n_in is db."""
        i = begin + wp.tid()
        column = i % (n_in + 1)
        groups = (n_out + wp.static(ROWS) - 1) / wp.static(ROWS)
        row = (i / (n_in + 1)) % groups * wp.static(ROWS)
        chunk = i / (n_in + 1) / groups
        last = n_out - 1
        first = int(wp.int64(n_blocks) * wp.int64(chunk) / wp.int64(chunks))
        end = int(wp.int64(n_blocks) * wp.int64(chunk + 1) / wp.int64(chunks))
        sums = wp.vec4(0.0, 0.0, 0.0, 0.0)
        for block in range(first, end):
            dd = (d_block + block) * n_out * 32
            hh = ((h_block + block) * n_in + wp.min(column, n_in - 1)) * 32
            for p in range(32):
                v = wp.where(column < n_in, h[hh + p], 1.0)
                sums += v * wp.vec4(
                    d[dd + row * 32 + p],
                    d[dd + wp.min(row + 1, last) * 32 + p],
                    d[dd + wp.min(row + 2, last) * 32 + p],
                    d[dd + wp.min(row + 3, last) * 32 + p],
                )
        stride = (n_in + 15) / 16 * 16
        base = chunk * n_out * (stride + 1)
        for q in range(wp.static(ROWS)):
            if row + q < n_out:
                o = wp.where(column < n_in, (row + q) * stride + column, n_out * stride + row + q)
                partials[base + o] = sums[q]

    return linear_weight_gradient_portable


@functools.cache
def reduce_kernel() -> wp.Kernel:
    """Return the kernel that adds the chunks' weight gradients in order."""

    @wp.kernel(module="unique", module_options=module_options())
    def linear_reduce_portable(
        begin: int,
        # in
        partials: wp.array[float],  # [chunks, n_partials]
        chunks: int,
        n_out: int,
        n_in: int,
        w_first: int,
        w_stride: int,
        bias_first: int,
        accumulate: int,
        # out
        gradient: wp.array[float],
    ):
        """gradient = sum of the partials over the chunks; column n_in is the bias."""
        i = begin + wp.tid()
        row = i / (n_in + 1)
        column = i % (n_in + 1)
        stride = (n_in + 15) / 16 * 16
        source = row * stride + column
        target = w_first + row * w_stride + column
        if column == n_in:
            source = n_out * stride + row
            target = bias_first + row
        if column < n_in or bias_first >= 0:
            total = float(0.0)
            if accumulate != 0:
                total = gradient[target]
            for c in range(chunks):
                total += partials[c * n_out * (stride + 1) + source]
            gradient[target] = total

    return linear_reduce_portable
