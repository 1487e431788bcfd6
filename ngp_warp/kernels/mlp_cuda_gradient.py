"""C++ text of ``propagate``: forward, output gradient, deltas of all layers, the inputs' gradient.

Activations and deltas go as A fragments to ``scratch``, from which ``weight_gradient`` of
mlp_cuda_weights takes dW. Small networks have a kernel of both, see mlp_cuda_fused, which shares
what is here. Of a fragment's place a snippet says by two functions: ``save(tile, a)`` keeps
``u32 a[2][4]``, ``recall(a, tile, m)`` gives back ``u32 a[4]`` of row tile m.
"""

from ngp_warp.kernels.loss import LOSSES
from ngp_warp.kernels.mlp_cuda_functions import ACTIVATIONS
from ngp_warp.kernels.mlp_cuda_layout import MlpLayout
from ngp_warp.kernels.mlp_cuda_source import (
    converge_text,
    copy_text,
    functions_text,
    hidden_layers_text,
    inputs_text,
    product_text,
    recall_text,
    rows_text,
    store_rows_text,
)
from ngp_warp.kernels.vector import SCALAR
from ngp_warp.kernels.warp_mma import PRIMITIVES


def _output_gradient(layout: MlpLayout, stage: str, tile: str, deltas: int) -> str:
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
    return f"""{rows_text("from", "target", layout.n_out, "source")}
    WP_PRAGMA_UNROLL
    for (int j = 0; j < 4; ++j) {{
        const int row = nt * 16 + (j >> 1) * 8 + (j & 1);
        const bool has_row = row + (lane & 3) * 2 < {layout.n_out};
        float4 wanted = {{ 0.0f, 0.0f, 0.0f, 0.0f }};
        if (has_row) wanted = load_floats(from + row * 32);
        WP_PRAGMA_UNROLL
        for (int i = 0; i < 4; ++i) {{
            const bool inside = has_row && block * 32 + (lane >> 2) * 4 + i < n_inside;
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
            {tile}[m][r] = pack(acc[m][r >> 1][(r & 1) * 2], acc[m][r >> 1][(r & 1) * 2 + 1]);
    save({deltas} + nt, {tile});
    converge();"""


def output_text(layout: MlpLayout, stage: str, deltas: int, *, recalled: bool = False) -> str:
    """Text from ``h`` to the outputs' ``delta``, saved from tile ``deltas`` on, and the loss.

    Args:
        layout: the network.
        stage: "backward" (``target`` is dL/dy) or a loss's name (``target`` is the target).
        deltas: a tile.
        recalled: see ``hidden_layers_text``.
    """
    # dL/dy alone gives the deltas of a linear output: its product is left out
    unused = stage == "backward" and layout.output_activation == "none"
    k_tiles = 0 if unused else layout.hidden_tiles
    epilogue = _output_gradient(layout, stage, "next" if recalled else "delta[nt]", deltas)
    first = str(layout.last_fragments)
    product = product_text("h", k_tiles, layout.out_tiles, first, epilogue, rolled=recalled)
    if recalled:
        product = f"{{ u32 next[2][4];{product} }}"
        product += recall_text("delta", str(deltas), layout.out_tiles)
    text = f"""
float loss = 0.0f, squares = 0.0f;
u32 delta[{layout.out_tiles}][2][4];
{product}"""
    if stage == "backward":
        return text
    return f"""{text}
for (int mask = 16; mask > 0; mask >>= 1) {{
    loss = lane_sum(loss, mask);
    squares = lane_sum(squares, mask);
}}
if (lane == 0 && exists) {{
    loss_sums.data[2 * block] = loss;
    loss_sums.data[2 * block + 1] = squares;
}}
converge();"""


def hidden_gradient_text(
    layout: MlpLayout, source: str, target: str, deltas: int, *, recalled: bool = False
) -> str:
    """Text of the deltas ``target`` of hidden layer ``layer``, from the next one's, ``source``.

    They are dL/dh times the activation's slope, saved from tile ``deltas`` on, layer after layer.
    ``recalled``: see ``hidden_layers_text``.
    """
    tiles, first = layout.hidden_tiles, f"{deltas} + layer * {layout.hidden_tiles}"
    slope = "" if ACTIVATIONS[layout.activation].keeps_slope else "activation_slope"
    tile = "next" if recalled else f"{target}[nt]"
    # both before any slope, in which lanes may branch
    epilogue = f"""
    u32 kept[2][4];
    WP_PRAGMA_UNROLL
    for (int m = 0; m < 2; ++m) recall(kept[m], {layout.kept_tiles} + layer * {tiles} + nt, m);
    WP_PRAGMA_UNROLL
    for (int m = 0; m < 2; ++m)
        WP_PRAGMA_UNROLL
        for (int r = 0; r < 4; ++r)
            {tile}[m][r] = pack(acc[m][r >> 1][(r & 1) * 2] * {slope}(low(kept[m][r])),
                acc[m][r >> 1][(r & 1) * 2 + 1] * {slope}(high(kept[m][r])));
    save({first} + nt, {tile});
    {converge_text(layout)}"""
    total = layout.n_fragments
    k_tiles, fragments = tiles, f"{total + layout.hidden_fragments} + layer * {tiles**2}"
    if source == "delta":
        k_tiles, fragments = layout.out_tiles, str(total + layout.last_fragments)
    product = product_text(source, k_tiles, tiles, fragments, epilogue, rolled=recalled)
    if not recalled:
        return product
    return f"u32 next[2][4];\n{product}\n{recall_text(target, first, tiles)}"


