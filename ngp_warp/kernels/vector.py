"""C++ text shared by the CPU kernels: vector types, transposition, elementary functions.

The snippets use clang's vector extensions, which clang lowers to whatever the machine has (AVX-512,
AVX2, NEON). They are bodies of functions, so helpers are lambdas, whose names are local to each.
"""


def _interleave(offset: int) -> str:
    """Return the shuffle that interleaves half ``offset`` (0 low, 8 high) of two vectors."""
    return ", ".join(f"{offset + i // 2 + 16 * (i % 2)}" for i in range(16))


TYPES = """
typedef float v16 __attribute__((ext_vector_type(16), aligned(4)));
typedef int i16 __attribute__((ext_vector_type(16), aligned(4)));
typedef unsigned u16 __attribute__((ext_vector_type(16), aligned(4)));
"""

# Four rounds of interleaving vector i with vector i + 8 move bit by bit of the row into the column.
TRANSPOSE = f"""
auto transpose16 = [&](v16* a) __attribute__((always_inline)) {{
    v16 b[16];
    #pragma unroll
    for (int round = 0; round < 2; ++round) {{
        #pragma unroll
        for (int i = 0; i < 8; ++i) {{
            b[2 * i] = __builtin_shufflevector(a[i], a[i + 8], {_interleave(0)});
            b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + 8], {_interleave(8)});
        }}
        #pragma unroll
        for (int i = 0; i < 8; ++i) {{
            a[2 * i] = __builtin_shufflevector(b[i], b[i + 8], {_interleave(0)});
            a[2 * i + 1] = __builtin_shufflevector(b[i], b[i + 8], {_interleave(8)});
        }}
    }}
}};
"""

# exp: 2^round(x / ln 2) times a polynomial on +-ln 2 / 2, relative error below 3e-7.
# log of a normal number: the exponent's, and a polynomial on sqrt(1/2) to sqrt(2) (coefficients of
# Moshier's Cephes library), relative error below 2e-7; clang's own is 16 scalar calls.
MATH = """
auto vmax = [&](v16 a, v16 b) __attribute__((always_inline)) {
    return __builtin_elementwise_max(a, b);
};
auto vmin = [&](v16 a, v16 b) __attribute__((always_inline)) {
    return __builtin_elementwise_min(a, b);
};
auto vsqrt = [&](v16 a) __attribute__((always_inline)) { return __builtin_elementwise_sqrt(a); };
auto vexp = [&](v16 x) __attribute__((always_inline)) {
    x = vmin(vmax(x, (v16)(-87.f)), (v16)(88.f));
    v16 n = __builtin_elementwise_floor(x * 1.44269504f + 0.5f);
    v16 f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    v16 p = (v16)(1.f / 5040.f);
    p = p * f + 1.f / 720.f; p = p * f + 1.f / 120.f; p = p * f + 1.f / 24.f;
    p = p * f + 1.f / 6.f; p = p * f + 0.5f; p = p * f + 1.f; p = p * f + 1.f;
    i16 e = (__builtin_convertvector(n, i16) + 127) << 23;
    return p * __builtin_bit_cast(v16, e);
};
auto vabs = [&](v16 a) __attribute__((always_inline)) { return vmax(a, -a); };
auto vlog = [&](v16 a) __attribute__((always_inline)) {
    const i16 bits = __builtin_bit_cast(i16, a);
    const v16 m = __builtin_bit_cast(v16, (bits & 0x7fffff) | 0x3f000000);
    const i16 low = m < 0.70710678f;
    const v16 n = __builtin_convertvector((bits >> 23) - 126 + low, v16);
    const v16 f = (low ? m + m : m) - 1.f;
    v16 p = f * 7.0376836e-2f - 1.1514610e-1f;
    p = p * f + 1.1676998e-1f; p = p * f - 1.2420141e-1f; p = p * f + 1.4249323e-1f;
    p = p * f - 1.6668058e-1f; p = p * f + 2.0000715e-1f; p = p * f - 2.4999994e-1f;
    p = p * f + 3.3333331e-1f;
    const v16 y = f - 0.5f * f * f + p * f * f * f + n * -2.12194440e-4f + n * 0.693359375f;
    return a < __builtin_inff() ? y : a;  // infinite stays, and so does what is no number
};
auto vsin = [&](v16 a) __attribute__((always_inline)) { return __builtin_elementwise_sin(a); };
auto vcos = [&](v16 a) __attribute__((always_inline)) { return __builtin_elementwise_cos(a); };
"""

_MIN_MAX_FLOOR = """
auto vmax = [](v16 a, v16 b) __attribute__((always_inline)) {
    return __builtin_elementwise_max(a, b);
};
auto vmin = [](v16 a, v16 b) __attribute__((always_inline)) {
    return __builtin_elementwise_min(a, b);
};
auto vfloor = [](v16 a) __attribute__((always_inline)) { return __builtin_elementwise_floor(a); };
"""

SIGN = """
auto sign = [](v16 a) __attribute__((always_inline)) {
    return a > 0.f ? (v16)(1.f) : a < 0.f ? (v16)(-1.f) : (v16)(0.f);
};
"""

# The same names for one float, so that one text of activations and losses serves CUDA too.
SCALAR = """
typedef float v16;
auto vmax = [](v16 a, v16 b) { return a > b ? a : b; };
auto vmin = [](v16 a, v16 b) { return a < b ? a : b; };
auto vabs = [](v16 a) { return a < 0.f ? -a : a; };
auto vsqrt = [](v16 a) { return sqrtf(a); };
auto vexp = [=](v16 a) { return expf(vmin(vmax(a, -87.f), 88.f)); };
auto vlog = [](v16 a) { return logf(a); };
auto vsin = [](v16 a) { return sinf(a); };
auto vcos = [](v16 a) { return cosf(a); };
auto sign = [](v16 a) { return a > 0.f ? 1.f : a < 0.f ? -1.f : 0.f; };
"""


def on_both(text: str, helpers: str = "") -> str:
    """Return a snippet of ``text`` for one point (CUDA) or the two vectors of a block (CPU).

    ``text`` finds ``item``'s block in ``block`` and its first point in ``offset``; v16 is one float
    on CUDA. ``helpers`` are lambdas on v16, which may use vfloor, vmin and vmax.
    """
    return f"""
#ifdef __CUDA_ARCH__
{SCALAR}
auto vfloor = [](v16 a) {{ return floorf(a); }};
{helpers}
const int block = item / 32, offset = item % 32;
{text}
#else
{TYPES}
{_MIN_MAX_FLOOR}
{helpers}
const int block = item;
for (int offset = 0; offset < 32; offset += 16) {{
{text}
}}
#endif
"""


def block_items(n_blocks: int, device: str) -> int:
    """Return the number of items of an ``on_both`` kernel: blocks on a CPU, points on CUDA."""
    return n_blocks if device == "cpu" else n_blocks * 32
