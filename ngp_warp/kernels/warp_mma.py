"""Warp-wide matrix primitives as C++ text, for kernels written in ``wp.func_native`` snippets.

Source: the PTX ISA, sections "Matrix fragments for mma.m16n8k16 with floating point type" and
"movmatrix". Nothing here is differentiable by itself; tests/test_mlp_cuda_layout.py compares with
NumPy's matrix product.

``PRIMITIVES`` opens a snippet that has an ``int tid`` whose 32-aligned groups of 32 are converged
warps. A Warp kernel made with ``grid_stride=False`` and launched with a dimension that is a
multiple of 32 guarantees that: the only early return of its generated code is then the same for a
whole warp.

=================== =========================================================================
``sine(v)``, ``cosine(v)`` to 1e-6 absolute; a fraction of sinf's code
``pack(a, b)``      half2, ``a`` in the low bits, saturated to +-65504; NaN stays NaN
``low(v), high(v)`` the halves of a half2 as float
``mma(c, a, b0, b1)`` c += a b: a 16x16 (rows, k), b 16x8 (k, columns) half, c 16x8 float
``transpose(v)``    transpose of an 8x8 half matrix, one row in four lanes
``lane_sum(v, m)``  v plus the v of lane ^ m
``converge()``      to be called between code that lanes may branch in and the next of the above
``load(p)``         16 bytes of memory that the kernel itself may have written
``load_constant(p)`` 16 bytes that nothing writes while the kernel runs
``load_floats(p)``  the same as float4
``store_pair(p, a, b)`` two floats at an even place
``again(i)``        i, but to the compiler it may differ from turn to turn of a loop: so what comes
                    of it is not kept in registers meanwhile
=================== =========================================================================

Of lane 4 g + q, register r of ``a`` holds the elements (g + 8 (r & 1), 2 q + 8 (r >> 1) + {0, 1}),
``b0`` holds (2 q + {0, 1}, g), ``b1`` holds (2 q + 8 + {0, 1}, g), and ``c[i]`` is the element
(g + 8 (i >> 1), 2 q + (i & 1)).

Without a GPU the same kernel text runs lane by lane: the second half of the text plays a warp on
Warp's cooperative CPU blocks (``wp.config.enable_cpu_blocks``, ``block_dim=32``, or 128 where the
four warps of a block call the same functions in the same order). That is thousands of times slower
than it need be, and only for tests.
"""

# Saturation: an overflowing activation or gradient becomes the largest half, not an infinity that
# would turn to NaN against a zero and end the training.
_CUDA = r"""
auto reduced = [](float v) -> float {  // to +-pi, 2 pi in two parts
    const float turns = rintf(v * 0.15915494f);
    return fmaf(turns, 1.7484556e-7f, fmaf(-turns, 6.2831855f, v));
};
auto sine = [=](float v) -> float { return __sinf(reduced(v)); };
auto cosine = [=](float v) -> float { return __cosf(reduced(v)); };
auto pack = [](float a, float b) -> u32 {
    u32 v;
    asm("{ .reg .b32 t, top, bottom; mov.b32 top, 0x7bff7bff; mov.b32 bottom, 0xfbfffbff;"
        " cvt.rn.f16x2.f32 t, %2, %1; min.NaN.f16x2 t, t, top; max.NaN.f16x2 %0, t, bottom; }"
        : "=r"(v) : "f"(a), "f"(b));
    return v;
};
auto low = [](u32 v) -> float {
    float f;
    asm("{ .reg .b16 a, b; mov.b32 {a, b}, %1; cvt.f32.f16 %0, a; }" : "=f"(f) : "r"(v));
    return f;
};
auto high = [](u32 v) -> float {
    float f;
    asm("{ .reg .b16 a, b; mov.b32 {a, b}, %1; cvt.f32.f16 %0, b; }" : "=f"(f) : "r"(v));
    return f;
};
// volatile: must not be moved into a branch that only some lanes take
auto mma = [](f32 (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
        " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
};
auto transpose = [](u32 v) -> u32 {
    u32 t;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(t) : "r"(v));
    return t;
};
auto lane_sum = [](float v, int mask) -> float {
    return v + __shfl_xor_sync(0xffffffffu, v, mask);
};
auto converge = []() { __syncwarp(); };
auto load = [](const void* p) -> uint4 { return *(const uint4*)p; };
auto load_constant = [](const void* p) -> uint4 { return __ldg((const uint4*)p); };
auto load_floats = [](const void* p) -> float4 { return __ldg((const float4*)p); };
auto store_pair = [](float* p, float a, float b) { *(float2*)p = float2 { a, b }; };
auto again = [](int i) -> int {
    asm volatile("" : "+r"(i));
    return i;
};
"""