def input_gradient_text(layout: MlpLayout, source: str, *, rolled: bool = False) -> str:
    """Text of dx, where it is wanted, from the first layer's deltas ``source``."""
    epilogue = store_rows_text("dx", layout.n_in, " * unscale")
    tiles, first = layout.hidden_tiles, str(layout.n_fragments)
    product = product_text(source, tiles, layout.in_tiles, first, epilogue, rolled=rolled)
    return f"if (dx.data) {{{product}\n}}"


def save_inputs_text(layout: MlpLayout) -> str:
    """Text that saves the inputs as the first tiles."""
    return f"""
WP_PRAGMA_UNROLL
for (int kt = 0; kt < {layout.in_tiles}; ++kt) save(kt, in[kt]);"""


def no_gradient_text(layout: MlpLayout) -> str:
    """Statement that makes dx of a block zero."""
    return f"""
for (int row = 0; row < {layout.n_in}; ++row)
    dx.data[((size_t)block * {layout.n_in} + row) * 32 + lane] = 0.0f;"""


def n_inside_text(stage: str) -> str:
    """Text of the number of points that count; only a backward pass can have fewer than all."""
    if stage == "backward":
        counted = "count.data && count.data[0] < n_points"
        return f"const int n_inside = {counted} ? count.data[0] : n_points;"
    return "const int n_inside = n_points;"


def _backward_layers(layout: MlpLayout) -> str:
    """Text from the output's deltas to the inputs' gradient."""
    tiles, deltas = layout.hidden_tiles, layout.delta_tiles
    first = hidden_gradient_text(layout, "delta", "back", deltas)
    text = f"""
u32 back[{tiles}][2][4];
{{ const int layer = {layout.n_hidden_layers - 1};{first} }}"""
    if layout.n_hidden_layers > 1:
        text += f"""
WP_PRAGMA_NO_UNROLL
for (int layer = {layout.n_hidden_layers - 2}; layer >= 0; --layer) {{
    u32 next[{tiles}][2][4];
    {hidden_gradient_text(layout, "back", "next", deltas)}
    {copy_text("back", "next", tiles)}
}}"""
    return f"{text}\n{input_gradient_text(layout, 'back')}"


def propagate_text(layout: MlpLayout, stage: str) -> str:
    """Snippet of ``propagate``; a warp ends where its block does not count.

    Args:
        layout: the network.
        stage: "backward" or a loss's name, see ``output_text``.
    """
    output_deltas = layout.delta_tiles + layout.n_hidden_layers * layout.hidden_tiles
    left_out = f"""
if (block * 32 >= n_inside) {{
    if (dx.data) {{{no_gradient_text(layout)}
    }}
    return;  // a whole warp
}}"""
    return f"""{PRIMITIVES}{functions_text(layout)}{SCALAR}
const u32* fragment_words = fragments.data + lane * 4;
const int block = first_block + warp, source = block;
const bool exists = true;
{n_inside_text(stage)}
{left_out if stage == "backward" else ""}
auto scratch_tile = [=](int tile, int m) -> u32* {{
    const size_t first = (size_t)warp * {layout.n_scratch_tiles} + tile;
    return scratch.data + (first * 2 + m) * 128 + lane * 4;
}};
auto save = [=](int tile, const u32 (&a)[2][4]) {{
    for (int m = 0; m < 2; ++m)
        *(uint4*)scratch_tile(tile, m) = uint4 {{ a[m][0], a[m][1], a[m][2], a[m][3] }};
}};
auto recall = [=](u32 (&a)[4], int tile, int m) {{
    const uint4 quad = load(scratch_tile(tile, m));
    a[0] = quad.x;
    a[1] = quad.y;
    a[2] = quad.z;
    a[3] = quad.w;
}};
{inputs_text(layout, save_inputs_text(layout))}
{hidden_layers_text(layout, saved=True)}
{output_text(layout, stage, output_deltas)}
{_backward_layers(layout)}
"""
