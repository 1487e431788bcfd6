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
auto vlog = [&](v16 a) __attribute__((always_inline)) { return __builtin_elementwise_log(a); };
auto vsin = [&](v16 a) __attribute__((always_inline)) { return __builtin_elementwise_sin(a); };
auto vcos = [&](v16 a) __attribute__((always_inline)) { return __builtin_elementwise_cos(a); };
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
