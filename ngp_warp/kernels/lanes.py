"""Sums that 32 lanes of a warp share on CUDA, and one item makes on a CPU.

A thread that adds up thousands of numbers waits for each of them: on CUDA the lanes of a warp take
every 32nd. Their order is fixed, so that sums repeat. Not differentiable. On a CPU ``n_lanes`` is
1 and the functions return what they are given: the sum is that of a plain loop.

The number of items must be ``lane_items``, and no lane may return before the sum.
"""

import warp as wp


def lane_items(n: int, device: str) -> int:
    """Return the number of items for n sums."""
    return n if device == "cpu" else n * 32


_SUM = """
#ifdef __CUDA_ARCH__
for (int mask = 16; mask > 0; mask >>= 1) v += __shfl_xor_sync(0xffffffffu, v, mask);
#endif
return v;
"""


@wp.func_native("""
#ifdef __CUDA_ARCH__
return 32;
#else
return 1;
#endif
""")
def n_lanes() -> int:
    """How many items share a sum; item i is lane i % n_lanes of sum i / n_lanes."""
    ...


@wp.func_native(_SUM)
def lane_sum(v: float) -> float:
    """The sum of the lanes' values, the same bits for every lane."""
    ...


@wp.func_native(_SUM)
def lane_sum_int(v: int) -> int:
    """The same of integers."""
    ...


@wp.func_native(_SUM)
def lane_sum_long(v: wp.int64) -> wp.int64:
    """The same of 64-bit integers."""
    ...
