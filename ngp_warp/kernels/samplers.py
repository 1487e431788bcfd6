"""Random and low-discrepancy points in the unit cube, from a seed, a step and an index alone.

Source: hash after Wellons' measurements of 32-bit mixers; Halton 1960 with a random rotation
(Cranley and Patterson 1976); Sobol' 1967 with Joe and Kuo's direction numbers and a random digital
shift. Not differentiable. Twin: tests/reference/samplers.py.

One item is a block of 32 points on a CPU (the loop becomes vectors) and a point on CUDA.
"""

import functools

import warp as wp

from ngp_warp.launch import module_options

LANES = """
#ifdef __CUDA_ARCH__
    const int block = item / 32, u_begin = item % 32, u_end = u_begin + 1;
#else
    const int block = item, u_begin = 0, u_end = 32;
#endif
"""
"""The points of an item: u from u_begin to u_end of ``block``."""

# step: the array that holds a run's current step
HASH = (
    LANES
    + """
auto mix = [](unsigned h) {
    h ^= h >> 16; h *= 0x7feb352du; h ^= h >> 15; h *= 0x846ca68bu; return h ^ (h >> 16);
};
const unsigned long long step64 = (unsigned long long)step.data[0];
const unsigned key = mix(mix((unsigned)seed ^ 0x9E3779B9u) + (unsigned)step64 * 0x85EBCA6Bu);
// 24 bits: every float in [0, 1) that is a multiple of 2^-24
auto unit = [](unsigned h) { return (float)(h >> 8) * (1.f / 16777216.f); };
auto bits = [&](unsigned i, unsigned d) { return mix(mix(i * 4u + d + key) ^ key); };
"""
)

_STRATIFIED = {
    # Each point takes its share of the cells along a Morton curve, and a random place in a cell:
    # neighbours in the batch are neighbours in space, and so share cache lines of the tables.
    2: """
    auto compact = [](unsigned v) {
        v &= 0x55555555u; v = (v | v >> 1) & 0x33333333u; v = (v | v >> 2) & 0x0F0F0F0Fu;
        v = (v | v >> 4) & 0x00FF00FFu; return (v | v >> 8) & 0x0000FFFFu;
    };""",
    3: """
    auto compact = [](unsigned v) {
        v &= 0x09249249u; v = (v | v >> 2) & 0x030C30C3u; v = (v | v >> 4) & 0x0300F00Fu;
        v = (v | v >> 8) & 0xFF0000FFu; return (v | v >> 16) & 0x000003FFu;
    };""",
}

_BODIES = {
    "uniform": "p[d] = unit(bits(i, d));",
    # the cell's bits before random ones: a sum of floats may round up into the next cell, or to 1
    "stratified": """
        p[d] = unit(compact(cell >> d) << (32 - axis_bits[d]) | bits(i, d) >> axis_bits[d]);""",
    "halton": """
        const unsigned base = d == 0 ? 2u : d == 1 ? 3u : 5u;
        double r = 0.0, f = 1.0;
        for (unsigned long long n = first + i + 1; n; n /= base) { f /= base; r += f * (n % base); }
        r += unit(mix((unsigned)seed * 4u + d + 1u));
        // cut to 24 bits: rounding could give 1
        p[d] = (float)(unsigned)((r - (r >= 1.0)) * 16777216.0) * (1.f / 16777216.f);""",
    "sobol": """
        unsigned r = mix((unsigned)seed * 4u + d + 1u), direction = 0x80000000u, before = 0u;
        unsigned older = 0u; int bit = 0;
        for (unsigned n = (unsigned)(first + i); n; n >>= 1, ++bit) {
            if (d == 0) direction = 0x80000000u >> bit;
            else if (d == 1) direction = bit ? before ^ (before >> 1) : 0x80000000u;
            else direction = bit == 0 ? 0x80000000u : bit == 1 ? 0xC0000000u
                           : before ^ older ^ (older >> 2);
            if (n & 1u) r ^= direction;
            older = before; before = direction;
        }
        p[d] = unit(r);""",
}


@functools.cache
def sample_kernel(kind: str, n_dims: int) -> wp.Kernel:
    """Return the kernel of one batch of points; kind: uniform, stratified, halton or sobol."""
    cells = ""
    if kind == "stratified":
        cells = (
            _STRATIFIED[n_dims]
            + f"""
    // one random number moves a point within its share where the shares are not whole cells
    const double share = (double)(1ull << cell_bits) / n_points;
    int axis_bits[{n_dims}];
    for (int d = 0; d < {n_dims}; ++d)
        axis_bits[d] = (cell_bits + {n_dims} - 1 - d) / {n_dims};"""
        )
    cell = "const unsigned cell = (unsigned)(share * ((double)i + unit(bits(i, 3u))));"
    text = f"""{HASH}{cells}
const unsigned long long first = step64 * (unsigned long long)n_points;
for (int u = u_begin; u < u_end; ++u) {{
    const unsigned i = (unsigned)(offset + block * 32 + u);
    {cell if kind == "stratified" else "(void)first;"}
    float p[{n_dims}];
    for (unsigned d = 0; d < {n_dims}u; ++d) {{ {_BODIES[kind]} }}
    for (int d = 0; d < {n_dims}; ++d) x.data[(block * {n_dims} + d) * 32 + u] = p[d];
}}
"""

    @wp.func_native(text)
    def sample_item(
        seed: int,
        step: wp.array[wp.int64],
        offset: int,
        n_points: int,
        cell_bits: int,
        item: int,
        x: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def sample_points(
        begin: int,
        # in
        seed: int,
        step: wp.array[wp.int64],  # [1]
        offset: int,  # number in the batch of the first of these points
        n_points: int,  # of the batch
        cell_bits: int,  # stratified: 2^cell_bits cells, at least n_points
        # out
        x: wp.array[float],  # [n_blocks, n_dims, 32], in [0, 1)
    ):
        """Points of the batch of this seed and step."""
        sample_item(seed, step, offset, n_points, cell_bits, begin + wp.tid(), x)

    return sample_points
