"""C++ text of the CUDA kernels around the network's weights.

``prepare`` lays the weights out as half B fragments, once W (k = inputs) and once transposed (k =
outputs) for the backward pass. ``weight_gradient`` takes dW[out, in] = sum over points of delta x
from the fragments that ``propagate`` left in scratch (see mlp_cuda_source), transposing 8x8 tiles
in registers. ``reduce`` sums its partial results.
"""

from ngp_warp.kernels.mlp_cuda_layout import MlpLayout
from ngp_warp.kernels.warp_mma import PRIMITIVES

# a warp's tile of dW, in 16x16 tiles: 2 x 4 are 64 accumulators, and 6 loads feed 16 mma
_MAX_ROW_TILES = 2
_MAX_COLUMN_TILES = 4


def prepare_text(layout: MlpLayout) -> str:
    """Snippet of ``prepare(tid, weights, fragments)``: one 32-bit register a thread."""
    kh, ki, ko = layout.hidden_tiles, layout.in_tiles, layout.out_tiles
    return f"""{PRIMITIVES}
const int tile = tid >> 7;  // 16x16 weights in 128 registers
const bool transposed = tile >= {layout.n_fragments};
int local = transposed ? tile - {layout.n_fragments} : tile;
int n_rows = {layout.n_neurons}, n_columns = {layout.n_neurons}, first = 0;
int row_tiles = {kh}, column_tiles = {kh};
if (local < {layout.hidden_fragments}) {{
    n_columns = {layout.n_in};
    column_tiles = {ki};
}} else if (local < {layout.last_fragments}) {{
    local -= {layout.hidden_fragments};
    first = {layout.hidden_weights} + (local / {kh * kh}) * {layout.n_neurons**2};
    local %= {kh * kh};
}} else {{
    local -= {layout.last_fragments};
    first = {layout.last_weights};
    n_rows = {layout.n_out};
    row_tiles = {ko};
}}
const int k_tiles = transposed ? row_tiles : column_tiles;
const int target = (tid >> 2) & 31, r = tid & 3;
const int n = (local / k_tiles) * 16 + (r >> 1) * 8 + (target >> 2);
float v[2];
for (int i = 0; i < 2; ++i) {{
    const int k = (local % k_tiles) * 16 + (r & 1) * 8 + (target & 3) * 2 + i;
    const int row = transposed ? k : n, column = transposed ? n : k;
    const bool inside = row < n_rows && column < n_columns;
    v[i] = inside ? weights.data[first + row * n_columns + column] : 0.0f;
}}
fragments.data[tid] = pack(v[0], v[1]);
"""


def _divisor(n: int, largest: int) -> int:
    """Largest divisor of ``n`` that is at most ``largest``."""
    return next(d for d in range(largest, 0, -1) if n % d == 0)


