"""A training pass with the eikonal term on the CPU, forward to weight gradients in one sweep.

With h_i = act(z_i), z_i = W_i h_(i-1), features h_0 = y and their Jacobian J = dy/dx in the
positions, the loss is L = loss(f) + w (|g| - 1)^2 of f = h_n and g = J^T q_0. Per block of points:

    q_n = 1,  e_i = act'(z_i) q_i,  q_(i-1) = W_i^T e_i         the slope, by the backward pass of f
    v = dL/dg,  t_0 = J v                                       the term (kernels/eikonal.py)
    u_i = W_i t_(i-1),  t_i = act'(z_i) u_i                     the tangent along t_0
    p_n = dL/df,  d_i = act'(z_i) p_i + act''(z_i) u_i q_i,  p_(i-1) = W_i^T d_i
    dL/dW_i = sum over points d_i h_(i-1)^T + e_i t_(i-1)^T
    dL/dy = p_0 with J held, dL/dJ = q_0 v^T

since <t_0, q_0> is f's derivative along t_0, whose adjoints in u_i are the e_i. Without curvature
d_i = (dL/df) e_i, so that one product e_i (dL/df h_(i-1) + t_(i-1))^T is both.
Differentiable in the weights, the features and the Jacobian. Layout, tiles and sums as in
kernels/mlp.py. Twin: tests/reference/eikonal.py. CUDA and other networks: kernels/eikonal.py.
"""

import functools

import warp as wp

from ngp_warp.kernels.eikonal import eikonal_text
from ngp_warp.kernels.loss import LOSSES
from ngp_warp.kernels.mlp import (
    ACTIVATIONS,
    BLOCK,
    CURVATURES,
    LAYER,
    WEIGHT_GRADIENT,
    ZERO_PARTIALS,
    MlpShape,
    block_loop,
    forward_text,
    padded,
)
from ngp_warp.kernels.vector import MATH, SIGN, TRANSPOSE, TYPES
from ngp_warp.launch import module_options


def _names(shape: MlpShape) -> list[str]:
    """Return the layers' activations."""
    return [shape.activation] * shape.n_hidden_layers + [shape.output_activation]


def _is_curved(shape: MlpShape) -> bool:
    return any(name in CURVATURES for name in _names(shape))


def _declare(shape: MlpShape) -> str:
    """Return the declarations of what a block keeps of every layer."""
    widest = max(max(j, padded(k)) for j, k in shape.layers)
    lines = [f"const int MAXV = {widest // 16};", f"v16 t0[{shape.n_in}][2], m[{widest}][2];"]
    for i, ((j, _), name) in enumerate(zip(shape.layers, _names(shape), strict=True), 1):
        kept = ["h", "e", "t"] + ["z"] * (name == "sine") + ["r"] * (name in CURVATURES)
        lines.append(f"v16 {', '.join(f'{k}{i}[{j}][2]' for k in kept)};")
    if _is_curved(shape):
        lines.append(f"v16 d[{widest}][2];")
    return "\n".join(lines)


def _rows(shape: MlpShape, layer: int, text: str) -> str:
    """Return a loop over a layer's sums, with ``slope`` and ``curvature`` of its activation."""
    n_out, name = shape.layers[layer - 1][0], _names(shape)[layer - 1]
    z = f"z{layer}[j][v]" if name == "sine" else "h"
    return f"""
    for (int j = 0; j < {n_out}; ++j) for (int v = 0; v < 2; ++v) {{
        const v16 h = h{layer}[j][v], z = {z}; (void)h; (void)z;
        const v16 slope = {ACTIVATIONS[name][1]}; (void)slope;
        const v16 curvature = {CURVATURES.get(name, "(v16)(0.f)")}; (void)curvature;
        {text}
    }}"""


def _weights(shape: MlpShape, layer: int) -> str:
    """Return the text of a layer's weights."""
    return f"w.data + {sum(j * k for j, k in shape.layers[: layer - 1])}"


