"""C++ text of the CUDA kernels that run through the layers of the fused network.

A warp owns a block of 32 points, as two row tiles m of 16. Rows of the matrix products are points,
columns are features. Row g of tile m is point 4 g + 2 m of the block and row g + 8 is point
4 g + 2 m + 1 (g = lane / 4): so a lane's four points lie side by side in the blocked arrays, and
one 128-bit access moves them. ``acc[m][t][c]`` of a 16-feature tile is the element of column
8 t + 2 q + (c & 1) and row g + 8 (c >> 1) (q = lane % 4). Packed by pairs of c it is register
2 t + (c >> 1) of the next layer's A fragment: activations pass from layer to layer in registers.

Weights are read as B fragments of 16x16 (k, n) tiles, 16 bytes a lane: registers {b0, b1} of
columns 0-7, then of columns 8-15 (made by ``prepare`` of mlp_cuda_weights). Activations and deltas
go as A fragments to ``scratch``, from which ``weight_gradient`` takes dW.
"""

from ngp_warp.kernels.loss import LOSSES
from ngp_warp.kernels.mlp_cuda_functions import ACTIVATIONS
from ngp_warp.kernels.mlp_cuda_layout import MlpLayout
from ngp_warp.kernels.vector import SCALAR
from ngp_warp.kernels.warp_mma import PRIMITIVES


def _layer(source: str, k_tiles: int, n_tiles: int, fragments: str, epilogue: str) -> str:
    """Text of a matrix product; ``epilogue`` consumes acc, the tile nt of its columns."""
    return f"""
WP_PRAGMA_UNROLL
for (int nt = 0; nt < {n_tiles}; ++nt) {{
    float acc[2][2][4] = {{}};
    WP_PRAGMA_UNROLL
    for (int kt = 0; kt < {k_tiles}; ++kt) {{
        const uint4 b = load_constant(
            fragments.data + ((size_t)({fragments} + nt * {k_tiles} + kt) * 32 + lane) * 4);
        WP_PRAGMA_UNROLL
        for (int m = 0; m < 2; ++m) {{
            mma(acc[m][0], {source}[kt][m], b.x, b.y);
            mma(acc[m][1], {source}[kt][m], b.z, b.w);
        }}
    }}
    {epilogue}
}}"""


def _converge(layout: MlpLayout) -> str:
    """Text that ends a hidden layer's epilogue: mma needs the whole warp at once."""
    return "converge();" if ACTIVATIONS[layout.activation].branches else ""


def _activate(layout: MlpLayout, target: str, saved: bool) -> str:
    """Epilogue: apply the hidden activation, pack into the next A fragment, save it."""
    return f"""
    WP_PRAGMA_UNROLL
    for (int m = 0; m < 2; ++m)
        WP_PRAGMA_UNROLL
        for (int r = 0; r < 4; ++r)
            {target}[nt][m][r] = pack(activation(acc[m][r >> 1][(r & 1) * 2]),
                activation(acc[m][r >> 1][(r & 1) * 2 + 1]));
    {_hidden_store(layout, target) if saved else ""}
    {_converge(layout)}"""


def _store_rows(array: str, n_rows: int, factor: str) -> str:
    """Epilogue: write the accumulators to a blocked array."""
    return f"""
    WP_PRAGMA_UNROLL
    for (int j = 0; j < 4; ++j) {{
        const int row = nt * 16 + (j >> 1) * 8 + (lane & 3) * 2 + (j & 1);
        const int t = j >> 1, c = j & 1;
        if (row < {n_rows})
            *(float4*)(({array}).data + ((size_t)block * {n_rows} + row) * 32 + (lane >> 2) * 4) =
                float4 {{ acc[0][t][c]{factor}, acc[0][t][c + 2]{factor},
                    acc[1][t][c]{factor}, acc[1][t][c + 2]{factor} }};
    }}
    converge();"""


