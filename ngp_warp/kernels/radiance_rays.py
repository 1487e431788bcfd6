"""C++ text of the fused radiance field on the CPU: gradients of the rays' origins and directions.

Source: Mueller et al. 2022, section 3 (linear interpolation: the gradient is constant in a cell);
positions are o + t d with t held constant. The direction is taken as free, not as a unit vector, in
the spherical harmonics too. Twins: tests/reference/grid.py and spherical_harmonics.py.
"""

from ngp_warp.kernels.grid import LEVEL, OFFSET, GridShape, corners

# Gradients of the 16 polynomials of radiance_network.HARMONICS: (row, axis, derivative).
_SLOPES = (
    (1, 1, "(v16)(-0.48860251190291987f)"),
    (2, 2, "(v16)(0.48860251190291987f)"),
    (3, 0, "(v16)(-0.48860251190291987f)"),
    (4, 0, "1.0925484305920792f * y"),
    (4, 1, "1.0925484305920792f * x"),
    (5, 1, "-1.0925484305920792f * z"),
    (5, 2, "-1.0925484305920792f * y"),
    (6, 2, "1.8923493915151200f * z"),
    (7, 0, "-1.0925484305920792f * z"),
    (7, 2, "-1.0925484305920792f * x"),
    (8, 0, "1.0925484305920792f * x"),
    (8, 1, "-1.0925484305920792f * y"),
    (9, 0, "-3.5402615395598609f * x * y"),
    (9, 1, "1.7701307697799304f * (y * y - x * x)"),
    (10, 0, "2.8906114426405538f * y * z"),
    (10, 1, "2.8906114426405538f * x * z"),
    (10, 2, "2.8906114426405538f * x * y"),
    (11, 1, "0.45704579946446572f * (1.f - 5.f * z * z)"),
    (11, 2, "-4.5704579946446572f * y * z"),
    (12, 2, "0.3731763325901154f * (15.f * z * z - 3.f)"),
    (13, 0, "0.45704579946446572f * (1.f - 5.f * z * z)"),
    (13, 2, "-4.5704579946446572f * x * z"),
    (14, 0, "2.8906114426405538f * x * z"),
    (14, 1, "-2.8906114426405538f * y * z"),
    (14, 2, "1.4453057213202769f * (x * x - y * y)"),
    (15, 0, "1.7701307697799304f * (y * y - x * x)"),
    (15, 1, "3.5402615395598609f * x * y"),
)

CLEAR = """
for (int i = 0; i < 3 * CR; ++i) { rdo[i] = 0.f; rdd[i] = 0.f; }
for (int i = 0; i < 16 * CR; ++i) rdsh[i] = 0.f;
"""

# After the colour network's backward pass, e holds the gradients of its inputs.
HARMONIC_SUMS = """
    for (int p = 0; p < 32; ++p) for (int k = 0; k < 16; ++k)
        rdsh[k * CR + kray[block * 32 + p]] += ((const float*)e[NG + k])[p];
"""


def position_text(grid: GridShape) -> str:
    """Return the text from a block's feature gradients ``dx`` to its rays' gradients."""
    n, half = grid.n_features, grid.dtype == "float16"
    element = "_Float16" if half else "float"
    entry = f"T + (size_t)ids[c * 16 + u] * {n}"
    load = (
        f"__builtin_convertvector(*(const hF*)({entry}), vF)" if half else f"*(const vF*)({entry})"
    )
    slopes = []
    for axis in range(3):
        terms = []
        for c in range(8):
            if (c >> axis) & 1:
                continue
            others = [f"s{d}" if (c >> d) & 1 else f"(1.f - s{d})" for d in range(3) if d != axis]
            terms.append(f"(q[{c | 1 << axis}] - q[{c}]) * {' * '.join(others)}")
        slopes.append(f"slope[{axis}][v] += scale_l * ({' + '.join(terms)});")
    return f"""
    {{
        const float* place = region_x.data + ((size_t)chunk * (CS / 32) + block) * 96;
        v16 slope[3][2];
        for (int k = 0; k < 3; ++k) slope[k][0] = slope[k][1] = (v16)(0.f);
        for (int level = 0; level < N_LEVELS; ++level) {{
            {LEVEL}
            const {element}* T = (const {element}*)table.data + (size_t)m_[{OFFSET}] * {n};
            for (int v = 0; v < 2; ++v) {{
                const float* X = place + v * 16;
                {corners(grid)}
                (void)w;
                const unsigned* ids = (const unsigned*)id;
                v16 q[8];
                for (int u = 0; u < 16; ++u) {{
                    float g[{n}];
                    for (int f = 0; f < {n}; ++f)
                        g[f] = ((const float*)dx[level * {n} + f])[v * 16 + u];
                    for (int c = 0; c < 8; ++c) {{
                        const vF entry = {load};
                        float sum = 0.f;
                        for (int f = 0; f < {n}; ++f) sum += entry[f] * g[f];
                        ((float*)q)[c * 16 + u] = sum;
                    }}
                }}
                {" ".join(slopes)}
            }}
        }}
        for (int p = 0; p < 32; ++p) {{
            const int r = kray[block * 32 + p];
            const float t = st[kidx[block * 32 + p]];
            for (int k = 0; k < 3; ++k) {{
                const float g = ((const float*)slope[k])[p];
                rdo[k * CR + r] += g;
                rdd[k * CR + r] += t * g;
            }}
        }}
    }}
"""


def write_text() -> str:
    """Return the text that adds the harmonics' part and writes the rays' gradients."""
    sums = "\n".join(
        f"    g[{axis}] += *(const v16*)(rdsh + {row} * CR + i) * ({slope});"
        for row, axis, slope in _SLOPES
    )
    return f"""
for (int i = 0; i < nr; i += 16) {{
    const v16 x = *(const v16*)(rd + i), y = *(const v16*)(rd + CR + i);
    const v16 z = *(const v16*)(rd + 2 * CR + i);
    v16 g[3];
    for (int k = 0; k < 3; ++k) g[k] = *(const v16*)(rdd + k * CR + i);
{sums}
    for (int l = 0; l < 16 && i + l < nr; ++l) for (int k = 0; k < 3; ++k) {{
        d_origin.data[(ray0 + i + l) * 3 + k] = rdo[k * CR + i + l];
        d_direction.data[(ray0 + i + l) * 3 + k] = g[k][l];
    }}
}}
"""