def _jobs(row_tiles: int, column_tiles: int) -> int:
    """Warps that share a matrix of so many tiles."""
    rows, columns = _divisor(row_tiles, _MAX_ROW_TILES), _divisor(column_tiles, _MAX_COLUMN_TILES)
    return (row_tiles // rows) * (column_tiles // columns)


def n_jobs(layout: MlpLayout) -> int:
    """Warps that share one chunk of points in ``weight_gradient``."""
    hidden = layout.hidden_tiles
    between = (layout.n_hidden_layers - 1) * _jobs(hidden, hidden)
    return _jobs(hidden, layout.in_tiles) + between + _jobs(layout.out_tiles, hidden)


def _accumulate(rows: int, columns: int, layout: MlpLayout) -> str:
    """Text of one warp's share, rows x columns tiles; delta^T as A, the layer's input as B.

    Both have points along k. Transposing 8x8 tiles turns the saved A fragments (rows = points) into
    these: registers 1 and 2 of delta change places, those of the input are {b0, b1} of two columns.
    """
    return f"""
const int row_tile = job / column_groups * {rows}, column_tile = job % column_groups * {columns};
float acc[{rows}][{2 * columns}][4] = {{}};
WP_PRAGMA_NO_UNROLL
for (int block = begin; block < end; ++block) {{
    const u32* tiles = scratch.data + (size_t)block * {layout.n_scratch_tiles * 256} + lane * 4;
    WP_PRAGMA_UNROLL
    for (int m = 0; m < 2; ++m) {{
        u32 a[{rows}][4];
        WP_PRAGMA_UNROLL
        for (int i = 0; i < {rows}; ++i) {{
            const uint4 v = load_constant(tiles + ((delta_tile + row_tile + i) * 2 + m) * 128);
            a[i][0] = transpose(v.x);
            a[i][1] = transpose(v.z);
            a[i][2] = transpose(v.y);
            a[i][3] = transpose(v.w);
        }}
        WP_PRAGMA_UNROLL
        for (int j = 0; j < {columns}; ++j) {{
            const uint4 v = load_constant(tiles + ((input_tile + column_tile + j) * 2 + m) * 128);
            const u32 b[4] = {{ transpose(v.x), transpose(v.y), transpose(v.z), transpose(v.w) }};
            WP_PRAGMA_UNROLL
            for (int i = 0; i < {rows}; ++i) {{
                mma(acc[i][2 * j], a[i], b[0], b[1]);
                mma(acc[i][2 * j + 1], a[i], b[2], b[3]);
            }}
        }}
    }}
}}
WP_PRAGMA_UNROLL
for (int i = 0; i < {rows}; ++i)
    WP_PRAGMA_UNROLL
    for (int j = 0; j < {2 * columns}; ++j)
        WP_PRAGMA_UNROLL
        for (int c = 0; c < 4; ++c) {{
            const int row = (row_tile + i) * 16 + (c >> 1) * 8 + (lane >> 2);
            const int column = column_tile * 16 + j * 8 + (lane & 3) * 2 + (c & 1);
            if (row < n_rows && column < n_columns) {{
                float* sum = partials.data + (size_t)chunk * {layout.n_weights} + first
                    + row * n_columns + column;
                *sum = acc[i][j][c] + (accumulate ? *sum : 0.0f);
            }}
        }}"""


def _matrix(layout: MlpLayout, row_tiles: int, column_tiles: int, setting: str) -> str:
    """Text of one matrix' branch: ``setting`` names its rows, columns, weights and layer."""
    rows, columns = _divisor(row_tiles, _MAX_ROW_TILES), _divisor(column_tiles, _MAX_COLUMN_TILES)
    return f"""
    const int column_groups = {column_tiles // columns};
    {setting}
    const int delta_tile = {layout.delta_tiles} + layer * {layout.hidden_tiles};
    const int input_tile = layer == 0 ? 0 : {layout.in_tiles} + (layer - 1) * {layout.hidden_tiles};
    {_accumulate(rows, columns, layout)}"""


def weight_gradient_text(layout: MlpLayout) -> str:
    """Snippet of ``weight_gradient``: a warp owns a tile of one layer's dW and a chunk of blocks.

    Arguments: tid, scratch, n_blocks, first_block (of the slice), count (null: all points),
    blocks_per_chunk, accumulate (add to what earlier slices left in ``partials``), partials
    [n_chunks, n_weights].
    """
    hidden, n_hidden = layout.hidden_tiles, layout.n_hidden_layers
    each = _jobs(hidden, hidden)
    n_first, n_between = _jobs(hidden, layout.in_tiles), (n_hidden - 1) * each
    first = _matrix(
        layout,
        hidden,
        layout.in_tiles,
        f"""
    const int layer = 0, first = 0, n_rows = {layout.n_neurons}, n_columns = {layout.n_in};""",
    )
    between = _matrix(
        layout,
        hidden,
        hidden,
        f"""
    job -= {n_first};
    const int layer = 1 + job / {each}, n_rows = {layout.n_neurons}, n_columns = n_rows;
    const int first = {layout.hidden_weights} + (layer - 1) * {layout.n_neurons**2};
    job %= {each};""",
    )
    last = _matrix(
        layout,
        layout.out_tiles,
        hidden,
        f"""
    job -= {n_first + n_between};
    const int layer = {n_hidden}, first = {layout.last_weights};
    const int n_rows = {layout.n_out}, n_columns = {layout.n_neurons};""",
    )
    middle = f"else if (job < {n_first + n_between}) {{{between}\n}} " if n_hidden > 1 else ""
    return f"""{PRIMITIVES}
const int chunk = warp / {n_jobs(layout)};
int job = warp % {n_jobs(layout)};
const int begin = chunk * blocks_per_chunk;
int end = begin + blocks_per_chunk < n_blocks ? begin + blocks_per_chunk : n_blocks;
if (count.data) {{
    const int counted = (count.data[0] + 31) / 32 - first_block;
    end = end < counted ? end : counted;
    if (accumulate && begin >= end) return;  // a whole warp
}}
if (job < {n_first}) {{{first}
}} {middle}else {{{last}
}}
"""


def reduce_text(layout: MlpLayout) -> str:
    """Snippet of ``reduce(tid, partials, n_chunks, unscale, gradient)``: sums in a fixed order.

    A block of four warps sums 8 weights, each eighth of a warp every 16th chunk: hundreds of them,
    which lie far apart, all under way at a time. What is not there counts as zero.
    """
    return f"""{PRIMITIVES}
#ifdef __CUDA_ARCH__
__shared__ float parts[128];
auto meet = []() {{ __syncthreads(); }};
#else
static float parts[128];
auto meet = []() {{ wp_cpu_tile_sync(); }};
#endif
const int weight = (tid >> 7) * 8 + (lane & 7), chunk0 = (warp & 3) * 4 + (lane >> 3);
float sum = 0.0f;
if (weight < {layout.n_weights}) {{
    for (int first = chunk0; first < n_chunks; first += 16 * 32) {{
        float part[32];
        #pragma unroll
        for (int i = 0; i < 32; ++i) {{
            const int chunk = first + 16 * i;
            part[i] = 0.0f;
            if (chunk < n_chunks)
                part[i] = partials.data[(size_t)chunk * {layout.n_weights} + weight];
        }}
        #pragma unroll
        for (int i = 0; i < 32; ++i) sum += part[i];
    }}
}}
parts[tid & 127] = sum;
meet();
if ((tid & 127) < 8 && weight < {layout.n_weights}) {{
    float total = 0.0f;
    for (int i = 0; i < 16; ++i) total += parts[i * 8 + lane];
    gradient.data[weight] = total * unscale;
}}
"""
