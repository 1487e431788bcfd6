"""Text of a walk through a sparse octree, for the kernels in kernels/octree.py.

From the root by the bits of a position, to the cells of all levels. Nothing here is differentiable.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OctreeShape:
    """What the kernels are compiled for."""

    n_dims: int
    n_features: int
    first_level: int
    last_level: int
    summed: bool = False

    @property
    def n_rows(self) -> int:
        """Rows of the features."""
        levels = 1 if self.summed else self.last_level - self.first_level + 1
        return levels * self.n_features


def product(shape: OctreeShape, c: int, slopes: tuple[int, ...]) -> str:
    """Return prod a_d of a corner, with s_d for the axes in ``slopes``."""
    factors = []
    for d in range(shape.n_dims):
        bit = (c >> d) & 1
        if d in slopes:
            factors.append("scale" if bit else "-scale")
        else:
            factors.append(f"f{d}" if bit else f"(1.f - f{d})")
    return " * ".join(factors)


def along(shape: OctreeShape, c: int) -> str:
    """Return u_c = v . dw_c/dx."""
    return " + ".join(f"v{d} * {product(shape, c, (d,))}" for d in range(shape.n_dims))


def walk(shape: OctreeShape, each: str, only_level: str = "") -> str:
    """Return the text that walks to a point's cells.

    ``each`` is the text for a cell, and finds corners, row, scale and the fractions f0, f1, f2.
    ``only_level`` is a variable: that level's cell alone.
    """
    n_dims, last = shape.n_dims, shape.last_level
    axes = range(n_dims)
    inside = " && ".join(f"x{d} >= 0.f && x{d} <= 1.f" for d in axes)
    cell = "".join(
        f"const int i{d} = (int)(x{d} * {1 << last}.f) < {(1 << last) - 1}"
        f" ? (int)(x{d} * {1 << last}.f) : {(1 << last) - 1};"
        for d in axes
    )
    column = " | ".join(f"((i{d} >> ({last} - l) & 1) << {d})" for d in axes)
    fractions = "".join(f"const float f{d} = x{d} * scale - (i{d} >> ({last} - l));" for d in axes)
    until = only_level or str(last)
    return f"""
    {" ".join(f"const float x{d} = X[{d * 32}];" for d in axes)}
    if ({inside}) {{
        {cell}
        int node = 0;
        for (int l = 0; l <= {until}; ++l) {{
            if (l) node = child.data[node * {1 << n_dims} + ({column})];
            if (node < 0) break;
            if (l < {only_level or shape.first_level}) continue;
            const float scale = (float)(1 << l);
            {fractions}
            const int* corners = corner.data + (node - first_cell) * {1 << n_dims};
            const int row = {"0" if shape.summed else f"(l - {shape.first_level})"}
                * {shape.n_features * 32};
            {each}
        }}
    }}"""


def points(shape: OctreeShape, body: str) -> str:
    """Return the text over the points of an item: a block on a CPU, one point on CUDA."""
    text = f"""
    const float* X = x.data + (size_t)block * {shape.n_dims * 32} + u;
    const size_t at_x = (size_t)block * {shape.n_dims * 32} + u;
    const size_t at = (size_t)block * {shape.n_rows * 32} + u;
    {body}"""
    return f"""
#ifdef __CUDA_ARCH__
const int block = item / 32, u = item % 32;
{text}
#else
const int block = item;
for (int u = 0; u < 32; ++u) {{
{text}
}}
#endif
"""