def _slope_text(shape: MlpShape) -> str:
    """Return the text that sets e_i, act'' q_i in r_i, and q_0."""
    text = []
    for i in range(len(shape.layers), 0, -1):
        n_out, n_in = shape.layers[i - 1]
        q = "(v16)(1.f)" if i == len(shape.layers) else f"e{i}[j][v]"
        keep = f"r{i}[j][v] = q * curvature;" if _names(shape)[i - 1] in CURVATURES else ""
        text.append(_rows(shape, i, f"const v16 q = {q}; {keep} e{i}[j][v] = q * slope;"))
        out = f"e{i - 1}" if i > 1 else "q0"
        text.append(f"dense({_weights(shape, i)}, 1, {n_in}, {n_out}, e{i}, {n_in}, {out});")
    return "\n".join(text)


def _term_text(shape: MlpShape, n_dims: int, loss: str) -> str:
    """Return the text of the term (v, t0, residual) and of the loss (its gradient in c)."""
    value, gradient = LOSSES[loss]
    last = len(shape.layers)
    return f"""
    const int n_in = {shape.n_in};
    v16 c[2];
    for (int v = 0; v < 2; ++v) {{
        const i16 inside = LANES + (block * 32 + v * 16) < n_points;
        const float* J = jacobian.data + (size_t)block * {n_dims * shape.n_in * BLOCK} + v * 16;
        const float* Q = (const float*)q0 + v * 16;
        float* V = v_.data + (size_t)block * {n_dims * BLOCK} + v * 16;
        float* T = (float*)t0 + v * 16;
        {{
            const float scale = term_scale;
            {eikonal_text(n_dims)}
            residuals_ += residual;
        }}
        const v16 p = h{last}[0][v];
        const v16 t = *(const v16*)(t_.data + (size_t)block * {BLOCK} + v * 16), d_ = p - t;
        auto f = [&](v16 d) __attribute__((always_inline)) {{ return {value}; }};
        auto df = [&](v16 d) __attribute__((always_inline)) {{ return {gradient}; }};
        sum += inside ? f(d_) : (v16)(0.f);
        squares += inside ? d_ * d_ : (v16)(0.f);
        c[v] = inside ? df(d_) * scale : (v16)(0.f);
    }}"""


def _tangent_text(shape: MlpShape) -> str:
    """Return the text that sets t_i and r_i = act'' u_i q_i."""
    text = []
    for i, (n_out, n_in) in enumerate(shape.layers, 1):
        curved = _names(shape)[i - 1] in CURVATURES
        if i == len(shape.layers) and not curved:
            continue
        text.append(f"dense({_weights(shape, i)}, {n_in}, 1, {n_in}, t{i - 1}, {n_out}, t{i});")
        keep = f"r{i}[j][v] *= t{i}[j][v];" if curved else ""
        text.append(_rows(shape, i, f"{keep} t{i}[j][v] *= slope;"))
    return "\n".join(text)


def _partials(shape: MlpShape, layer: int) -> str:
    return f"g + {sum(j * padded(k) for j, k in shape.layers[: layer - 1]) // 16}"


def _straight_text(shape: MlpShape) -> str:
    """Return the text from c, e_i, h_i and t_i to the gradients, without curvature."""
    text = []
    for i, (n_out, n_in) in enumerate(shape.layers, 1):
        text.append(f"""
        for (int k = 0; k < {n_in}; ++k) for (int v = 0; v < 2; ++v)
            m[k][v] = h{i - 1}[k][v] * c[v] + t{i - 1}[k][v];
        wgrad({n_out}, e{i}, {n_in}, m, {_partials(shape, i)});""")
    text.append(
        f"for (int k = 0; k < {shape.n_in}; ++k) for (int v = 0; v < 2; ++v) "
        "dx_block[k][v] = q0[k][v] * c[v];"
    )
    return "\n".join(text)


def _curved_text(shape: MlpShape) -> str:
    """Return the text from c, e_i, h_i, t_i and r_i to the gradients."""
    text = ["m[0][0] = c[0]; m[0][1] = c[1];"]
    for i in range(len(shape.layers), 0, -1):
        n_out, n_in = shape.layers[i - 1]
        bend = f" + r{i}[j][v]" if _names(shape)[i - 1] in CURVATURES else ""
        text.append(_rows(shape, i, f"d[j][v] = m[j][v] * slope{bend};"))
        text.append(f"wgrad({n_out}, d, {n_in}, h{i - 1}, {_partials(shape, i)});")
        text.append(f"wgrad({n_out}, e{i}, {n_in}, t{i - 1}, {_partials(shape, i)});")
        out = "m" if i > 1 else "dx_block"
        text.append(f"dense({_weights(shape, i)}, 1, {n_in}, {n_out}, d, {n_in}, {out});")
    return "\n".join(text)


