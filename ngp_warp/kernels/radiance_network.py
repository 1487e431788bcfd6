"""C++ text of the fused radiance field on the CPU: encoding, density network, colour network.

Source: Mueller et al. 2022, section 3 (encoding) and appendix E (networks). Differentiable in the
table, the weights and the latent vectors. Twins: tests/reference/grid.py and mlp.py.

Features, activations and gradients of a chunk's samples stay in the second-level cache, in blocks
of 32 samples, [rows][32].
"""

from ngp_warp.kernels.grid import LEVEL, OFFSET, GridShape, corners, gather_text
from ngp_warp.kernels.mlp import ACTIVATIONS, MlpShape, apply_text, padded
from ngp_warp.kernels.radiance_rays import HARMONIC_SUMS, position_text
from ngp_warp.radiance.settings import N_GEOMETRY


def encode_text(grid: GridShape) -> str:
    """Return ``encode(x, features, first, end)``: the features of blocks of positions.

    One level after another over all blocks; x is [blocks][3][32], features [blocks][NF][32].
    """
    n = grid.n_features
    element = "_Float16" if grid.dtype == "float16" else "float"
    return f"""
typedef float vF __attribute__((ext_vector_type({n}), aligned(4)));
typedef _Float16 hF __attribute__((ext_vector_type({n}), aligned(2)));
// corners of 16 points, found while the cache lines of the 16 before are still on their way
struct Corners {{ u16 id[{2**grid.n_dims}]; v16 w[{2**grid.n_dims}]; }};
auto encode = [&](const float* x_, float* features, int first_block, int end_block)
    __attribute__((always_inline)) {{
    for (int level = 0; level < N_LEVELS; ++level) {{
        {LEVEL}
        const {element}* T = (const {element}*)table.data + (size_t)m_[{OFFSET}] * {n};
        const bool far = size * sizeof({element}) * {n} > {NEAR_BYTES};
        Corners next;
        auto look = [&](int i) __attribute__((always_inline)) {{
            const float* X = x_ + (size_t)(i >> 1) * 96 + (i & 1) * 16;
            {corners(grid)}
            __builtin_memcpy(next.id, id, sizeof id); __builtin_memcpy(next.w, w, sizeof w);
            if (far) {{ {prefetch_text(grid, f"T + (size_t)ids[c * 16 + u] * {n}", 0)} }}
        }};
        look(2 * first_block);
        for (int i = 2 * first_block; i < 2 * end_block; ++i) {{
            const Corners now = next;
            const u16* id = now.id; const v16* w = now.w;
            if (i + 1 < 2 * end_block) look(i + 1);
            float* O = features + ((size_t)(i >> 1) * NF + level * {n}) * 32 + (i & 1) * 16;
            {gather_text(grid)}
        }}
    }}
}};
"""


NEAR_BYTES = 2**18
"""Tables up to this size are taken to be in the second-level cache."""


def prefetch_text(grid: GridShape, address: str, write: int) -> str:
    """Return the text that asks for the cache lines of 16 points' corners.

    Corners next to each other along x mostly share a line: the first prime of the hash is 1.
    """
    even = [c for c in range(2**grid.n_dims) if c % 2 == 0]
    loops = "\n".join(
        f"for (int u = 0; u < 16; ++u) {{ const int c = {c};"
        f" __builtin_prefetch({address}, {write}); }}"
        for c in even
    )
    return f"const unsigned* ids = (const unsigned*)id;\n{loops}"


def forward_text(shape: MlpShape, prefix: str, weights: str, source: str) -> str:
    """Return a network's forward pass from ``source`` to PREFIX1, PREFIX2, ...: v16 (*)[2]."""
    text, offset, x = [], 0, source
    last = len(shape.layers) - 1
    for i, (j, k) in enumerate(shape.layers):
        name = shape.output_activation if i == last else shape.activation
        y = f"{prefix}{i + 1}"
        text.append(f"dense({weights} + {offset}, {k}, 1, {k}, {x}, {j}, {y});")
        text.append(apply_text(ACTIVATIONS[name][0], name, j, y, f"v16 z = {y}[j][v];"))
        offset, x = offset + j * k, y
    return "\n".join(text)


