"""C++ text with which lanes of a warp that lie in one cell of a grid add as one, on CUDA.

Points of a batch lie in Morton order or along rays, so that cells of coarse levels hold many lanes
of a warp. Additions to one address are made one after another, registers are not. Source of the
sums: E. Westphal, "Voting and Shuffling to Optimize Atomic Operations" (NVIDIA, 2015), the idea.
Whoever puts this text into a kernel sees to it that all lanes of a warp come there together.
"""

from ngp_warp.kernels.grid import GridShape

FULL = "0xffffffffu"
# What a lane has of its own at a time: registers.
_MOST_BYTES = 64
# Bits of an axis in a cell's key, of 31 in all: the rest are the keys of lanes that add nothing.
_KEY_BITS = {2: 15, 3: 10}


def chunks(shape: GridShape, value_bytes: int) -> list[range]:
    """Return the corners whose values are summed together: pairs at least, which share accesses."""
    n = shape.n_corners
    step = max(_MOST_BYTES // (shape.n_features * value_bytes), 2)
    return [range(c, min(c + step, n)) for c in range(0, n, step)]


def find_text(shape: GridShape) -> str:
    """Return the text that finds who adds for whom, given ``moves``: whether a lane has anything.

    ``adds``: whether the lane adds, its own and what others have; ``others``: the lanes after it in
    its cell, a bit each; ``place``: how many lanes of the cell are before it.

    Levels of more cells than a key has are finer than points lie. Lanes are looked for only where
    two that are neighbours along an axis, in Morton order, share a cell.
    """
    axes, bits = range(shape.n_dims), _KEY_BITS[shape.n_dims]
    cell = " | ".join(f"u{d} << {bits * d}" for d in axes)
    # not "||": all lanes take part in all
    near = " | ".join(f"(__shfl_xor_sync({FULL}, key, {1 << d}) == key)" for d in axes)
    return f"""
bool adds = moves;
unsigned others = 0u, place = 0u;
if (scale_l < {2**bits - 1}.f) {{
    const unsigned key = moves ? {cell} : ~lane;
    const bool near = {near};
    if (__any_sync({FULL}, near)) {{
        const unsigned cell_lanes = __match_any_sync({FULL}, key);
        others = cell_lanes & (0xfffffffeu << lane);
        place = __popc(cell_lanes & ~(0xffffffffu << lane));
        adds = moves && place == 0u;
    }}
}}
"""


def sum_text(n: int) -> str:
    """Return the text that sums v[0] ... v[n - 1] over the lanes of a cell, for its first one.

    In each round every lane takes the next one's sum, and each second lane is done with.
    """
    values = "\n".join(
        f"const auto t{i} = __shfl_sync({FULL}, v[{i}], next - 1); v[{i}] += next ? t{i} : 0;"
        for i in range(n)
    )
    return f"""
unsigned rest = others, at = place;
WP_PRAGMA_NO_UNROLL
while (__any_sync({FULL}, rest)) {{
    const int next = __ffs(rest);  // 0: none
    {values}
    rest &= __ballot_sync({FULL}, !(at & 1u));
    at >>= 1;
}}
"""
