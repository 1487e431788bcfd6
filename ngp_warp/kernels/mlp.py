"""A multilayer perceptron on the CPU, all layers of 32 points at a time in the nearest caches.

Source: "fully fused" networks of Mueller et al. 2021 (Real-time Neural Radiance Caching), carried
over to vector registers. Differentiable in the weights and the inputs.
Twin: tests/reference/mlp.py. CUDA: kernels/mlp_cuda.py.

Per-point arrays are blocked: [n_blocks, n_rows, 32], a row being one feature of 32 points. Weights
are one flat array, layer after layer, each [n_out, n_in] row-major, without biases. A chunk of
blocks is one item of work; each chunk sums the weight gradients of its points in its own row of
``partials``, so that adding the rows in order gives the same bits for any number of threads.
"""

import functools
from dataclasses import dataclass
from itertools import pairwise

import warp as wp

from ngp_warp.kernels.loss import LOSSES
from ngp_warp.kernels.vector import MATH, SIGN, TRANSPOSE, TYPES
from ngp_warp.launch import module_options

BLOCK = 32
WEIGHTS_PER_ITEM = 128


@dataclass(frozen=True, kw_only=True)
class MlpShape:
    """What a network's kernels are compiled for."""

    n_in: int
    n_neurons: int
    n_hidden_layers: int
    n_out: int
    activation: str
    output_activation: str

    @property
    def layers(self) -> list[tuple[int, int]]:
        """[(n_out, n_in)] of every layer."""
        widths = [self.n_in] + [self.n_neurons] * self.n_hidden_layers + [self.n_out]
        return [(j, k) for k, j in pairwise(widths)]

    @property
    def n_params(self) -> int:
        """Number of weights."""
        return sum(j * k for j, k in self.layers)

    @property
    def n_partials(self) -> int:
        """Number of weight gradients of a chunk, rows padded to whole vectors."""
        return sum(j * padded(k) for j, k in self.layers)


