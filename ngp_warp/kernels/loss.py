"""Losses of predictions p against targets t: the text of value and gradient, and the kernel.

Source: Mueller et al. 2022 and tiny-cuda-nn's definitions; in the relative losses the denominator's
prediction counts as a constant. Differentiable in p. Twin: tests/reference/losses.py.
"""

import functools

import warp as wp

from ngp_warp.kernels.vector import MATH, SCALAR, SIGN, TYPES
from ngp_warp.launch import module_options

# value and gradient of one prediction p against one target t, d = p - t
LOSSES = {
    "l2": ("d * d", "2.f * d"),
    "l1": ("vabs(d)", "sign(d)"),
    "relative_l2": ("d * d / (p * p + 0.01f)", "2.f * d / (p * p + 0.01f)"),
    "mape": ("vabs(d) / (vabs(t) + 0.01f)", "sign(d) / (vabs(t) + 0.01f)"),
    "smape": (
        "vabs(d) / (0.5f * (vabs(p) + vabs(t)) + 0.01f)",
        "sign(d) / (0.5f * (vabs(p) + vabs(t)) + 0.01f)",
    ),
    "huber": (
        "vabs(d) < 0.1f ? 5.f * d * d : vabs(d) - 0.05f",
        "vabs(d) < 0.1f ? 10.f * d : sign(d)",
    ),
    "log_l1": ("vlog(1.f + vabs(d))", "sign(d) / (1.f + vabs(d))"),
}

# The rows of one vector of points (CPU) or of one point (CUDA), from ``at`` on.
_ROWS = """
for (int j = 0; j < n_out; ++j) {{
    v16 p = *(const v16*)(p_.data + at + j * 32), t = *(const v16*)(t_.data + at + j * 32);
    v16 d = p - t;
    sum += inside ? {value} : (v16)(0.f);
    squares += inside ? d * d : (v16)(0.f);
    *(v16*)(d_.data + at + j * 32) = inside ? ({gradient}) * scale : (v16)(0.f);
}}"""


@functools.cache
def loss_kernel(loss: str) -> wp.Kernel:
    """Return the kernel of a loss: an item is a block on a CPU, a point (all lanes) on CUDA."""
    value, gradient = LOSSES[loss]
    rows = _ROWS.format(value=value, gradient=gradient)
    text = f"""
#ifdef __CUDA_ARCH__
{SCALAR}
const int block = first_block + item / 32, lane = item % 32;
const bool inside = block * 32 + lane < n_points;
const size_t at = (size_t)block * n_out * 32 + lane;
v16 sum = 0.f, squares = 0.f;
{rows}
// launches are whole blocks of 32 points, so that the warp is whole
for (int mask = 16; mask > 0; mask >>= 1) {{
    sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    squares += __shfl_xor_sync(0xffffffffu, squares, mask);
}}
if (lane == 0) {{ sums.data[2 * block] = sum; sums.data[2 * block + 1] = squares; }}
#else
{TYPES}{MATH}{SIGN}
const i16 LANES = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};
const int block = first_block + item;
v16 sum = (v16)(0.f), squares = (v16)(0.f);
for (int half = 0; half < 2; ++half) {{
    const i16 inside = LANES + (block * 32 + half * 16) < n_points;
    const size_t at = (size_t)block * n_out * 32 + half * 16;
    {rows}
}}
float total = 0.f, total_squares = 0.f;
for (int i = 0; i < 16; ++i) {{ total += sum[i]; total_squares += squares[i]; }}
sums.data[2 * block] = total; sums.data[2 * block + 1] = total_squares;
#endif
"""

    @wp.func_native(text)
    def loss_item(
        p_: wp.array[float],
        t_: wp.array[float],
        n_points: int,
        n_out: int,
        scale: float,
        first_block: int,
        item: int,
        d_: wp.array[float],
        sums: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def loss_and_gradient(
        begin: int,
        # in
        prediction: wp.array[float],  # [n_blocks, n_out, 32]
        target: wp.array[float],  # [n_blocks, n_out, 32]
        n_points: int,
        n_out: int,
        scale: float,  # of the gradient: 1 / (n_points * n_out) for a mean
        first_block: int,
        # out
        d_prediction: wp.array[float],  # [n_blocks, n_out, 32], zero in the padding
        sums: wp.array[float],  # [n_blocks, 2]: sums of the loss and of the squared error
    ):
        """sum of loss(p, t), and its gradient in p times ``scale``."""
        loss_item(
            prediction,
            target,
            n_points,
            n_out,
            scale,
            first_block,
            begin + wp.tid(),
            d_prediction,
            sums,
        )

    return loss_and_gradient
