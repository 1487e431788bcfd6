"""Plain accesses of contiguous arrays, for hot loops.

Warp's own look for negative indices and strides of 64 bits: eight instructions instead of two.
"""

import warp as wp


@wp.func_native("return (i & ~31) * n_rows + row * 32 + (i & 31);")
def blocked_at(i: int, row: int, n_rows: int) -> int:
    """Index of a row of point i in a blocked array."""
    ...


@wp.func_native("return values.data[i];")
def value_at(values: wp.array[float], i: int) -> float:
    """A value of a contiguous array."""
    ...


@wp.func_native("return (int)values.data[i];")
def byte_at(values: wp.array[wp.uint8], i: int) -> int:
    """A byte of a contiguous array."""
    ...


@wp.func_native("values.data[i] = v;")
def put_value(values: wp.array[float], i: int, v: float):
    """Set a value of a contiguous array."""
    ...


@wp.func_native("""
const float* rows = values.data + (i & ~31) * 3 + (i & 31);
return wp::vec3(rows[0], rows[32], rows[64]);
""")
def rows_at(values: wp.array[float], i: int) -> wp.vec3:
    """The three rows of a point of a blocked array."""
    ...


@wp.func_native("""
float* rows = values.data + (i & ~31) * 3 + (i & 31);
for (int row = 0; row < 3; ++row) rows[row * 32] = v[row];
""")
def put_rows(values: wp.array[float], i: int, v: wp.vec3):
    """Set the three rows of a point of a blocked array."""
    ...


@wp.func
def vector_at(values: wp.array[float], i: int):
    """Three values of a contiguous array, from 3 i on."""
    return wp.vec3(
        value_at(values, i * 3), value_at(values, i * 3 + 1), value_at(values, i * 3 + 2)
    )
