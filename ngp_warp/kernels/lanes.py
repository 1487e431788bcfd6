"""Sums that 32 lanes of a warp share on CUDA, and one item makes on a CPU; what lanes tell others.

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


_VALUE = """
#ifdef __CUDA_ARCH__
return __shfl_sync(0xffffffffu, v, lane);
#else
return v;
#endif
"""


@wp.func_native(_VALUE)
def lane_value(v: float, lane: int) -> float:
    """The value of a lane, for every lane."""
    ...


@wp.func_native(_VALUE)
def lane_value_int(v: int, lane: int) -> int:
    """The same of an integer."""
    ...


@wp.func_native("""
#ifdef __CUDA_ARCH__
return (int)__ballot_sync(0xffffffffu, v != 0);
#else
return v != 0;
#endif
""")
def lane_bits(v: int) -> int:
    """Bit i: whether lane i has another value than 0; the same for every lane."""
    ...


@wp.func_native("""
#ifdef __CUDA_ARCH__
return __popc((unsigned)bits);
#else
return __builtin_popcount((unsigned)bits);
#endif
""")
def n_bits(bits: int) -> int:
    """How many bits are set."""
    ...


@wp.func_native("""
#ifdef __CUDA_ARCH__
return __ffs(bits) - 1;
#else
return __builtin_ctz((unsigned)bits);
#endif
""")
def lowest_bit(bits: int) -> int:
    """Index of the lowest bit that is set; one is."""
    ...