def _chunk_text(shape: MlpShape, n_dims: int, loss: str) -> str:
    """Return the text of a chunk of blocks."""
    n_x = shape.n_in * BLOCK
    body = "\n".join(
        [
            forward_text(shape, keep_z=True),
            f"v16 (*q0)[2] = (v16 (*)[2])(q_.data + (size_t)block * {n_x});",
            f"v16 (*dx_block)[2] = (v16 (*)[2])(dx.data + (size_t)block * {n_x});",
            _slope_text(shape),
            _term_text(shape, n_dims, loss),
            _tangent_text(shape),
            _curved_text(shape) if _is_curved(shape) else _straight_text(shape),
        ]
    )
    return "".join(
        [
            TYPES, TRANSPOSE, MATH, LAYER, _declare(shape), WEIGHT_GRADIENT, SIGN,
            "const i16 LANES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};",
            "v16 sum = (v16)(0.f), squares = (v16)(0.f), residuals_ = (v16)(0.f);",
            ZERO_PARTIALS.format(n=shape.n_partials),
            block_loop(shape, body),
            """
            float totals[3] = {0.f, 0.f, 0.f};
            for (int i = 0; i < 16; ++i) {
                totals[0] += sum[i]; totals[1] += squares[i]; totals[2] += residuals_[i];
            }
            losses.data[2 * chunk] = totals[0]; losses.data[2 * chunk + 1] = totals[1];
            residuals.data[chunk] = totals[2];
            """,
        ]
    )  # fmt: skip


@functools.cache
def train_kernel(shape: MlpShape, n_dims: int, loss: str) -> wp.Kernel:
    """Return the kernel of loss and term with all their gradients, for chunks of blocks."""

    @wp.func_native(_chunk_text(shape, n_dims, loss))
    def train_chunk(
        w: wp.array[float],
        x: wp.array[float],
        jacobian: wp.array[float],
        t_: wp.array[float],
        n_points: int,
        scale: float,
        term_scale: float,
        n_blocks: int,
        blocks_per_chunk: int,
        chunk: int,
        dx: wp.array[float],
        q_: wp.array[float],
        v_: wp.array[float],
        partials: wp.array[float],
        losses: wp.array[float],
        residuals: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def mlp_eikonal_train(
        begin: int,
        # in
        w: wp.array[float],  # [n_params]
        x: wp.array[float],  # [n_blocks, n_in, 32]
        jacobian: wp.array[float],  # [n_blocks, n_dims, n_in, 32]
        t: wp.array[float],  # [n_blocks, 1, 32]
        n_points: int,
        scale: float,  # of the loss's gradient: 1 / n_points for a mean
        term_scale: float,  # 2 weight / n_points for a mean
        n_blocks: int,
        blocks_per_chunk: int,
        # out
        dx: wp.array[float],  # [n_blocks, n_in, 32], gradient of loss and term in x with J held
        q: wp.array[float],  # [n_blocks, n_in, 32], df/dx
        v: wp.array[float],  # [n_blocks, n_dims, 32], gradient of the term in J^T q
        partials: wp.array[float],  # [n_chunks, n_partials]
        losses: wp.array[float],  # [n_chunks, 2], sums of the loss and of the squared error
        residuals: wp.array[float],  # [n_chunks], sums of (|J^T q| - 1)^2
    ):
        """Loss of f = network(x) against t and the eikonal term of J^T df/dx: all gradients."""
        train_chunk(
            w,
            x,
            jacobian,
            t,
            n_points,
            scale,
            term_scale,
            n_blocks,
            blocks_per_chunk,
            begin + wp.tid(),
            dx,
            q,
            v,
            partials,
            losses,
            residuals,
        )

    return mlp_eikonal_train
