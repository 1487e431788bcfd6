"""C++ text of one kernel for all of a small network's gradients: no activation leaves the chip.

Four warps, a thread block, run through four blocks of 32 points at a time: ``propagate``, as in
mlp_cuda_gradient, but what it saves goes to shared memory (see shared_tiles). After each layer's
deltas the warps meet, and together add dW[out, in] = sum delta x over the 128 points, each its own
tiles of dW in registers. These stay there while the thread block goes from points to points, and
are written once. A layer's deltas take the place of what told its slopes, so that shared memory
holds the inputs, the hidden layers and the outputs' deltas: 11 KB a warp for 32-64x2-16.

Group ``g`` of 128 points is the thread block's of number ``g % n_chunks``, so that what does not
count, the points behind ``count``, is missing from all alike. Then the sums' order is that of the
points, whatever the device. No warp ends before its thread block does: where a block of points
does not count, or is none, another one's inputs are read, and its deltas are zero.
"""

from dataclasses import dataclass

from ngp_warp.kernels.mlp_cuda_functions import ACTIVATIONS
from ngp_warp.kernels.mlp_cuda_gradient import (
    hidden_gradient_text,
    input_gradient_text,
    n_inside_text,
    no_gradient_text,
    output_text,
    save_inputs_text,
)
from ngp_warp.kernels.mlp_cuda_layout import MlpLayout
from ngp_warp.kernels.mlp_cuda_source import (
    functions_text,
    hidden_layers_text,
    inputs_text,
)
from ngp_warp.kernels.shared_tiles import tiles_text
from ngp_warp.kernels.vector import SCALAR
from ngp_warp.kernels.warp_mma import PRIMITIVES

WARPS = 4  # of a thread block: 2 x 2 or 4 x 1 of them share a layer's dW
GROUP = WARPS * 32  # points, and threads
# 48 KB of static shared memory without Warp's own, for 4 warps, in fragments of 32x16 halves
_MAX_TILES = 11
# Of 168 registers, with which three thread blocks share a multiprocessor: a layer's fragments, the
# next one's and the tiles of dW
_MAX_REGISTERS = 120


