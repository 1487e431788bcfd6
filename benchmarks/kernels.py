"""What the machine can do at best: multiply-adds, memory traffic, random reads and updates.

Each item of a launch does the same work; nothing here is differentiable.
"""

import functools

import warp as wp

from ngp_warp.kernels.vector import TYPES
from ngp_warp.launch import module_options

CHUNK = 1 << 16
"""Floats of an item of the bandwidth kernels: small beside a cache, large beside a launch."""
GATHERS = 32
"""Random places of a round of the gather and update kernels."""


@functools.cache
def multiply_add_kernel() -> wp.Kernel:
    """Return the kernel of ``n_rounds`` rounds of independent multiply-adds in registers."""
    # Enough sums in flight to hide the latency, few enough for the registers.
    text = f"""{TYPES}
#if defined(__AVX512F__)
    const int N = 16;
#else
    const int N = 5;
#endif
    v16 a[N];
    const float m = numbers.data[0], c = numbers.data[1];
    for (int i = 0; i < N; ++i) a[i] = (v16)(numbers.data[i]);
    for (int r = 0; r < n_rounds; ++r)
        #pragma unroll
        for (int i = 0; i < N; ++i) a[i] = a[i] * m + c;
    float sum = 0.f;
    for (int i = 0; i < N; ++i) for (int u = 0; u < 16; ++u) sum += a[i][u];
    out.data[2 * item] = sum; out.data[2 * item + 1] = (float)(2 * 16 * N);
"""

    @wp.func_native(text)
    def rounds(numbers: wp.array[float], n_rounds: int, item: int, out: wp.array[float]): ...

    @wp.kernel(module="unique", module_options=module_options())
    def multiply_add(
        begin: int,
        # in
        numbers: wp.array[float],  # [16]; factor, summand, first values
        n_rounds: int,
        # out
        out: wp.array[float],  # [n_items, 2]; a sum, floating-point operations of a round
    ):
        """a = a m + c, round after round."""
        rounds(numbers, n_rounds, begin + wp.tid(), out)

    return multiply_add


@functools.cache
def read_kernel() -> wp.Kernel:
    """Return the kernel that reads CHUNK floats an item."""
    text = f"""{TYPES}
    const v16* p = (const v16*)(x.data + (size_t)item * {CHUNK});
    v16 a = (v16)(0.f), b = a, c = a, d = a;
    for (int i = 0; i < {CHUNK} / 16; i += 4) {{
        a += p[i]; b += p[i + 1]; c += p[i + 2]; d += p[i + 3];
    }}
    a += b + c + d;
    float sum = 0.f;
    for (int u = 0; u < 16; ++u) sum += a[u];
    out.data[item] = sum;
"""

    @wp.func_native(text)
    def chunk(x: wp.array[float], item: int, out: wp.array[float]): ...

    @wp.kernel(module="unique", module_options=module_options())
    def read(
        begin: int,
        # in
        x: wp.array[float],  # [n_items, CHUNK]
        # out
        out: wp.array[float],  # [n_items]
    ):
        """out = sum of a chunk."""
        chunk(x, begin + wp.tid(), out)

    return read


@functools.cache
def rewrite_kernel() -> wp.Kernel:
    """Return the kernel that reads and writes CHUNK floats an item."""
    text = f"""{TYPES}
    v16* p = (v16*)(x.data + (size_t)item * {CHUNK});
    for (int i = 0; i < {CHUNK} / 16; ++i) p[i] = p[i] * factor;
"""

    @wp.func_native(text)
    def chunk(factor: float, item: int, x: wp.array[float]): ...

    @wp.kernel(module="unique", module_options=module_options())
    def rewrite(
        begin: int,
        # in
        factor: float,
        # in and out
        x: wp.array[float],  # [n_items, CHUNK]
    ):
        """x = x factor."""
        chunk(factor, begin + wp.tid(), x)

    return rewrite


