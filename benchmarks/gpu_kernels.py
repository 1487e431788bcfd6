"""What a GPU can do at best: random reads and additions; on a CPU these are plain loops.

Nothing here is differentiable. The additions are those of ngp_warp/kernels/atomics.py, and two
halves at once, which no kernel of the package uses yet.
"""

import warp as wp

from ngp_warp.kernels.atomics import red_add_vec2
from ngp_warp.launch import module_options

READS = 32
"""Random places of an item."""


_MULTIPLIER = wp.constant(wp.uint32(747796405))
_INCREMENT = wp.constant(wp.uint32(2891336453))
_OUTPUT = wp.constant(wp.uint32(277803737))


@wp.func_native("""
#ifdef __CUDA_ARCH__
const float2 v = __ldg((const float2*)table.data + index);
return wp::vec2(v.x, v.y);
#else
return table.data[index];
#endif
""")
def read_pair(table: wp.array(dtype=wp.vec2), index: wp.int64) -> wp.vec2:
    """Return an entry, read at once: Warp's own access to a vec2 is two loads."""
    ...


@wp.func_native("""
unsigned* p = table.data + index;
#ifdef __CUDA_ARCH__
const size_t address = __cvta_generic_to_global(p);
asm volatile("red.global.add.noftz.f16x2 [%0], %1;" :: "l"(address), "r"(value));
#else
*p += value;
#endif
""")
def red_add_half2(table: wp.array(dtype=wp.uint32), index: wp.int64, value: wp.uint32):
    """Add two halves to the two that ``table[index]`` holds."""
    ...


@wp.func
def place(item: int, k: int, mask: wp.uint32) -> wp.int64:
    """Return a place that follows from nothing near: a hash of (item, k), PCG's permutation."""
    state = (wp.uint32(item) * wp.uint32(32) + wp.uint32(k)) * _MULTIPLIER + _INCREMENT
    word = ((state >> ((state >> wp.uint32(28)) + wp.uint32(4))) ^ state) * _OUTPUT
    return wp.int64(((word >> wp.uint32(22)) ^ word) & mask)


@wp.kernel(module="unique", module_options=module_options())
def gather(
    begin: int,
    # in
    table: wp.array(dtype=wp.vec2),  # [mask + 1]
    mask: wp.uint32,
    # out
    out: wp.array(dtype=wp.vec2),  # [n_items]
):
    """Sum READS random entries: out."""
    i = begin + wp.tid()
    total = wp.vec2(0.0, 0.0)
    for k in range(READS):
        total += read_pair(table, place(i, k, mask))
    out[i] = total


@wp.kernel(module="unique", module_options=module_options())
def scatter(
    begin: int,
    # in
    value: float,
    mask: wp.uint32,
    # in and out
    table: wp.array(dtype=float),  # [mask + 1, 2]
):
    """Entry += value at READS random places, two floats at once."""
    i = begin + wp.tid()
    for k in range(READS):
        red_add_vec2(table, place(i, k, mask) * wp.int64(2), value, value)


@wp.kernel(module="unique", module_options=module_options())
def scatter_half(
    begin: int,
    # in
    value: wp.uint32,  # two halves
    mask: wp.uint32,
    # in and out
    table: wp.array(dtype=wp.uint32),  # [mask + 1]
):
    """Entry += value at READS random places, two halves at once."""
    i = begin + wp.tid()
    for k in range(READS):
        red_add_half2(table, place(i, k, mask), value)


@wp.kernel(module="unique", module_options=module_options())
def nothing(begin: int, out: wp.array(dtype=float)):
    """Do nothing that anyone could see: what is left is the launch."""
    if begin + wp.tid() < 0:
        out[0] = 1.0