_EMULATION = r"""
auto sine = [](float v) -> float { return sinf(v); };
auto cosine = [](float v) -> float { return cosf(v); };
struct alignas(16) uint4 { u32 x, y, z, w; };
static u32 published[128][6];  // of the warps of a block
u32 (*const lanes)[6] = published + (tid & 96);
auto half_of = [](u32 v, int i) -> float {
    unsigned short bits = (unsigned short)(v >> (16 * i));
    return (float)*(const _Float16*)&bits;
};
auto pack = [](float a, float b) -> u32 {
    float f[2] = { a, b };
    u32 v = 0;
    for (int i = 0; i < 2; ++i) {
        float x = f[i] > 65504.0f ? 65504.0f : f[i] < -65504.0f ? -65504.0f : f[i];
        _Float16 h = (_Float16)x;
        v |= (u32)*(const unsigned short*)&h << (16 * i);
    }
    return v;
};
auto low = [=](u32 v) -> float { return half_of(v, 0); };
auto high = [=](u32 v) -> float { return half_of(v, 1); };
auto mma = [=](f32 (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    for (int i = 0; i < 4; ++i) lanes[lane][i] = a[i];
    lanes[lane][4] = b0;
    lanes[lane][5] = b1;
    wp_cpu_tile_sync();
    for (int i = 0; i < 4; ++i) {
        int row = (lane >> 2) + (i >> 1) * 8, column = (lane & 3) * 2 + (i & 1);
        for (int k = 0; k < 16; ++k) {
            int a_lane = (row % 8) * 4 + (k % 8) / 2, a_register = (k / 8) * 2 + row / 8;
            int b_lane = column * 4 + (k % 8) / 2, b_register = 4 + k / 8;
            c[i] += half_of(lanes[a_lane][a_register], k % 2)
                * half_of(lanes[b_lane][b_register], k % 2);
        }
    }
    wp_cpu_tile_sync();
};
auto transpose = [=](u32 v) -> u32 {
    lanes[lane][0] = v;
    wp_cpu_tile_sync();
    u32 t = 0;
    for (int i = 0; i < 2; ++i) {
        int row = lane / 4, column = (lane % 4) * 2 + i;
        u32 source = lanes[column * 4 + row / 2][0];
        t |= ((source >> (16 * (row % 2))) & 0xffffu) << (16 * i);
    }
    wp_cpu_tile_sync();
    return t;
};
auto lane_sum = [=](float v, int mask) -> float {
    *(float*)&lanes[lane][0] = v;
    wp_cpu_tile_sync();
    float s = v + *(const float*)&lanes[lane ^ mask][0];
    wp_cpu_tile_sync();
    return s;
};
auto converge = []() {};
auto load = [](const void* p) -> uint4 { return *(const uint4*)p; };
auto load_constant = load;
auto load_floats = [](const void* p) -> float4 { return *(const float4*)p; };
auto store_pair = [](float* p, float a, float b) { p[0] = a, p[1] = b; };
auto again = [](int i) -> int { return i; };
"""

PRIMITIVES = f"""
typedef unsigned int u32;
typedef float f32;  // Warp defines float(x) as a macro, which a reference to an array would call
const int lane = tid & 31;
const int warp = tid >> 5;
#ifdef __CUDA_ARCH__
{_CUDA}
#else
{_EMULATION}
#endif
"""