def padded(n: int) -> int:
    """Return n rounded up to a whole vector of 16 floats."""
    return -(-n // 16) * 16


# value of z; derivative in terms of z, h = act(z). Definitions and K = 10 are tiny-cuda-nn's.
ACTIVATIONS = {
    "none": ("z", "(v16)(1.f)"),
    "relu": ("vmax(z, (v16)(0.f))", "h > 0.f ? (v16)(1.f) : (v16)(0.f)"),
    "leaky_relu": ("z > 0.f ? z : z * 0.01f", "h > 0.f ? (v16)(1.f) : (v16)(0.01f)"),
    "exponential": ("vexp(z)", "h"),
    "sine": ("vsin(z)", "vcos(z)"),
    "sigmoid": ("1.f / (1.f + vexp(-z))", "h * (1.f - h)"),
    # (z + sqrt(z^2 + 0.04)) / 2 without its overflow, nor its cancellation where z is negative
    "squareplus": (
        "vmax(z, (v16)(0.f)) + 0.02f / (vabs(z) + vsqrt(z * z + 0.04f))",
        "1.f / (1.f + 0.01f / (h * h))",
    ),
    # max(z, 0) + log(1 + exp(-|10 z|)) / 10 does not overflow
    "softplus": (
        "vmax(z, (v16)(0.f)) + vlog(1.f + vexp(vabs(z) * -10.f)) * 0.1f",
        "1.f - vexp(h * -10.f)",
    ),
    "tanh": ("2.f / (1.f + vexp(z * -2.f)) - 1.f", "1.f - h * h"),
}

_SQUAREPLUS_RATIO = "(h / (h * h + 0.01f))"  # goes to zero where h overflows
# second derivative in terms of z, h; the others have none almost everywhere
CURVATURES = {
    "exponential": "h",
    "sine": "-vsin(z)",
    "sigmoid": "h * (1.f - h) * (1.f - 2.f * h)",
    "squareplus": " * ".join(["0.02f"] + [_SQUAREPLUS_RATIO] * 3),
    "softplus": "vexp(h * -10.f) * (1.f - vexp(h * -10.f)) * 10.f",
    "tanh": "h * (h * h - 1.f) * 2.f",
}

# Register tiles: 8 outputs x 32 points fill half of AVX-512's registers and leave the FMA units
# no waiting for results; a machine with 16 (AVX2) or narrow registers takes 2 outputs.
LAYER = """
#if defined(__AVX512F__)
const int JT = 8;
#else
const int JT = 2;
#endif
auto tile = [&](const float* w, int so, int si, int K, const v16 (*in)[2], int n, v16 (*out)[2])
    __attribute__((always_inline)) {
    v16 a[8][2];
    #pragma unroll
    for (int q = 0; q < n; ++q) a[q][0] = a[q][1] = (v16)(0.f);
    for (int k = 0; k < K; ++k) {
        v16 x0 = in[k][0], x1 = in[k][1];
        #pragma unroll
        for (int q = 0; q < n; ++q) {
            float ww = w[q * so + k * si];
            a[q][0] += x0 * ww;
            a[q][1] += x1 * ww;
        }
    }
    #pragma unroll
    for (int q = 0; q < n; ++q) { out[q][0] = a[q][0]; out[q][1] = a[q][1]; }
};
// out[j] = sum over k of w[j * so + k * si] in[k]
auto dense = [&](const float* w, int so, int si, int K, const v16 (*in)[2], int J, v16 (*out)[2])
    __attribute__((always_inline)) {
    int j = 0;
    #pragma clang loop unroll(disable)
    for (; j + JT <= J; j += JT) tile(w + j * so, so, si, K, in, JT, out + j);
    if (J % JT) tile(w + j * so, so, si, K, in, J % JT, out + j);
};
"""

WEIGHT_GRADIENT = """
v16 hT[32][MAXV];
// g[j][k] += sum over points of d[j] h[k]; the points lie along h's rows only once it is transposed
auto flip = [&](const v16 (*h)[2], int K) __attribute__((always_inline)) {
    for (int k = 0; k < K; k += 16) for (int v = 0; v < 2; ++v) {
        v16 t[16];
        #pragma unroll
        for (int i = 0; i < 16; ++i) t[i] = k + i < K ? h[k + i][v] : (v16)(0.f);
        transpose16(t);
        #pragma unroll
        for (int i = 0; i < 16; ++i) hT[16 * v + i][k / 16] = t[i];
    }
};
auto gtile = [&](int n, int m, int KV, const float* d, int v0, v16* g)
    __attribute__((always_inline)) {
    v16 a[8][4];
    #pragma unroll
    for (int q = 0; q < n; ++q)
        #pragma unroll
        for (int v = 0; v < m; ++v) a[q][v] = g[q * KV + v];
    for (int p = 0; p < 32; ++p)
        #pragma unroll
        for (int q = 0; q < n; ++q) {
            float dd = d[q * 32 + p];
            #pragma unroll
            for (int v = 0; v < m; ++v) a[q][v] += hT[p][v0 + v] * dd;
        }
    #pragma unroll
    for (int q = 0; q < n; ++q)
        #pragma unroll
        for (int v = 0; v < m; ++v) g[q * KV + v] = a[q][v];
};
auto wgrad = [&](int J, const v16 (*d)[2], int K, const v16 (*h)[2], v16* g)
    __attribute__((always_inline)) {
    const int KV = (K + 15) / 16, m = KV % 4 == 0 ? 4 : KV % 2 == 0 ? 2 : 1, n = m == 4 ? 4 : 8;
    flip(h, K);
    for (int v = 0; v < KV; v += m) {
        int j = 0;
        #pragma clang loop unroll(disable)
        for (; j + n <= J; j += n) gtile(n, m, KV, (const float*)(d + j), v, g + j * KV + v);
        if (J % n) gtile(J % n, m, KV, (const float*)(d + j), v, g + j * KV + v);
    }
};
"""


def apply_text(expression: str, name: str, n: int, target: str, sources: str) -> str:
    """Return a loop that sets ``target`` to an expression of z, h, ... for n rows."""
    if name == "none":
        return ""
    return f"""
    for (int j = 0; j < {n}; ++j) for (int v = 0; v < 2; ++v) {{
        {sources} {target}[j][v] = {expression};
    }}"""


def forward_text(shape: MlpShape, keep_z: bool) -> str:
    """Return the text of the forward pass: inputs h0, activations h1, ..., outputs the last."""
    text = []
    offset = 0
    last = len(shape.layers) - 1
    for i, (j, k) in enumerate(shape.layers):
        name = shape.output_activation if i == last else shape.activation
        text.append(f"dense(w.data + {offset}, {k}, 1, {k}, h{i}, {j}, h{i + 1});")
        keep = f"z{i + 1}[j][v] = z;" if keep_z and name == "sine" else ""
        text.append(
            apply_text(
                ACTIVATIONS[name][0], name, j, f"h{i + 1}", f"v16 z = h{i + 1}[j][v]; {keep}"
            )
        )
        offset += j * k
    return "\n".join(text)


def _backward_text(shape: MlpShape) -> str:
    """Return the text from d (gradient of the outputs) to dx and the chunk's weight gradients."""
    text = []
    offset, partial = shape.n_params, shape.n_partials
    last = len(shape.layers) - 1
    for i in reversed(range(last + 1)):
        j, k = shape.layers[i]
        name = shape.output_activation if i == last else shape.activation
        source = f"v16 h = h{i + 1}[j][v]; " + (
            f"v16 z = z{i + 1}[j][v];" if name == "sine" else ""
        )
        text.append(
            apply_text(f"d[j][v] * ({ACTIVATIONS[name][1]})", name, j, "d", f"{source} (void)h;")
        )
        offset, partial = offset - j * k, partial - j * padded(k)
        text.append(f"wgrad({j}, d, {k}, h{i}, g + {partial // 16});")
        text.append(f"dense(w.data + {offset}, 1, {k}, {j}, d, {k}, {'e' if i else 'dx_block'});")
        if i:
            text.append(
                f"for (int j = 0; j < {k}; ++j) {{ d[j][0] = e[j][0]; d[j][1] = e[j][1]; }}"
            )
    return "\n".join(text)


def _declare(shape: MlpShape, train: bool) -> str:
    """Return the declarations of every layer's activations."""
    widest = max(max(j, padded(k)) for j, k in shape.layers)
    lines = [f"v16 h{i + 1}[{j}][2];" for i, (j, _) in enumerate(shape.layers)]
    if train:
        lines += [f"v16 d[{widest}][2], e[{widest}][2];", f"const int MAXV = {widest // 16};"]
        names = [shape.activation] * shape.n_hidden_layers + [shape.output_activation]
        lines += [
            f"v16 z{i + 1}[{shape.layers[i][0]}][2];" for i, n in enumerate(names) if n == "sine"
        ]
    return "\n".join(lines)


def block_loop(shape: MlpShape, body: str) -> str:
    """Return the loop over a chunk's blocks with the inputs h0 of each."""
    return f"""
const int first = chunk * blocks_per_chunk;
const int end = first + blocks_per_chunk < n_blocks ? first + blocks_per_chunk : n_blocks;
for (int block = first; block < end; ++block) {{
    const v16 (*h0)[2] = (const v16 (*)[2])(x.data + (size_t)block * {shape.n_in * BLOCK});
    {body}
}}
"""


@functools.cache
def forward_kernel(shape: MlpShape) -> wp.Kernel:
    """Return the kernel y = network(x) for chunks of blocks."""
    body = (
        forward_text(shape, keep_z=False)
        + f"""
    __builtin_memcpy(y.data + (size_t)block * {shape.n_out * BLOCK}, h{len(shape.layers)},
                     {shape.n_out * BLOCK * 4});"""
    )
    text = TYPES + MATH + LAYER + _declare(shape, train=False) + block_loop(shape, body)

    @wp.func_native(text)
    def forward_chunk(
        w: wp.array[float],
        x: wp.array[float],
        n_blocks: int,
        blocks_per_chunk: int,
        chunk: int,
        y: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def mlp_forward(
        begin: int,
        # in
        w: wp.array[float],  # [n_params]
        x: wp.array[float],  # [n_blocks, n_in, 32]
        n_blocks: int,
        blocks_per_chunk: int,
        # out
        y: wp.array[float],  # [n_blocks, n_out, 32]
    ):
        """y = W_n act(... act(W_1 x))."""
        forward_chunk(w, x, n_blocks, blocks_per_chunk, begin + wp.tid(), y)

    return mlp_forward


ZERO_PARTIALS = """
v16* g = (v16*)(partials.data + (size_t)chunk * {n});
for (int i = 0; i < {n} / 16; ++i) g[i] = (v16)(0.f);
"""


@functools.cache
def backward_kernel(shape: MlpShape) -> wp.Kernel:
    """Return the kernel from the outputs' gradients to the inputs' and the weights'."""
    body = (
        forward_text(shape, keep_z=True)
        + f"""
    __builtin_memcpy(d, dy.data + (size_t)block * {shape.n_out * BLOCK}, {shape.n_out * BLOCK * 4});
    v16 (*dx_block)[2] = (v16 (*)[2])(dx.data + (size_t)block * {shape.n_in * BLOCK});
    """
        + _backward_text(shape)
    )
    text = (
        TYPES
        + TRANSPOSE
        + MATH
        + LAYER
        + _declare(shape, train=True)
        + WEIGHT_GRADIENT
        + ZERO_PARTIALS.format(n=shape.n_partials)
        + block_loop(shape, body)
    )

    @wp.func_native(text)
    def backward_chunk(
        w: wp.array[float],
        x: wp.array[float],
        dy: wp.array[float],
        n_blocks: int,
        blocks_per_chunk: int,
        chunk: int,
        dx: wp.array[float],
        partials: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def mlp_backward(
        begin: int,
        # in
        w: wp.array[float],  # [n_params]
        x: wp.array[float],  # [n_blocks, n_in, 32]
        dy: wp.array[float],  # [n_blocks, n_out, 32]; zero in the last block's padding
        n_blocks: int,
        blocks_per_chunk: int,
        # out
        dx: wp.array[float],  # [n_blocks, n_in, 32]
        partials: wp.array[float],  # [n_chunks, n_partials]
    ):
        """dW = sum over points dz h^T, dh = W^T dz; the forward pass is computed again."""
        backward_chunk(w, x, dy, n_blocks, blocks_per_chunk, begin + wp.tid(), dx, partials)

    return mlp_backward


@functools.cache
def train_kernel(shape: MlpShape, loss: str) -> wp.Kernel:
    """Return the kernel of forward pass, loss and backward pass in one sweep."""
    value, gradient = LOSSES[loss]
    body = (
        forward_text(shape, keep_z=True)
        + f"""
    const v16 (*target)[2] = (const v16 (*)[2])(t_.data + (size_t)block * {shape.n_out * BLOCK});
    for (int v = 0; v < 2; ++v) {{
        i16 inside = LANES + (block * 32 + v * 16) < n_points;
        for (int j = 0; j < {shape.n_out}; ++j) {{
            v16 p = h{len(shape.layers)}[j][v], t = target[j][v], d_ = p - t;
            auto f = [&](v16 d) __attribute__((always_inline)) {{ return {value}; }};
            auto df = [&](v16 d) __attribute__((always_inline)) {{ return {gradient}; }};
            sum += inside ? f(d_) : (v16)(0.f);
            squares += inside ? d_ * d_ : (v16)(0.f);
            d[j][v] = inside ? df(d_) * scale : (v16)(0.f);
        }}
    }}
    v16 (*dx_block)[2] = (v16 (*)[2])(dx.data + (size_t)block * {shape.n_in * BLOCK});
    """
        + _backward_text(shape)
    )
    begin_text = (
        SIGN
        + """
    const i16 LANES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    v16 sum = (v16)(0.f), squares = (v16)(0.f);
    """
    )
    text = (
        TYPES
        + TRANSPOSE
        + MATH
        + LAYER
        + _declare(shape, train=True)
        + WEIGHT_GRADIENT
        + begin_text
        + ZERO_PARTIALS.format(n=shape.n_partials)
        + block_loop(shape, body)
        + """
        float total = 0.f, total_squares = 0.f;
        for (int i = 0; i < 16; ++i) { total += sum[i]; total_squares += squares[i]; }
        losses.data[2 * chunk] = total; losses.data[2 * chunk + 1] = total_squares;
        """
    )

    @wp.func_native(text)
    def train_chunk(
        w: wp.array[float],
        x: wp.array[float],
        t_: wp.array[float],
        n_points: int,
        scale: float,
        n_blocks: int,
        blocks_per_chunk: int,
        chunk: int,
        dx: wp.array[float],
        partials: wp.array[float],
        losses: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def mlp_train(
        begin: int,
        # in
        w: wp.array[float],  # [n_params]
        x: wp.array[float],  # [n_blocks, n_in, 32]
        t: wp.array[float],  # [n_blocks, n_out, 32]
        n_points: int,
        scale: float,  # of the gradient: 1 / (n_points * n_out) for a mean
        n_blocks: int,
        blocks_per_chunk: int,
        # out
        dx: wp.array[float],  # [n_blocks, n_in, 32]
        partials: wp.array[float],  # [n_chunks, n_partials]
        losses: wp.array[float],  # [n_chunks, 2], sums of the loss and of the squared error
    ):
        """Loss of network(x) against t, and its gradients."""
        train_chunk(
            w,
            x,
            t,
            n_points,
            scale,
            n_blocks,
            blocks_per_chunk,
            begin + wp.tid(),
            dx,
            partials,
            losses,
        )

    return mlp_train


@functools.cache
def reduce_kernel(shape: MlpShape) -> wp.Kernel:
    """Return the kernel that adds the chunks' weight gradients in order."""
    n_out, n_in = shape.layers[0]
    text = f"""
const int first = item * {WEIGHTS_PER_ITEM};
const int n = {shape.n_params};
const int end = first + {WEIGHTS_PER_ITEM} < n ? first + {WEIGHTS_PER_ITEM} : n;
for (int i = first; i < end; ++i) {{
    // only the first layer's rows can be padded: the other layers' inputs are whole vectors
    const int j = i < {n_out * n_in} ? i / {n_in} * {padded(n_in)} + i % {n_in}
                                     : i + {n_out * (padded(n_in) - n_in)};
    float sum = 0.f;
    for (int c = 0; c < n_chunks; ++c) sum += partials.data[(size_t)c * {shape.n_partials} + j];
    gradient.data[i] = sum;
}}
"""

    @wp.func_native(text)
    def reduce_item(
        partials: wp.array[float], n_chunks: int, item: int, gradient: wp.array[float]
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def mlp_reduce(
        begin: int,
        # in
        partials: wp.array[float],  # [n_chunks, n_partials]
        n_chunks: int,
        # out
        gradient: wp.array[float],  # [n_params]
    ):
        """gradient = sum of the partials over the chunks."""
        reduce_item(partials, n_chunks, begin + wp.tid(), gradient)

    return mlp_reduce
