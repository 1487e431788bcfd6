"""Rows of blocked arrays from one array to another: where networks are joined.

Linear: the adjoint of a copy is the copy back. Twin: NumPy's slices (tests/test_hierarchical.py).
"""

import functools

import warp as wp

from ngp_warp.kernels.vector import on_both
from ngp_warp.launch import module_options

wp.set_module_options(module_options())


@wp.kernel
def spread_rows(
    begin: int,
    # in
    source: wp.array[float],  # [.., n_rows, 32], of rays
    n_rows: int,
    n_samples: int,
    target_rows: int,
    target_first: int,
    # out
    target: wp.array[float],  # [.., target_rows, 32], of samples
):
    """A ray's rows for each of its samples, for a sample."""
    p = begin + wp.tid()
    i = p / n_samples
    at = ((p / 32) * target_rows + target_first) * 32 + p % 32
    origin = (i / 32) * n_rows * 32 + i % 32
    for j in range(n_rows):
        target[at + j * 32] = source[origin + j * 32]


def copy_items(n_blocks: int, n_rows: int, device: str) -> int:
    """Return the number of items of ``copy_rows_kernel``: blocks on a CPU, values on CUDA."""
    return n_blocks if device == "cpu" else n_blocks * n_rows * 32


_COPY = """
#ifdef __CUDA_ARCH__
const int size = n_rows * 32, block = item / size, k = item % size;
target.data[((size_t)block * target_rows + target_first) * 32 + k] =
    source.data[((size_t)block * source_rows + source_first) * 32 + k];
#else
__builtin_memcpy(
    target.data + ((size_t)item * target_rows + target_first) * 32,
    source.data + ((size_t)item * source_rows + source_first) * 32,
    (size_t)n_rows * 32 * sizeof(float));
#endif
"""


@functools.cache
def copy_rows_kernel() -> wp.Kernel:
    """Return the kernel that copies some rows of every block."""

    @wp.func_native(_COPY)
    def copy_item(
        source: wp.array[float],
        source_rows: int,
        source_first: int,
        n_rows: int,
        target_rows: int,
        target_first: int,
        item: int,
        target: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def copy_rows(
        begin: int,
        # in
        source: wp.array[float],  # [n_blocks, source_rows, 32]
        source_rows: int,
        source_first: int,
        n_rows: int,
        target_rows: int,
        target_first: int,
        # out
        target: wp.array[float],  # [n_blocks, target_rows, 32]
    ):
        """target[:, target_first + j] = source[:, source_first + j]."""
        item = begin + wp.tid()
        copy_item(
            source, source_rows, source_first, n_rows, target_rows, target_first, item, target
        )

    return copy_rows


_ADD = """
for (int r = 0; r < n_rows; ++r) {
    v16* t = (v16*)(target.data + ((size_t)block * target_rows + first + r) * 32 + offset);
    *t = *t + *(const v16*)(source.data + ((size_t)block * n_rows + r) * 32 + offset);
}"""

_FILL = """
for (int r = 0; r < n_rows; ++r)
    *(v16*)(target.data + ((size_t)block * target_rows + first + r) * 32 + offset) = (v16)(value);
"""


@functools.cache
def add_rows_kernel() -> wp.Kernel:
    """Return the kernel that adds all rows of every block to some rows of another array."""

    @wp.func_native(on_both(_ADD))
    def add_item(
        source: wp.array[float],
        n_rows: int,
        target_rows: int,
        first: int,
        item: int,
        target: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def add_rows(
        begin: int,
        # in
        source: wp.array[float],  # [n_blocks, n_rows, 32]
        n_rows: int,
        target_rows: int,
        first: int,
        # in and out
        target: wp.array[float],  # [n_blocks, target_rows, 32]
    ):
        """target[:, first + j] += source[:, j]."""
        add_item(source, n_rows, target_rows, first, begin + wp.tid(), target)

    return add_rows


@functools.cache
def fill_rows_kernel() -> wp.Kernel:
    """Return the kernel that sets some rows of every block to a value."""

    @wp.func_native(on_both(_FILL))
    def fill_item(
        value: float, n_rows: int, target_rows: int, first: int, item: int, target: wp.array[float]
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def fill_rows(
        begin: int,
        # in
        value: float,
        n_rows: int,
        target_rows: int,
        first: int,
        # out
        target: wp.array[float],  # [n_blocks, target_rows, 32]
    ):
        """target[:, first + j] = value."""
        fill_item(value, n_rows, target_rows, first, begin + wp.tid(), target)

    return fill_rows
