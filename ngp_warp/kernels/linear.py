"""One layer of a multilayer perceptron on the CPU, with sizes given at run time.

y = act(W x + b), its adjoints, and the weight gradient. Differentiable in x, W and b. Twin:
tests/reference/mlp.py. CUDA: kernels/linear_portable.py, with the same arguments.

Per-point arrays are blocked [n_blocks, n_rows, 32]. A layer's input may come in two parts (a skip
connection): each part is a call with its own columns of W, the second one adding to the first.
"""

import functools

import warp as wp

from ngp_warp.kernels.mlp import ACTIVATIONS, padded
from ngp_warp.kernels.vector import MATH, TRANSPOSE, TYPES
from ngp_warp.launch import module_options

# Rows and columns of a weight gradient that one sweep over the points keeps in the first cache
_ROWS, _COLUMNS = 64, 64
# Fewer points would not pay for adding up a chunk's weight gradient
_CHUNK_BLOCKS = 16
_WANTED_ITEMS = 64
# Floats of the activations of all layers that are kept at a time: they stay in the outer cache
SLICE_FLOATS = 2**23


def layer_items(n_blocks: int, n_out: int) -> int:
    """Return the number of items of ``layer_kernel``."""
    return n_blocks


def slope_items(n_blocks: int, n_rows: int) -> int:
    """Return the number of items of ``slope_kernel``."""
    return n_blocks


