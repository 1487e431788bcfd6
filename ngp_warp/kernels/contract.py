"""A Jacobian times vectors, block by block: where features' slopes are already there.

    dx_d = sum_f J_df dy_f,   t_f = sum_d J_df v_d
Linear in each argument. Twin: NumPy's einsum (tests/test_encoding_laws.py). One text serves 16
points of a block (CPU) and one point (CUDA).
"""

import functools

import warp as wp

from ngp_warp.kernels.vector import on_both
from ngp_warp.launch import module_options

_ROW = """
auto row = [&](auto& a, int n, int r) -> v16& {
    return *(v16*)(a.data + ((size_t)block * n + r) * 32 + offset);
};"""

_INPUT = f"""{_ROW}
for (int d = 0; d < n_dims; ++d) {{
    v16 sum = (v16)(0.f);
    for (int f = 0; f < n_outputs; ++f)
        sum += row(jacobian, n_dims * n_outputs, d * n_outputs + f) * row(dy, n_outputs, f);
    row(dx, n_dims, d) = sum;
}}"""

_TANGENT = f"""{_ROW}
for (int f = 0; f < n_outputs; ++f) {{
    v16 sum = (v16)(0.f);
    for (int d = 0; d < n_dims; ++d)
        sum += row(jacobian, n_dims * n_outputs, d * n_outputs + f) * row(v, n_dims, d);
    row(tangent, n_outputs, f) = sum;
}}"""


@functools.cache
def input_kernel() -> wp.Kernel:
    """Return the kernel of the inputs' gradient."""

    @wp.func_native(on_both(_INPUT))
    def contract_item(
        jacobian: wp.array[float],
        dy: wp.array[float],
        n_dims: int,
        n_outputs: int,
        item: int,
        dx: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def contract_input(
        begin: int,
        # in
        jacobian: wp.array[float],  # [n_blocks, n_dims, n_outputs, 32]
        dy: wp.array[float],  # [n_blocks, n_outputs, 32]
        n_dims: int,
        n_outputs: int,
        # out
        dx: wp.array[float],  # [n_blocks, n_dims, 32]
    ):
        """dx_d = sum_f J_df dy_f."""
        contract_item(jacobian, dy, n_dims, n_outputs, begin + wp.tid(), dx)

    return contract_input


@functools.cache
def tangent_kernel() -> wp.Kernel:
    """Return the kernel of the features' derivative along a vector."""

    @wp.func_native(on_both(_TANGENT))
    def contract_item(
        jacobian: wp.array[float],
        v: wp.array[float],
        n_dims: int,
        n_outputs: int,
        item: int,
        tangent: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def contract_tangent(
        begin: int,
        # in
        jacobian: wp.array[float],  # [n_blocks, n_dims, n_outputs, 32]
        v: wp.array[float],  # [n_blocks, n_dims, 32]
        n_dims: int,
        n_outputs: int,
        # out
        tangent: wp.array[float],  # [n_blocks, n_outputs, 32]
    ):
        """t_f = sum_d J_df v_d."""
        contract_item(jacobian, v, n_dims, n_outputs, begin + wp.tid(), tangent)

    return contract_tangent
