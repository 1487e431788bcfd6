"""16x16 tiles of halves in a thread block's shared memory, as C++ text.

Source: the PTX ISA, "ldmatrix". To follow ``PRIMITIVES`` of warp_mma in a snippet. A tile is a
warp's A fragment (see warp_mma): 128 words, register after register, each register's words in the
order of the lanes. So each of its four 8x8 matrices is 128 bytes in a row, which a warp's accesses
and the matrix loads meet without bank conflicts.

======================== ====================================================================
``store_tile(k, a)``     put the fragment ``u32 a[4]`` of this warp into tile k
``load_tile(a, k)``      read tile k back
``load_turned(a, k)``    read it with each of its 8x8 matrices transposed: rows as B's columns
``load_crossed(a, k)``   the same, the second and third matrix exchanged: the transpose, as A
``meet()``               wait for all threads of the block: between the store of a tile and its
                         load by another warp, and between that and the next store
======================== ====================================================================

All threads of a block must call ``meet``, and all lanes of a warp the loads. Without a GPU the
tiles are a static array, and all threads of Warp's cooperative CPU block must call everything in
warp_mma and here in the same order.
"""

_CUDA = """
// each eight lanes say where a matrix' rows are; the second and third change places in crossed_at
const u32 tiles_at = (u32)__cvta_generic_to_shared(tiles) + lane * 16;
const u32 crossed_at = tiles_at
    + ((lane & 24) == 8 ? 128 : (lane & 24) == 16 ? (u32)-128 : 0);
// memory: a load must not be moved before the stores that it reads
auto load_tile = [=](u32 (&a)[4], int k) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(tiles_at + k * 512) : "memory");
};
auto load_transposed = [](u32 (&a)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(at) : "memory");
};
auto load_turned = [=](u32 (&a)[4], int k) { load_transposed(a, tiles_at + k * 512); };
auto load_crossed = [=](u32 (&a)[4], int k) { load_transposed(a, crossed_at + k * 512); };
auto meet = []() { __syncthreads(); };
"""

_EMULATION = """
auto load_tile = [=](u32 (&a)[4], int k) {
    for (int r = 0; r < 4; ++r) a[r] = tiles[k * 128 + r * 32 + lane];
};
auto load_turned = [=](u32 (&a)[4], int k) {
    const unsigned short* halves = (const unsigned short*)(tiles + k * 128);
    for (int r = 0; r < 4; ++r) {
        const unsigned short* column = halves + r * 64 + lane / 4;
        a[r] = column[lane % 4 * 16] | (u32)column[lane % 4 * 16 + 8] << 16;
    }
};
auto load_crossed = [=](u32 (&a)[4], int k) {
    u32 v[4];
    load_turned(v, k);
    a[0] = v[0], a[1] = v[2], a[2] = v[1], a[3] = v[3];
};
auto meet = []() { wp_cpu_tile_sync(); };
"""


def tiles_text(n_tiles: int) -> str:
    """Text that declares so many tiles, and the functions above."""
    return f"""
#ifdef __CUDA_ARCH__
__shared__ __align__(16) u32 tiles[{n_tiles * 128}];
{_CUDA}
#else
static u32 tiles[{n_tiles * 128}];
{_EMULATION}
#endif
u32* const lane_words = tiles + lane;
auto store_tile = [=](int k, const u32 (&a)[4]) {{
    for (int r = 0; r < 4; ++r) lane_words[k * 128 + r * 32] = a[r];
}};
"""