@dataclass(frozen=True)
class _Matrix:
    """A layer's dW and how four warps share it; sizes in tiles of 16."""

    number: int
    n_rows: int
    n_columns: int
    first: int
    """Of its weights in the flat array."""
    delta: int
    """First saved tile of its deltas."""
    input: int
    """First saved tile of its inputs."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of its tiles."""
        return -(-self.n_rows // 16), -(-self.n_columns // 16)

    @property
    def warps(self) -> tuple[int, int]:
        """Rows and columns of the warps: the fewest sums for each, then the fewest loads."""
        splits = [(4, 1), (2, 2), (1, 4)]
        shares = [(-(-self.grid[0] // r), -(-self.grid[1] // c)) for r, c in splits]
        costs = [(rows * columns, rows + columns) for rows, columns in shares]
        return splits[costs.index(min(costs))]

    @property
    def share(self) -> tuple[int, int]:
        """Rows and columns of a warp's tiles."""
        return -(-self.grid[0] // self.warps[0]), -(-self.grid[1] // self.warps[1])


def _n_tiles(layout: MlpLayout) -> int:
    """Fragments that a warp saves: those of ``propagate`` but for the hidden layers' deltas."""
    return layout.delta_tiles + layout.out_tiles


def _matrices(layout: MlpLayout) -> list[_Matrix]:
    """Return them, the first layer's first."""
    tiles, width, last = layout.hidden_tiles, layout.n_neurons, layout.n_hidden_layers
    found = [_Matrix(0, width, layout.n_in, 0, layout.kept_tiles, 0)]
    for i in range(1, last):
        first = layout.hidden_weights + (i - 1) * width**2
        delta, inputs = layout.kept_tiles + i * tiles, layout.in_tiles + (i - 1) * tiles
        found.append(_Matrix(i, width, width, first, delta, inputs))
    inputs = layout.in_tiles + (last - 1) * tiles
    deltas = layout.delta_tiles
    return [*found, _Matrix(last, layout.n_out, width, layout.last_weights, deltas, inputs)]


def fits(layout: MlpLayout) -> bool:
    """Whether a network's activations fit in shared memory, and its dW in registers."""
    if _n_tiles(layout) > _MAX_TILES:
        return False
    sums = sum(rows * columns for rows, columns in (m.share for m in _matrices(layout)))
    widest = max(layout.in_tiles, layout.hidden_tiles, layout.out_tiles)
    return 8 * (sums + widest + layout.hidden_tiles) <= _MAX_REGISTERS


def _loads(load: str, first: int, tile: str, n_share: int, n_warps: int, n_tiles: int) -> str:
    """Text that loads a warp's tiles; one that has none left takes the last again, for nothing."""
    text = ""
    for i in range(n_share):
        own = f"{tile} + {i}"
        if n_share * n_warps > n_tiles:
            own = f"({own} < {n_tiles} ? {own} : {n_tiles - 1})"
        text += f"\n        {load}[{i}], ({first} + {own}) * 2 + k);"
    return text


def _places(matrix: _Matrix) -> str:
    """Text of a warp's first tiles of a matrix."""
    (rows, columns), across = matrix.share, matrix.warps[1]
    return f"""
const int row_tile = part / {across} * {rows}, column_tile = part % {across} * {columns};"""


def _accumulate(layout: MlpLayout, matrix: _Matrix) -> str:
    """Text that adds the block's 128 points to dW; delta^T as A, the layer's input as B.

    Both have points along k, and are loaded transposed; the input's registers are {b0, b1} of
    columns 0-7, then of columns 8-15.
    """
    (rows, columns), (down, across), grid = matrix.share, matrix.warps, matrix.grid
    sums = f"sums{matrix.number}"
    load_rows = _loads("load_crossed(a", matrix.delta, "row_tile", rows, down, grid[0])
    load_columns = _loads("load_turned(b", matrix.input, "column_tile", columns, across, grid[1])
    return f"""
{{{_places(matrix)}
    WP_PRAGMA_UNROLL
    for (int step = 0; step < {2 * WARPS}; ++step) {{  // 16 points of a warp
        const int k = (step >> 1) * {2 * _n_tiles(layout)} + (step & 1);
        u32 a[{rows}][4], b[{columns}][4];{load_rows}{load_columns}
        WP_PRAGMA_UNROLL
        for (int i = 0; i < {rows}; ++i)
            WP_PRAGMA_UNROLL
            for (int j = 0; j < {columns}; ++j) {{
                mma({sums}[i][2 * j], a[i], b[j][0], b[j][1]);
                mma({sums}[i][2 * j + 1], a[i], b[j][2], b[j][3]);
            }}
    }}
}}"""


def _write(layout: MlpLayout, matrix: _Matrix) -> str:
    """Text that writes a warp's sums to its thread block's row of ``partials``."""
    rows, columns = matrix.share
    first, second = (f"sums{matrix.number}[i][j][2 * c{more}]" for more in ("", " + 1"))
    n_columns = matrix.n_columns
    # n_weights and the first weight of a matrix are multiples of 16
    if n_columns % 2:
        store = f"""
                if (column < {n_columns}) at[0] = {first};
                if (column + 1 < {n_columns}) at[1] = {second};"""
    else:
        store = f"""
                if (column < {n_columns}) store_pair(at, {first}, {second});"""
    return f"""
{{{_places(matrix)}
    WP_PRAGMA_UNROLL
    for (int i = 0; i < {rows}; ++i)
        WP_PRAGMA_UNROLL
        for (int j = 0; j < {2 * columns}; ++j)
            WP_PRAGMA_UNROLL
            for (int c = 0; c < 2; ++c) {{
                const int row = (row_tile + i) * 16 + c * 8 + (lane >> 2);
                const int column = column_tile * 16 + j * 8 + (lane & 3) * 2;
                if (row >= {matrix.n_rows}) continue;
                float* at = partials.data + (size_t)chunk * {layout.n_weights} + {matrix.first}
                    + row * {n_columns} + column;{store}
            }}
}}"""


def _backward_layers(layout: MlpLayout) -> str:
    """Text from the outputs' deltas to dx, and all layers' dW.

    The warps meet when all deltas of a layer are there, and again before what was an operand of
    its dW is written over: by the deltas before it, or, with slopes apart from h, in the next turn.
    """
    matrices, text = _matrices(layout), f"u32 back[{layout.hidden_tiles}][2][4];"
    done = "" if ACTIVATIONS[layout.activation].keeps_slope else "meet();"
    for number in reversed(range(layout.n_hidden_layers)):
        source = "back" if number < layout.n_hidden_layers - 1 else "delta"
        deltas = hidden_gradient_text(layout, source, "back", layout.kept_tiles, recalled=True)
        text += f"""
meet();
{_accumulate(layout, matrices[number + 1])}
{done}
{{
    const int layer = {number};
    {deltas}
}}"""
    return f"""{text}
{input_gradient_text(layout, "back", rolled=True)}
meet();
{_accumulate(layout, matrices[0])}
meet();"""


def gradient_text(layout: MlpLayout, stage: str) -> str:
    """Snippet of ``propagate`` of networks that fit: as ``propagate_text``, and dW.

    Arguments: tid, fragments, x, target, n_points, count (null: all points), n_chunks, scale,
    unscale, dx, loss_sums, partials [n_chunks, n_weights].

    Args:
        layout: the network.
        stage: "backward" or a loss's name, see ``output_text``.
    """
    n_tiles = _n_tiles(layout)
    sums = "".join(
        f"\nf32 sums{m.number}[{m.share[0]}][{2 * m.share[1]}][4] = {{}};"
        for m in _matrices(layout)
    )
    # what a lane's number tells is made anew in each turn: as constants of the loop these addresses
    # would take the registers that the sums need
    return f"""{PRIMITIVES}{functions_text(layout)}{SCALAR}
const int chunk = warp / {WARPS};
{n_inside_text(stage)}{sums}
int group = chunk;
WP_PRAGMA_NO_UNROLL
for (; group * {GROUP} < n_inside; group += n_chunks) {{
const int thread = again(tid), lane = thread & 31, part = (thread >> 5) & {WARPS - 1};
{tiles_text(2 * WARPS * n_tiles)}
auto save = [=](int tile, const u32 (&a)[2][4]) {{
    for (int m = 0; m < 2; ++m) store_tile((part * {n_tiles} + tile) * 2 + m, a[m]);
}};
auto recall = [=](u32 (&a)[4], int tile, int m) {{
    load_tile(a, (part * {n_tiles} + tile) * 2 + m);
}};
const int block = group * {WARPS} + part, source = block * 32 < n_inside ? block : block - part;
const bool exists = block * 32 < n_points;
const u32* fragment_words = fragments.data + lane * 4;
{inputs_text(layout, save_inputs_text(layout))}
{hidden_layers_text(layout, saved=True, recalled=True)}
{output_text(layout, stage, layout.delta_tiles, recalled=True)}
{_backward_layers(layout)}
}}
const int part = warp % {WARPS};
{_left_out(layout) if stage == "backward" else ""}
{"".join(_write(layout, m) for m in _matrices(layout))}
"""


def _left_out(layout: MlpLayout) -> str:
    """Text that makes dx of the groups that do not count zero."""
    return f"""
if (dx.data) {{
    for (; group * {GROUP} < n_points; group += n_chunks) {{
        const int block = group * {WARPS} + part;
        if (block * 32 < n_points) {{{no_gradient_text(layout)}
        }}
    }}
}}"""