def backward_text(
    shape: MlpShape,
    prefix: str,
    weights: str,
    source: str,
    partials: str,
    n_inputs: int,
    target: str,
) -> str:
    """Return the backward pass from ``d`` (gradient of the outputs) to ``target`` and the partials.

    Args:
        shape: of the network.
        prefix: of the activations' names.
        weights: C++ pointer to the network's weights.
        source: name of the inputs.
        partials: C++ pointer, v16*, to the chunk's weight gradients.
        n_inputs: inputs whose gradients are wanted, the first ones.
        target: name of the inputs' gradients.
    """
    text = []
    offset, partial = shape.n_params, shape.n_partials
    last = len(shape.layers) - 1
    for i in reversed(range(last + 1)):
        j, k = shape.layers[i]
        name = shape.output_activation if i == last else shape.activation
        text.append(
            apply_text(
                f"d[j][v] * ({ACTIVATIONS[name][1]})",
                name,
                j,
                "d",
                f"v16 h = {prefix}{i + 1}[j][v]; (void)h;",
            )
        )
        offset, partial = offset - j * k, partial - j * padded(k)
        x = f"{prefix}{i}" if i else source
        text.append(f"wgrad({j}, d, {k}, {x}, {partials} + {partial // 16});")
        n, y = (k, "e") if i else (n_inputs, target)
        text.append(f"dense({weights} + {offset}, 1, {k}, {j}, d, {n}, {y});")
        if i:
            text.append(f"__builtin_memcpy(d, e, {k * 128});")
    return "\n".join(text)


def declare(shape: MlpShape, prefix: str) -> str:
    """Return local arrays for a network's activations."""
    return "\n".join(f"v16 {prefix}{i + 1}[{j}][2];" for i, (j, _) in enumerate(shape.layers))


def widest(*shapes: MlpShape) -> int:
    """Return the most rows of any layer of some networks, in whole vectors."""
    return max(max(padded(j), padded(k)) for shape in shapes for j, k in shape.layers)


# exp(-thickness) of every sample; the exponent is clamped, and so is its gradient (composite).
DENSITY = """
for (int block = first >> 5; block < ns >> 5; ++block) {
    const v16 (*x0)[2] = (const v16 (*)[2])(feat + (size_t)block * (NF * 32));
    DENSITY_FORWARD
    __builtin_memcpy(geo + (size_t)block * (NG * 32), GEOMETRY, NG * 128);
    for (int v = 0; v < 2; ++v) {
        const int i = block * 32 + v * 16;
        const v16 dt = step_at(*(const v16*)(st + i));
        const v16 thick = vexp(vmin(GEOMETRY[0][v], (v16)(15.f))) * (dt * AABB);
        *(v16*)(sod + i) = thick;
        *(v16*)(se + i) = vexp(-thick);
    }
}
"""


def density_text(shape: MlpShape) -> str:
    """Return the density network over a round's samples."""
    last = f"a{len(shape.layers)}"
    forward = forward_text(shape, "a", "density_weights", "x0")
    return DENSITY.replace("DENSITY_FORWARD", forward).replace("GEOMETRY", last)


# Real spherical harmonics of bands 0 to 3, for 16 rays at a time.
HARMONICS = """
for (int i = 0; i < nr; i += 16) {
    const v16 x = *(const v16*)(rd + i), y = *(const v16*)(rd + CR + i);
    const v16 z = *(const v16*)(rd + 2 * CR + i);
    const v16 xy = x * y, xz = x * z, yz = y * z, x2 = x * x, y2 = y * y, z2 = z * z;
    float* H = rsh + i;
    auto put = [&](int k, v16 value) __attribute__((always_inline)) {
        *(v16*)(H + k * CR) = value;
    };
    put(0, (v16)(0.28209479177387814f));
    put(1, -0.48860251190291987f * y);
    put(2, 0.48860251190291987f * z);
    put(3, -0.48860251190291987f * x);
    put(4, 1.0925484305920792f * xy);
    put(5, -1.0925484305920792f * yz);
    put(6, 0.94617469575755997f * z2 - 0.31539156525251999f);
    put(7, -1.0925484305920792f * xz);
    put(8, 0.54627421529603959f * (x2 - y2));
    put(9, 0.59004358992664352f * y * (y2 - 3.f * x2));
    put(10, 2.8906114426405538f * xy * z);
    put(11, 0.45704579946446572f * y * (1.f - 5.f * z2));
    put(12, 0.3731763325901154f * z * (5.f * z2 - 3.f));
    put(13, 0.45704579946446572f * x * (1.f - 5.f * z2));
    put(14, 1.4453057213202769f * z * (x2 - y2));
    put(15, 0.59004358992664352f * x * (3.f * y2 - x2));
}
"""

# Kept samples lie anywhere in the blocks of their rounds.
GATHER_ROWS = """
auto gather_rows = [&](const float* base, int n_rows, const int* samples, float* out)
    __attribute__((always_inline)) {
    for (int v = 0; v < 2; ++v) {
        const i16 s = *(const i16*)(samples + v * 16);
        const i16 at = (s >> 5) * (n_rows * 32) + (s & 31);
        for (int k = 0; k < n_rows; ++k) *(v16*)(out + k * 32 + v * 16) = gather(base + k * 32, at);
    }
};
"""