def _inputs(layout: MlpLayout, store: str) -> str:
    """Text that loads the block's inputs as A fragments ``u32 in[in_tiles][2][4]``."""
    return f"""
u32 in[{layout.in_tiles}][2][4];
WP_PRAGMA_UNROLL
for (int kt = 0; kt < {layout.in_tiles}; ++kt) {{
    float4 v[4];
    WP_PRAGMA_UNROLL
    for (int j = 0; j < 4; ++j) {{
        const int row = kt * 16 + (j >> 1) * 8 + (lane & 3) * 2 + (j & 1);
        v[j] = float4 {{ 0.0f, 0.0f, 0.0f, 0.0f }};
        if (row < {layout.n_in})
            v[j] = load_floats(
                x.data + ((size_t)block * {layout.n_in} + row) * 32 + (lane >> 2) * 4);
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


def _hidden_store(layout: MlpLayout, target: str) -> str:
    """Text that saves a tile of a hidden layer, and its slope where h does not tell it."""
    tiles = layout.hidden_tiles
    text = f"save({layout.in_tiles} + layer * {tiles} + nt, {target}[nt]);"
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


def _hidden_layers(layout: MlpLayout, saved: bool) -> str:
    """Text of all hidden layers; leaves the last one's activations in ``h``."""
    tiles = layout.hidden_tiles
    first = _layer(
        "in",
        layout.in_tiles,
        tiles,
        "0",
        _activate(layout, "h", saved),
    )
    text = f"u32 h[{tiles}][2][4];\n{{ const int layer = 0;{first} }}"
    if layout.n_hidden_layers == 1:
        return text
    fragments = f"{layout.hidden_fragments} + (layer - 1) * {tiles**2}"
    following = _layer(
        "h",
        tiles,
        tiles,
        fragments,
        _activate(layout, "next", saved),
    )
    return f"""{text}
WP_PRAGMA_NO_UNROLL
for (int layer = 1; layer < {layout.n_hidden_layers}; ++layer) {{
    u32 next[{tiles}][2][4];
    {following}
    {_copy("h", "next", tiles)}
}}"""


def _copy(target: str, source: str, tiles: int) -> str:
    return f"""
    WP_PRAGMA_UNROLL
    for (int nt = 0; nt < {tiles}; ++nt)
        WP_PRAGMA_UNROLL
        for (int i = 0; i < 8; ++i) {target}[nt][i >> 2][i & 3] = {source}[nt][i >> 2][i & 3];"""


def _functions(layout: MlpLayout) -> str:
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
    output = _store_rows("y", layout.n_out, "")
    activated = f"""
    WP_PRAGMA_UNROLL
    for (int i = 0; i < 16; ++i)
        acc[i >> 3][(i >> 2) & 1][i & 3] = output_activation(acc[i >> 3][(i >> 2) & 1][i & 3]);
    {output}"""
    last = _layer("h", layout.hidden_tiles, layout.out_tiles, str(layout.last_fragments), activated)
    return f"""{PRIMITIVES}{_functions(layout)}
const int block = warp;
if (count.data && block * 32 >= count.data[0]) return;  // a whole warp
{_inputs(layout, "")}
{_hidden_layers(layout, saved=False)}
{last}
"""


def _output_gradient(layout: MlpLayout, stage: str) -> str:
    """Epilogue of the output layer: deltas dL/dz, scaled, zero outside the points and outputs."""
    slope = ACTIVATIONS[layout.output_activation].slope
    if stage == "backward":
        gradient = "const float gradient = t * scale;"
    else:
        value, slope_of_loss = LOSSES[stage]
        gradient = f"""
            const float p = h, d = p - t;
            if (inside) {{ loss += {value}; squares += d * d; }}
            const float gradient = ({slope_of_loss}) * scale;"""
    return f"""
    WP_PRAGMA_UNROLL
    for (int j = 0; j < 4; ++j) {{
        const int row = nt * 16 + (j >> 1) * 8 + (lane & 3) * 2 + (j & 1);
        float4 wanted = {{ 0.0f, 0.0f, 0.0f, 0.0f }};
        if (row < {layout.n_out})
            wanted = load_floats(
                target.data + ((size_t)block * {layout.n_out} + row) * 32 + (lane >> 2) * 4);
        WP_PRAGMA_UNROLL
        for (int i = 0; i < 4; ++i) {{
            const bool inside = row < {layout.n_out} && block * 32 + (lane >> 2) * 4 + i < n_inside;
            const float t = i == 0 ? wanted.x : i == 1 ? wanted.y : i == 2 ? wanted.z : wanted.w;
            float& cell = acc[i >> 1][j >> 1][(i & 1) * 2 + (j & 1)];
            const float z = cell;
            const float h = output_activation(z);
            {gradient}
            cell = inside ? gradient * ({slope}) : 0.0f;
        }}
    }}
    WP_PRAGMA_UNROLL
    for (int m = 0; m < 2; ++m)
        WP_PRAGMA_UNROLL
        for (int r = 0; r < 4; ++r)
            delta[nt][m][r] = pack(acc[m][r >> 1][(r & 1) * 2], acc[m][r >> 1][(r & 1) * 2 + 1]);
    save({layout.delta_tiles + layout.n_hidden_layers * layout.hidden_tiles} + nt, delta[nt]);
    converge();"""


