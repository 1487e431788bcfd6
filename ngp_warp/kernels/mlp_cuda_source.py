"""C++ text of what runs forward through the layers of the fused network on CUDA.

A warp owns a block of 32 points, as two row tiles m of 16. Rows of the matrix products are points,
columns are features. Row g of tile m is point 4 g + 2 m of the block and row g + 8 is point
4 g + 2 m + 1 (g = lane / 4): so a lane's four points lie side by side in the blocked arrays, and
one 128-bit access moves them. ``acc[m][t][c]`` of a 16-feature tile is the element of column
8 t + 2 q + (c & 1) and row g + 8 (c >> 1) (q = lane % 4). Packed by pairs of c it is register
2 t + (c >> 1) of the next layer's A fragment: activations pass from layer to layer in registers.

Weights are read as B fragments of 16x16 (k, n) tiles, 16 bytes a lane: registers {b0, b1} of
columns 0-7, then of columns 8-15 (made by ``prepare`` of mlp_cuda_weights).

A snippet says which ``block`` is meant, whether it ``exists`` in what is written, and the block
that is read, ``source``: itself, or another one where it is not there; all lanes of a warp say the
same. ``fragment_words`` are a lane's.
"""

from ngp_warp.kernels.mlp_cuda_functions import ACTIVATIONS
from ngp_warp.kernels.mlp_cuda_layout import MlpLayout
from ngp_warp.kernels.warp_mma import PRIMITIVES


def product_text(
    source: str, k_tiles: int, n_tiles: int, fragments: str, epilogue: str, *, rolled: bool = False
) -> str:
    """Text of a matrix product; ``epilogue`` consumes acc, the tile nt of its columns.

    ``rolled``: tile after tile, by an epilogue that leaves nothing in registers. Unrolled, several
    tiles are computed side by side: that is faster where registers are left, and they are taken.
    """
    return f"""
{"WP_PRAGMA_NO_UNROLL" if rolled else "WP_PRAGMA_UNROLL"}
for (int nt = 0; nt < {n_tiles}; ++nt) {{
    float acc[2][2][4] = {{}};
    const u32* column = fragment_words + (size_t)({fragments} + nt * {k_tiles}) * 128;
    WP_PRAGMA_UNROLL
    for (int kt = 0; kt < {k_tiles}; ++kt) {{
        const uint4 b = load_constant(column + kt * 128);
        WP_PRAGMA_UNROLL
        for (int m = 0; m < 2; ++m) {{
            mma(acc[m][0], {source}[kt][m], b.x, b.y);
            mma(acc[m][1], {source}[kt][m], b.z, b.w);
        }}
    }}
    {epilogue}
}}"""


def converge_text(layout: MlpLayout) -> str:
    """Text that ends a hidden layer's epilogue: mma needs the whole warp at once."""
    return "converge();" if ACTIVATIONS[layout.activation].branches else ""


def _activate(layout: MlpLayout, tile: str, saved: bool) -> str:
    """Epilogue: apply the hidden activation, pack into the next A fragment ``tile``, save it."""
    return f"""
    WP_PRAGMA_UNROLL
    for (int m = 0; m < 2; ++m)
        WP_PRAGMA_UNROLL
        for (int r = 0; r < 4; ++r)
            {tile}[m][r] = pack(activation(acc[m][r >> 1][(r & 1) * 2]),
                activation(acc[m][r >> 1][(r & 1) * 2 + 1]));
    {_hidden_store(layout, tile) if saved else ""}
    {converge_text(layout)}"""


def rows_text(name: str, array: str, n_rows: int, block: str) -> str:
    """Text of a pointer to a lane's first values in a block of a blocked array; rows are 32 on."""
    return f"""
float* {name} = {array}.data
    + ((size_t){block} * {n_rows} + (lane & 3) * 2) * 32 + (lane >> 2) * 4;"""


def store_rows_text(array: str, n_rows: int, factor: str) -> str:
    """Epilogue: write the accumulators to a blocked array."""
    inside = f"exists && row + (lane & 3) * 2 < {n_rows}" if n_rows % 16 else "exists"
    return f"""{rows_text("to", array, n_rows, "block")}
    WP_PRAGMA_UNROLL
    for (int j = 0; j < 4; ++j) {{
        const int row = nt * 16 + (j >> 1) * 8 + (j & 1), t = j >> 1, c = j & 1;
        if ({inside})
            *(float4*)(to + row * 32) = float4 {{ acc[0][t][c]{factor}, acc[0][t][c + 2]{factor},
                acc[1][t][c]{factor}, acc[1][t][c + 2]{factor} }};
    }}
    converge();"""