COLOR = """
while (nk & 31) { kidx[nk] = 0; kray[nk] = 0; ++nk; }
for (int block = 0; block < nk >> 5; ++block) {
    v16 (*y0)[2] = (v16 (*)[2])(kin + (size_t)block * (NCI * 32));
    gather_rows(geo, NG, kidx + block * 32, (float*)y0);
    for (int v = 0; v < 2; ++v) {
        const i16 r = *(const i16*)(kray + block * 32 + v * 16);
        for (int k = 0; k < 16; ++k) y0[NG + k][v] = gather(rsh + k * CR, r);
        LATENTS
    }
    COLOR_ARRAYS
    COLOR_FORWARD
    __builtin_memcpy(krgb + block * 96, RGB, 384);
}
"""

_LATENTS = """
        for (int l = 0; l < 16; ++l) {
            const int w = view.data[ray0 + r[l]];
            for (int k = 0; k < NLAT; ++k)
                ((float*)y0[NG + 16 + k])[v * 16 + l] = w < 0 ? 0.f : latents.data[w * NLAT + k];
        }
"""


def color_text(shape: MlpShape, n_latents: int, *, keep: bool) -> str:
    """Return the colour network over the kept samples.

    Args:
        shape: of the network.
        n_latents: rows of the latent vector.
        keep: keep the activations in the chunk's memory, for the backward pass.
    """
    last = len(shape.layers)
    names = color_activations(shape) if keep else declare(shape, "b")
    text = COLOR.replace("LATENTS", _LATENTS if n_latents else "")
    text = text.replace("COLOR_ARRAYS", names)
    text = text.replace("COLOR_FORWARD", forward_text(shape, "b", "color_weights", "y0"))
    return text.replace("RGB", f"b{last}")


def color_activations(shape: MlpShape) -> str:
    """Return the names of a block's activations of the colour network, kept by the chunk."""
    lines, offset = [], 0
    for i, (j, _) in enumerate(shape.layers):
        lines.append(
            f"v16 (*b{i + 1})[2] = (v16 (*)[2])(khid + (size_t)block * (NCH * 32) + {offset * 32});"
        )
        offset += j
    return "\n".join(lines)


BACKWARD = """
for (int block = 0; block < nk >> 5; ++block) {
    v16 (*y0)[2] = (v16 (*)[2])(kin + (size_t)block * (NCI * 32));
    COLOR_ARRAYS
    __builtin_memset(d, 0, sizeof d);
    __builtin_memcpy(d, kdrgb + block * 96, 384);
    COLOR_BACKWARD
    DLATENTS
    HARMONIC_SUMS
    __builtin_memcpy(d, e, NG * 128);
    for (int v = 0; v < 2; ++v) d[0][v] += *(const v16*)(kdraw + block * 32 + v * 16);
    v16 x0[NF][2];
    gather_rows(feat, NF, kidx + block * 32, (float*)x0);
    DENSITY_HIDDEN
    v16 (*dx)[2] = (v16 (*)[2])(region_d.data + ((size_t)chunk * (CS / 32) + block) * (NF * 32));
    DENSITY_BACKWARD
    gather_rows(sx, 3, kidx + block * 32,
                region_x.data + ((size_t)chunk * (CS / 32) + block) * 96);
    POSITIONS
}
region_n.data[chunk] = nk >> 5;
"""

# A ray's samples follow each other, so that its sum is made in their order.
_DLATENTS = """
    for (int p = 0; p < 32; ++p) for (int k = 0; k < NLAT; ++k)
        rdlat[kray[block * 32 + p] * NLAT + k] += ((const float*)e[NG + 16 + k])[p];
"""


def backward_sweep(
    density: MlpShape, color: MlpShape, n_latents: int, grid: GridShape, *, rays: bool
) -> str:
    """Return the backward pass over the kept samples: partials, gradients of features."""
    # The density network's activations are computed again from the gathered features: as fast as
    # gathering them. Its last layer is needed by the derivative of an output activation only.
    hidden = forward_text(density, "a", "density_weights", "x0")
    if density.output_activation == "none":
        cut = hidden.rindex("dense(")
        hidden = hidden[:cut]
    n_inputs = color.n_in if n_latents or rays else N_GEOMETRY
    back_color = backward_text(color, "b", "color_weights", "y0", "gc", n_inputs, "e")
    back_density = backward_text(density, "a", "density_weights", "x0", "gd", density.n_in, "dx")
    text = BACKWARD.replace("COLOR_ARRAYS", color_activations(color))
    text = text.replace("COLOR_BACKWARD", back_color).replace("DENSITY_BACKWARD", back_density)
    text = text.replace("DENSITY_HIDDEN", hidden)
    text = text.replace("HARMONIC_SUMS", HARMONIC_SUMS if rays else "")
    text = text.replace("POSITIONS", position_text(grid) if rays else "")
    return text.replace("DLATENTS", _DLATENTS if n_latents else "")