def _hidden_gradient(layout: MlpLayout, target: str) -> str:
    """Epilogue: dL/dh of hidden layer ``layer`` times the activation's slope, packed and saved."""
    tiles = layout.hidden_tiles
    keeps_slope = ACTIVATIONS[layout.activation].keeps_slope
    kept = layout.slope_tiles if keeps_slope else layout.in_tiles
    slope = "" if keeps_slope else "activation_slope"
    return f"""
    WP_PRAGMA_UNROLL
    for (int m = 0; m < 2; ++m) {{
        const uint4 quad = load(scratch_tile({kept} + layer * {tiles} + nt, m));
        const u32 kept[4] = {{ quad.x, quad.y, quad.z, quad.w }};
        WP_PRAGMA_UNROLL
        for (int r = 0; r < 4; ++r)
            {target}[nt][m][r] = pack(acc[m][r >> 1][(r & 1) * 2] * {slope}(low(kept[r])),
                acc[m][r >> 1][(r & 1) * 2 + 1] * {slope}(high(kept[r])));
    }}
    save({layout.delta_tiles} + layer * {tiles} + nt, {target}[nt]);
    {_converge(layout)}"""


def _backward_layers(layout: MlpLayout) -> str:
    """Text from the output's deltas to the inputs' gradient."""
    tiles, total = layout.hidden_tiles, layout.n_fragments
    first = _layer(
        "delta",
        layout.out_tiles,
        tiles,
        str(total + layout.last_fragments),
        _hidden_gradient(layout, "back"),
    )
    text = f"""
u32 back[{tiles}][2][4];
{{ const int layer = {layout.n_hidden_layers - 1};{first} }}"""
    if layout.n_hidden_layers > 1:
        fragments = f"{total + layout.hidden_fragments} + layer * {tiles**2}"
        following = _layer("back", tiles, tiles, fragments, _hidden_gradient(layout, "next"))
        text += f"""
WP_PRAGMA_NO_UNROLL
for (int layer = {layout.n_hidden_layers - 2}; layer >= 0; --layer) {{
    u32 next[{tiles}][2][4];
    {following}
    {_copy("back", "next", tiles)}
}}"""
    inputs = _layer(
        "back", tiles, layout.in_tiles, str(total), _store_rows("dx", layout.n_in, " * unscale")
    )
    return f"{text}\nif (dx.data) {{{inputs}\n}}"


def _left_out(layout: MlpLayout) -> str:
    """Text that ends warps whose block does not count, after a dx of zero."""
    return f"""
const int n_inside = count.data && count.data[0] < n_points ? count.data[0] : n_points;
if (block * 32 >= n_inside) {{
    if (dx.data)
        for (int row = 0; row < {layout.n_in}; ++row)
            dx.data[((size_t)block * {layout.n_in} + row) * 32 + lane] = 0.0f;
    return;  // a whole warp
}}"""


def propagate_text(layout: MlpLayout, stage: str) -> str:
    """Snippet of ``propagate``: forward, output gradient, deltas of all layers, dx.

    Args:
        layout: the network.
        stage: "backward" (``target`` is dL/dy) or a loss's name (``target`` is the target).
    """
    tiles = layout.hidden_tiles
    save_inputs = f"""
WP_PRAGMA_UNROLL
for (int kt = 0; kt < {layout.in_tiles}; ++kt) save(kt, in[kt]);"""
    # dL/dy alone gives the deltas of a linear output: its product is left out
    counted = _left_out(layout) if stage == "backward" else "const int n_inside = n_points;"
    unused = stage == "backward" and layout.output_activation == "none"
    epilogue = _output_gradient(layout, stage)
    output = _layer(
        "h", 0 if unused else tiles, layout.out_tiles, str(layout.last_fragments), epilogue
    )
    total = (
        ""
        if stage == "backward"
        else """
for (int mask = 16; mask > 0; mask >>= 1) {
    loss = lane_sum(loss, mask);
    squares = lane_sum(squares, mask);
}
if (lane == 0) { loss_sums.data[2 * block] = loss; loss_sums.data[2 * block + 1] = squares; }"""
    )
    return f"""{PRIMITIVES}{_functions(layout)}{SCALAR}
const int block = first_block + warp;
{counted}
auto scratch_tile = [=](int tile, int m) -> u32* {{
    const size_t first = (size_t)warp * {layout.n_scratch_tiles} + tile;
    return scratch.data + (first * 2 + m) * 128 + lane * 4;
}};
auto save = [=](int tile, const u32 (&a)[2][4]) {{
    for (int m = 0; m < 2; ++m)
        *(uint4*)scratch_tile(tile, m) = uint4 {{ a[m][0], a[m][1], a[m][2], a[m][3] }};
}};
float loss = 0.0f, squares = 0.0f;
{_inputs(layout, save_inputs)}
{_hidden_layers(layout, saved=True)}
u32 delta[{layout.out_tiles}][2][4];
{output}
{total}
{_backward_layers(layout)}
"""