def n_chunks(n_blocks: int, n_out: int, n_in: int) -> int:
    """Return the parts of the points whose weight gradients are summed side by side."""
    row_tiles = -(-n_out // _ROWS)
    return max(1, min(n_blocks // _CHUNK_BLOCKS, -(-_WANTED_ITEMS // row_tiles)))


def n_partials(n_out: int, n_in: int) -> int:
    """Return the floats of a chunk's weight gradient: padded rows, then the biases."""
    return n_out * (padded(n_in) + 1)


def weight_gradient_items(chunks: int, n_out: int, n_in: int) -> int:
    """Return the number of items of ``weight_gradient_kernel``."""
    return chunks * -(-n_out // _ROWS)


def reduce_items(n_out: int, n_in: int) -> int:
    """Return the number of items of ``reduce_kernel``."""
    return n_out


# Register tiles as in kernels/mlp.py. The weights' strides so and si choose W or its transpose.
_TILE = """
#if defined(__AVX512F__)
const int JT = 8;
#else
const int JT = 2;
#endif
const v16 (*X)[2] = (const v16 (*)[2])(x.data + (size_t)(x_block + item) * n_in * 32);
v16 (*Y)[2] = (v16 (*)[2])(y.data + (size_t)(y_block + item) * n_out * 32);
auto tile = [&](const int n, int j) __attribute__((always_inline)) {
    v16 a[8][2];
    #pragma unroll
    for (int q = 0; q < n; ++q) {
        const float b = bias_first < 0 ? 0.f : w.data[bias_first + j + q];
        a[q][0] = accumulate ? Y[j + q][0] : (v16)(b);
        a[q][1] = accumulate ? Y[j + q][1] : (v16)(b);
    }
    const float* W = w.data + w_first + (size_t)j * so;
    for (int k = 0; k < n_in; ++k) {
        const v16 x0 = X[k][0], x1 = X[k][1];
        #pragma unroll
        for (int q = 0; q < n; ++q) {
            const float ww = W[(size_t)q * so + (size_t)k * si];
            a[q][0] += x0 * ww;
            a[q][1] += x1 * ww;
        }
    }
    #pragma unroll
    for (int q = 0; q < n; ++q) { Y[j + q][0] = a[q][0]; Y[j + q][1] = a[q][1]; }
};
int j = 0;
#pragma clang loop unroll(disable)
for (; j + JT <= n_out; j += JT) tile(JT, j);
if (j + 4 <= n_out) { tile(4, j); j += 4; }
#pragma clang loop unroll(disable)
for (; j + 2 <= n_out; j += 2) tile(2, j);
if (j < n_out) tile(1, j);
"""


def _epilogue(activation: str, derivative: bool) -> str:
    """Return the text that turns y into act(y), or into y act'(h)."""
    value, slope = ACTIVATIONS[activation]
    if activation == "none":
        return ""
    offset = "(size_t)(h_block + item) * n_out * 32"
    if derivative:
        return f"""
    const v16 (*H)[2] = (const v16 (*)[2])(h_.data + {offset});
    for (int j = 0; j < n_out; ++j) for (int v = 0; v < 2; ++v) {{
        const v16 h = H[j][v], z = h; (void)h; (void)z;
        Y[j][v] = Y[j][v] * ({slope});
    }}"""
    keep = "Z[j][v] = z;" if activation == "sine" else "(void)Z;"
    return f"""
    v16 (*Z)[2] = (v16 (*)[2])(h_.data + {offset});
    for (int j = 0; j < n_out; ++j) for (int v = 0; v < 2; ++v) {{
        const v16 z = Y[j][v]; {keep}
        Y[j][v] = {value};
    }}"""


@functools.cache
def layer_kernel(activation: str, derivative: bool) -> wp.Kernel:
    """Return the kernel of a layer, or of its adjoint times a derivative, for a block."""
    text = TYPES + MATH + _TILE + _epilogue(activation, derivative)

    @wp.func_native(text)
    def layer_block(
        w: wp.array[float],
        w_first: int,
        so: int,
        si: int,
        bias_first: int,
        accumulate: int,
        x: wp.array[float],
        x_block: int,
        n_in: int,
        n_out: int,
        h_: wp.array[float],
        h_block: int,
        item: int,
        y: wp.array[float],
        y_block: int,
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def linear_layer(
        begin: int,
        # in
        w: wp.array[float],
        w_first: int,  # where W (or its part) starts
        so: int,  # from one output's weights to the next
        si: int,  # from one input's weight to the next
        bias_first: int,  # where the biases start; -1: none
        accumulate: int,  # add to what y holds
        x: wp.array[float],  # [.., n_in, 32]
        x_block: int,  # x's first block
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
        layer_block(
            w,
            w_first,
            so,
            si,
            bias_first,
            accumulate,
            x,
            x_block,
            n_in,
            n_out,
            h,
            h_block,
            begin + wp.tid(),
            y,
            y_block,
        )

    return linear_layer


@functools.cache
def slope_kernel(activation: str) -> wp.Kernel:
    """Return the kernel d = dy act'(h), for a block."""
    slope = ACTIVATIONS[activation][1]
    text = f"""{TYPES}{MATH}
const v16* G = (const v16*)(dy.data + (size_t)(y_block + item) * n_rows * 32);
const v16* H = (const v16*)(h_.data + (size_t)(h_block + item) * n_rows * 32);
v16* D = (v16*)(d.data + (size_t)item * n_rows * 32);
for (int i = 0; i < 2 * n_rows; ++i) {{
    const v16 h = H[i], z = h; (void)h; (void)z;
    D[i] = G[i] * ({slope});
}}
"""

    @wp.func_native(text)
    def slope_block(
        dy: wp.array[float],
        y_block: int,
        h_: wp.array[float],
        h_block: int,
        n_rows: int,
        item: int,
        d: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def linear_slope(
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
        slope_block(dy, y_block, h, h_block, n_rows, begin + wp.tid(), d)

    return linear_slope


# g[q][v] += sum over a block's points of d[q] h[v]: h is transposed, so that a vector is 16 columns
_GRADIENT_TILE = """
v16 hT[32][4];
auto gtile = [&](const int n, const int m, const float* D, v16* G, int stride)
    __attribute__((always_inline)) {
    v16 a[8][4];
    #pragma unroll
    for (int q = 0; q < n; ++q)
        #pragma unroll
        for (int v = 0; v < m; ++v) a[q][v] = G[q * stride + v];
    for (int p = 0; p < 32; ++p)
        #pragma unroll
        for (int q = 0; q < n; ++q) {
            const float dd = D[q * 32 + p];
            #pragma unroll
            for (int v = 0; v < m; ++v) a[q][v] += hT[p][v] * dd;
        }
    #pragma unroll
    for (int q = 0; q < n; ++q)
        #pragma unroll
        for (int v = 0; v < m; ++v) G[q * stride + v] = a[q][v];
};
auto sweep = [&](const int m, const float* D, int rows, v16* G, int stride)
    __attribute__((always_inline)) {
    const int n = m == 4 ? 4 : 8;
    int j = 0;
    #pragma clang loop unroll(disable)
    for (; j + n <= rows; j += n) gtile(n, m, D + j * 32, G + (size_t)j * stride, stride);
    #pragma clang loop unroll(disable)
    for (; j < rows; ++j) gtile(1, m, D + j * 32, G + (size_t)j * stride, stride);
};
"""

_WEIGHT_GRADIENT = f"""{TYPES}{TRANSPOSE}{_GRADIENT_TILE}
const int row_tiles = (n_out + {_ROWS - 1}) / {_ROWS}, chunk = item / row_tiles;
const int row = item % row_tiles * {_ROWS};
const int rows = row + {_ROWS} < n_out ? {_ROWS} : n_out - row;
const int first = (int)((long long)n_blocks * chunk / chunks);
const int end = (int)((long long)n_blocks * (chunk + 1) / chunks);
const int stride = (n_in + 15) / 16;
float* part = partials.data + (size_t)chunk * n_out * (stride * 16 + 1);
v16* G = (v16*)part + (size_t)row * stride;
for (int i = 0; i < rows * stride; ++i) G[i] = (v16)(0.f);
for (int k = 0; k < n_in; k += {_COLUMNS}) {{
    const int m = stride - k / 16 < 4 ? stride - k / 16 : 4;
    for (int block = first; block < end; ++block) {{
        const v16 (*H)[2] = (const v16 (*)[2])(h_.data + (size_t)(h_block + block) * n_in * 32);
        const float* D = d.data + ((size_t)(d_block + block) * n_out + row) * 32;
        for (int u = 0; u < m; ++u) for (int v = 0; v < 2; ++v) {{
            v16 t[16];
            const int left = n_in - k - u * 16;
            #pragma unroll
            for (int i = 0; i < 16; ++i) t[i] = i < left ? H[k + u * 16 + i][v] : (v16)(0.f);
            transpose16(t);
            #pragma unroll
            for (int i = 0; i < 16; ++i) hT[16 * v + i][u] = t[i];
        }}
        v16* g = G + k / 16;
        if (m == 4) sweep(4, D, rows, g, stride);
        else if (m == 3) sweep(3, D, rows, g, stride);
        else if (m == 2) sweep(2, D, rows, g, stride);
        else sweep(1, D, rows, g, stride);
    }}
}}
for (int j = 0; j < rows; ++j) {{
    v16 sum = (v16)(0.f);
    for (int block = first; block < end; ++block) {{
        const v16* D = (const v16*)(d.data + ((size_t)(d_block + block) * n_out + row + j) * 32);
        sum += D[0] + D[1];
    }}
    float total = 0.f;
    for (int i = 0; i < 16; ++i) total += sum[i];
    part[(size_t)n_out * stride * 16 + row + j] = total;
}}
"""


@functools.cache
def weight_gradient_kernel() -> wp.Kernel:
    """Return the kernel of the chunks' weight gradients, for (chunk, 64 rows)."""

    @wp.func_native(_WEIGHT_GRADIENT)
    def weight_gradient_tile(
        d: wp.array[float],
        d_block: int,
        n_out: int,
        h_: wp.array[float],
        h_block: int,
        n_in: int,
        n_blocks: int,
        chunks: int,
        item: int,
        partials: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def linear_weight_gradient(
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
        """dW = sum over points d h^T, db = sum over points d."""
        weight_gradient_tile(
            d, d_block, n_out, h, h_block, n_in, n_blocks, chunks, begin + wp.tid(), partials
        )

    return linear_weight_gradient


_REDUCE = """
const int stride = (n_in + 15) / 16 * 16;
const size_t size = (size_t)n_out * (stride + 1);
float* G = gradient.data + w_first + (size_t)item * w_stride;
if (!accumulate) for (int k = 0; k < n_in; ++k) G[k] = 0.f;
for (int c = 0; c < chunks; ++c) {
    const float* P = partials.data + c * size + (size_t)item * stride;
    for (int k = 0; k < n_in; ++k) G[k] += P[k];
}
if (bias_first >= 0) {
    float sum = accumulate ? gradient.data[bias_first + item] : 0.f;
    for (int c = 0; c < chunks; ++c)
        sum += partials.data[c * size + (size_t)n_out * stride + item];
    gradient.data[bias_first + item] = sum;
}
"""


@functools.cache
def reduce_kernel() -> wp.Kernel:
    """Return the kernel that adds the chunks' weight gradients in order, for a row."""

    @wp.func_native(_REDUCE)
    def reduce_row(
        partials: wp.array[float],
        chunks: int,
        n_out: int,
        n_in: int,
        w_first: int,
        w_stride: int,
        bias_first: int,
        accumulate: int,
        item: int,
        gradient: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def linear_reduce(
        begin: int,
        # in
        partials: wp.array[float],  # [chunks, n_partials]
        chunks: int,
        n_out: int,
        n_in: int,
        w_first: int,
        w_stride: int,
        bias_first: int,  # -1: none
        accumulate: int,  # add to what the gradient holds
        # out
        gradient: wp.array[float],
    ):
        """gradient = sum of the partials over the chunks."""
        reduce_row(
            partials,
            chunks,
            n_out,
            n_in,
            w_first,
            w_stride,
            bias_first,
            accumulate,
            begin + wp.tid(),
            gradient,
        )

    return linear_reduce