def inputs_text(layout: MlpLayout, store: str) -> str:
    """Text that loads the block's inputs as A fragments ``u32 in[in_tiles][2][4]``."""
    return f"""
u32 in[{layout.in_tiles}][2][4];
{rows_text("from", "x", layout.n_in, "source")}
WP_PRAGMA_UNROLL
for (int kt = 0; kt < {layout.in_tiles}; ++kt) {{
    float4 v[4];
    WP_PRAGMA_UNROLL
    for (int j = 0; j < 4; ++j) {{
        const int row = kt * 16 + (j >> 1) * 8 + (j & 1);
        v[j] = float4 {{ 0.0f, 0.0f, 0.0f, 0.0f }};
        if (row + (lane & 3) * 2 < {layout.n_in}) v[j] = load_floats(from + row * 32);
    }}
    WP_PRAGMA_UNROLL
    for (int t = 0; t < 2; ++t) {{
        in[kt][0][2 * t] = pack(v[2 * t].x, v[2 * t + 1].x);
        in[kt][0][2 * t + 1] = pack(v[2 * t].y, v[2 * t + 1].y);
        in[kt][1][2 * t] = pack(v[2 * t].z, v[2 * t + 1].z);
        in[kt][1][2 * t + 1] = pack(v[2 * t].w, v[2 * t + 1].w);
    }}
}}
{store}
converge();"""


def _hidden_store(layout: MlpLayout, tile: str) -> str:
    """Text that saves a tile of a hidden layer, and its slope where h does not tell it."""
    tiles = layout.hidden_tiles
    text = f"save({layout.in_tiles} + layer * {tiles} + nt, {tile});"
    if not ACTIVATIONS[layout.activation].keeps_slope:
        return text
    return (
        text
        + f"""
    u32 kept[2][4];
    WP_PRAGMA_UNROLL
    for (int m = 0; m < 2; ++m)
        WP_PRAGMA_UNROLL
        for (int r = 0; r < 4; ++r)
            kept[m][r] = pack(activation_slope(acc[m][r >> 1][(r & 1) * 2]),
                activation_slope(acc[m][r >> 1][(r & 1) * 2 + 1]));
    save({layout.slope_tiles} + layer * {tiles} + nt, kept);"""
    )


def hidden_layers_text(layout: MlpLayout, saved: bool = False, recalled: bool = False) -> str:
    """Text of all hidden layers; leaves the last one's activations in ``h``.

    Args:
        layout: the network.
        saved: keep all activations by ``save``.
        recalled: do not hold two layers in registers, but read back what is saved of one.
    """
    tiles = layout.hidden_tiles

    def layer(source: str, k_tiles: int, fragments: str) -> str:
        epilogue = _activate(layout, "next" if recalled else "next[nt]", saved)
        back = recall_text("h", f"{layout.in_tiles} + layer * {tiles}", tiles)
        return f"""
    u32 next{"" if recalled else f"[{tiles}]"}[2][4];
    {product_text(source, k_tiles, tiles, fragments, epilogue, rolled=recalled)}
    {back if recalled else copy_text("h", "next", tiles)}"""

    text = f"""
u32 h[{tiles}][2][4];
{{
    const int layer = 0;
    {layer("in", layout.in_tiles, "0")}
}}"""
    if layout.n_hidden_layers == 1:
        return text
    return f"""{text}
WP_PRAGMA_NO_UNROLL
for (int layer = 1; layer < {layout.n_hidden_layers}; ++layer) {{
    {layer("h", tiles, f"{layout.hidden_fragments} + (layer - 1) * {tiles**2}")}
}}"""


def recall_text(target: str, first: str, tiles: int) -> str:
    """Text that reads a layer's fragments back, which this warp has saved from tile ``first``."""
    return f"""
    converge();
    WP_PRAGMA_UNROLL
    for (int nt = 0; nt < {tiles}; ++nt)
        WP_PRAGMA_UNROLL
        for (int m = 0; m < 2; ++m) recall({target}[nt][m], {first} + nt, m);"""


def copy_text(target: str, source: str, tiles: int) -> str:
    """Text that copies a layer's fragments."""
    return f"""
    WP_PRAGMA_UNROLL
    for (int nt = 0; nt < {tiles}; ++nt)
        WP_PRAGMA_UNROLL
        for (int i = 0; i < 8; ++i) {target}[nt][i >> 2][i & 3] = {source}[nt][i >> 2][i & 3];"""


def functions_text(layout: MlpLayout) -> str:
    """Text of the activation functions and their slopes."""
    hidden, output = ACTIVATIONS[layout.activation], ACTIVATIONS[layout.output_activation]
    return f"""
auto activation = [=](float z) -> float {{ return {hidden.value}; }};
auto activation_slope = [=](float {"z" if hidden.keeps_slope else "h"}) -> float {{
    return {hidden.slope};
}};
auto output_activation = [=](float z) -> float {{ return {output.value}; }};"""


def forward_text(layout: MlpLayout) -> str:
    """Snippet of ``forward(tid, fragments, x, count, y)``; no count (null): all blocks."""
    output = store_rows_text("y", layout.n_out, "")
    activated = f"""
    WP_PRAGMA_UNROLL
    for (int i = 0; i < 16; ++i)
        acc[i >> 3][(i >> 2) & 1][i & 3] = output_activation(acc[i >> 3][(i >> 2) & 1][i & 3]);
    {output}"""
    first = str(layout.last_fragments)
    last = product_text("h", layout.hidden_tiles, layout.out_tiles, first, activated)
    return f"""{PRIMITIVES}{functions_text(layout)}
const u32* fragment_words = fragments.data + lane * 4;
const int block = warp, source = block;
const bool exists = true;
if (count.data && block * 32 >= count.data[0]) return;  // a whole warp
{inputs_text(layout, "")}
{hidden_layers_text(layout)}
{last}
"""
