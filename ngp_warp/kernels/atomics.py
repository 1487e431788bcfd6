"""Vector additions to global memory without a returned value, for gradient scatters.

Source: the PTX ISA, ``red``: ``.v2.f32`` and ``.v4.f32`` need sm_90; older GPUs get scalar ones.
Warp's own ``atomic_add`` on a vec2 is two reductions on every GPU. On a CPU these are plain
additions: a launch must not let two threads write one address (see launch.py).

Nothing here is differentiable. The calling kernel must not read the table: the compiler may move
its reads past these additions. Float additions of many threads have no fixed order, so results
differ from run to run on a GPU.
"""

import warp as wp


def _text(n: int) -> str:
    """C++ text that adds n floats a, b, ... to table[index], ..., aligned to n floats."""
    names = "abcd"[:n]
    operands = ", ".join(f"%{i + 1}" for i in range(n))
    values = ", ".join(f'"f"({name})' for name in names)
    scalar = "\n".join(
        f'asm volatile("red.global.add.f32 [%0], %1;" :: "l"(address + {4 * i}), "f"({name}));'
        for i, name in enumerate(names)
    )
    plain = "\n".join(f"p[{i}] += {name};" for i, name in enumerate(names))
    return f"""
float* p = table.data + index;
#ifdef __CUDA_ARCH__
const size_t address = __cvta_generic_to_global(p);
#if __CUDA_ARCH__ >= 900
asm volatile("red.global.add.v{n}.f32 [%0], {{{operands}}};" :: "l"(address), {values});
#else
{scalar}
#endif
#else
{plain}
#endif
"""


@wp.func_native("if (touched.data) touched.data[group] = 1;")
def mark(touched: wp.array(dtype=wp.uint8), group: int):
    """Note that a group of entries got a gradient, where there are flags."""
    ...


@wp.func_native(_text(2))
def red_add_vec2(table: wp.array(dtype=float), index: wp.int64, a: float, b: float):
    """Add (a, b) to table[index], table[index + 1]; ``index`` is even."""
    ...


@wp.func_native(_text(4))
def red_add_vec4(
    table: wp.array(dtype=float), index: wp.int64, a: float, b: float, c: float, d: float
):
    """Add (a, b, c, d) to table[index] ... table[index + 3]; ``index`` is a multiple of 4."""
    ...