# 16 random numbers in a row from each of two generators, so that neither waits for its last.
_RANDOM = f"""{TYPES}
    const i16 LANES = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};
    u16 s0 = ((u16)LANES + (unsigned)item * 32u + 1u) * 2654435761u, s1 = s0 * 747796405u + 1u;
    typedef float v2 __attribute__((ext_vector_type(2), aligned(8)));
"""
_NEXT = """
    s0 = s0 * 1664525u + 1013904223u; s1 = s1 * 22695477u + 1u;
    u16 k[2] = {(s0 >> 8) & mask, (s1 >> 8) & mask};
    const unsigned* ks = (const unsigned*)k;
"""
_SCALAR_LOADS = """
    #pragma unroll
    for (int u = 0; u < 32; ++u) sums[u % 8] += *(const v2*)(T + (size_t)ks[u] * 2);
"""
_VECTOR_LOADS = f"""
#if defined(__AVX512F__)
    typedef double d8 __attribute__((vector_size(64)));
    typedef int i8 __attribute__((vector_size(32)));
    d8 none = {{}};
    #pragma unroll
    for (int h = 0; h < 4; ++h) {{
        i8 places; __builtin_memcpy(&places, ks + 8 * h, 32);
        vsums[h] += (v16)__builtin_ia32_gathersiv8df(none, T, places, (char)-1, 8);
    }}
#else
{_SCALAR_LOADS}
#endif
"""


@functools.cache
def gather_kernel(vector: bool) -> wp.Kernel:
    """Return the kernel that reads GATHERS random pairs of floats a round.

    Args:
        vector: by gather instructions, where the machine has them; else one by one.
    """
    text = f"""{_RANDOM}
    const float* T = table.data;
    v2 sums[8]; v16 vsums[4];
    for (int i = 0; i < 8; ++i) sums[i] = (v2)(0.f);
    for (int i = 0; i < 4; ++i) vsums[i] = (v16)(0.f);
    for (int r = 0; r < n_rounds; ++r) {{ {_NEXT} {_VECTOR_LOADS if vector else _SCALAR_LOADS} }}
    float sum = 0.f;
    for (int i = 0; i < 8; ++i) sum += sums[i][0] + sums[i][1];
    for (int i = 0; i < 4; ++i) for (int u = 0; u < 16; ++u) sum += vsums[i][u];
    out.data[item] = sum;
"""

    @wp.func_native(text)
    def rounds(
        table: wp.array[float], mask: wp.uint32, n_rounds: int, item: int, out: wp.array[float]
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def gather(
        begin: int,
        # in
        table: wp.array[float],  # [mask + 1, 2]
        mask: wp.uint32,  # a power of two, less one; below 2^24
        n_rounds: int,
        # out
        out: wp.array[float],  # [n_items]
    ):
        """out = sum of entries at random places."""
        rounds(table, mask, n_rounds, begin + wp.tid(), out)

    return gather


@functools.cache
def update_kernel() -> wp.Kernel:
    """Return the kernel that adds to GATHERS random pairs of floats a round, a table an item."""
    text = f"""{_RANDOM}
    float* T = tables.data + (size_t)item * (mask + 1u) * 2;
    const v2 g = (v2)(value);
    for (int r = 0; r < n_rounds; ++r) {{
        {_NEXT}
        #pragma unroll
        for (int u = 0; u < 32; ++u) {{ v2* t = (v2*)(T + (size_t)ks[u] * 2); *t = *t + g; }}
    }}
"""

    @wp.func_native(text)
    def rounds(
        value: float, mask: wp.uint32, n_rounds: int, item: int, tables: wp.array[float]
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def update(
        begin: int,
        # in
        value: float,
        mask: wp.uint32,  # a power of two, less one; below 2^24
        n_rounds: int,
        # in and out
        tables: wp.array[float],  # [n_items, mask + 1, 2]
    ):
        """Entry += value at random places."""
        rounds(value, mask, n_rounds, begin + wp.tid(), tables)

    return update
