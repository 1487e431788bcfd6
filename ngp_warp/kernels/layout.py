"""Between point-major arrays [n, d], as users hold them, and blocked ones [n_blocks, d, 32].

A transposition: differentiable trivially; twin: tests/reference/layout.py.
"""

import functools

import warp as wp

from ngp_warp.launch import module_options

wp.set_module_options(module_options())


@wp.kernel
def to_blocked(
    begin: int,
    # in
    points: wp.array2d(dtype=float),  # [n, n_rows]
    n_rows: int,
    # out
    blocked: wp.array(dtype=float),  # [n_blocks, n_rows, 32]
):
    """Row r of point i goes to ((i / 32) n_rows + r) 32 + i % 32; the padding repeats point 0."""
    i = begin + wp.tid()
    source = wp.where(i < points.shape[0], i, 0)
    for r in range(n_rows):
        blocked[((i / 32) * n_rows + r) * 32 + i % 32] = points[source, r]


@wp.kernel
def from_blocked(
    begin: int,
    # in
    blocked: wp.array(dtype=float),  # [n_blocks, n_rows, 32]
    n_rows: int,
    # out
    points: wp.array2d(dtype=float),  # [n, n_rows]
):
    """The inverse of ``to_blocked``, without the padding."""
    i = begin + wp.tid()
    for r in range(n_rows):
        points[i, r] = blocked[((i / 32) * n_rows + r) * 32 + i % 32]


@wp.kernel
def set_row(
    begin: int,
    # in
    row: int,
    n_rows: int,
    n_points: int,
    # out
    blocked: wp.array(dtype=float),  # [n_blocks, n_rows, 32]
):
    """One in ``row``, zero in the others and in the padding: a unit vector for a Jacobian."""
    i = begin + wp.tid()
    for r in range(n_rows):
        one = wp.where(r == row and i < n_points, 1.0, 0.0)
        blocked[((i / 32) * n_rows + r) * 32 + i % 32] = one


# Point after point: one side is read or written in order, the other lies in the first-level cache.
_TURN = """
const int p0 = block * 32, m = n - p0 < 32 ? n - p0 : 32;
SOURCE float* a = points.data + (size_t)p0 * n_rows;
TARGET float* b = blocked.data + (size_t)p0 * n_rows;
for (int p = 0; p < m; ++p) for (int r = 0; r < n_rows; ++r) ASSIGN;
"""
_TO = (
    _TURN.replace("SOURCE", "const")
    .replace("TARGET", "")
    .replace("ASSIGN", "b[r * 32 + p] = a[p * n_rows + r]")
)
_FROM = (
    _TURN.replace("SOURCE", "")
    .replace("TARGET", "const")
    .replace("ASSIGN", "a[p * n_rows + r] = b[r * 32 + p]")
)
_ZEROS = "for (int p = m; p < 32; ++p) for (int r = 0; r < n_rows; ++r) b[r * 32 + p] = 0.f;"


@functools.cache
def turn_kernel(*, to_blocked: bool) -> wp.Kernel:
    """Return the kernel between [n, n_rows] and blocks on a CPU, an item each, padded with zeros.

    Less than half of the time of the kernels above, which take a point an item.
    """

    @wp.func_native(_TO + _ZEROS if to_blocked else _FROM)
    def turn_block(
        block: int, n: int, n_rows: int, points: wp.array[float], blocked: wp.array[float]
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def turn(
        begin: int,
        n: int,
        n_rows: int,
        # in and out, or out and in
        points: wp.array[float],  # [n, n_rows]
        blocked: wp.array[float],  # [n_blocks, n_rows, 32]
    ):
        """Row r of point i is at ((i / 32) n_rows + r) 32 + i % 32."""
        turn_block(begin + wp.tid(), n, n_rows, points, blocked)

    return turn
