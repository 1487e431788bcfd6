"""C++ text of the grid's accesses of memory on CUDA: a cell's entries, and their gradients.

Source: the PTX ISA, ``ld.global.nc`` and ``red``. To be put where ``id[c]``, ``w[c]`` and
``offset`` are known: see grid_cuda, which says why corners share accesses.
"""

from ngp_warp.kernels.grid import GridShape

# Bytes that one access of global memory moves at most.
WIDEST = 16


def _entry_bytes(shape: GridShape) -> int:
    return shape.n_features * (2 if shape.dtype == "float16" else 4)


def _paired(shape: GridShape, n_bytes: int) -> bool:
    """Return whether corners x and x + 1 may share an access."""
    return shape.n_corners > 1 and 2 * n_bytes <= WIDEST


def _words(n_bytes: int) -> tuple[int, str, str]:
    """Return how many registers an access fills, and its PTX suffix and constraint."""
    if n_bytes == 2:
        return 1, "u16", "h"
    n = n_bytes // 4
    return n, "u32" if n == 1 else f"v{n}.u32", "r"


def _word(n_bytes: int) -> str:
    """Return the C++ type of such a register."""
    return "unsigned short" if n_bytes == 2 else "unsigned"


def _load(n_bytes: int, target: str, address: str, guard: str = "") -> str:
    """Return an asm statement that loads n_bytes to target[0], ...; guard: where this is not 1."""
    n, suffix, kind = _words(n_bytes)
    names = ", ".join(f"%{i}" for i in range(n))
    names = names if n == 1 else f"{{{names}}}"
    outputs = ", ".join(f'"{"+" if guard else "="}{kind}"({target}[{i}])' for i in range(n))
    text = f"ld.global.nc.{suffix} {names}, [%{n}];"
    inputs = f'"l"({address})'
    if guard:
        text = f"{{ .reg .pred p; setp.ne.u32 p, %{n + 1}, 1; @p {text} }}"
        inputs += f', "r"({guard})'
    return f'asm("{text}" : {outputs} : {inputs});'


def _address(n_bytes: int, index: str) -> str:
    """Return the address of an entry: one instruction, where C++ takes four."""
    return f"address(entries, {index}, {n_bytes})"


_ENTRIES = """
auto address = [](size_t base, unsigned index, unsigned n_bytes) -> size_t {{
    size_t found;
    asm("mad.wide.u32 %0, %1, %2, %3;" : "=l"(found) : "r"(index), "r"(n_bytes), "l"(base));
    return found;
}};
const size_t entries = address(__cvta_generic_to_global({array}.data), offset, {n_bytes});
"""


def gather_text(shape: GridShape) -> str:
    """Return CUDA's text that adds to y[f] the sum over corners of w[c] T[id[c]][f]."""
    n, n_bytes = shape.n_corners, _entry_bytes(shape)
    lines = [_ENTRIES.format(array="table", n_bytes=n_bytes)]
    if _paired(shape, n_bytes):
        lines += _load_pairs(n, n_bytes)
    else:
        lines.append(f"{_word(n_bytes)} e[{n}][{max(n_bytes // 4, 1)}];")
        step = min(n_bytes, WIDEST)
        for c in range(n):
            for k in range(0, n_bytes, step):
                target = f"(e[{c}] + {k // 4})"
                lines.append(_load(step, target, f"{_address(n_bytes, f'id[{c}]')} + {k}"))
    for c in range(n):
        for f in range(shape.n_features):
            value = f"__uint_as_float(e[{c}][{f}])"
            if shape.dtype == "float16":
                bits = f"e[{c}][{f // 2}]" + (" >> 16" if f % 2 else "")
                value = f"half_value((unsigned short)({bits}))"
            lines.append(f"y[{f}] += w[{c}] * {value};")
    return "\n".join(lines)


def _load_pairs(n: int, n_bytes: int) -> list[str]:
    """Return the text that loads e[c], the words of the corners' entries.

    All loads come first, so that a thread waits once: entries 2 k and 2 k + 1 of every corner c,
    and corner c + 1's own where it lies elsewhere.
    """
    word = _word(n_bytes)
    n_words, all_words = _words(n_bytes)[0], _words(2 * n_bytes)[0]
    lines = [f"{word} e[{n}][{n_words}];"]
    for c in range(0, n, 2):
        lines.append(f"unsigned both{c}[{all_words}]; {word} other{c}[{n_words}] = {{}};")
        lines.append(_load(2 * n_bytes, f"both{c}", _address(n_bytes, f"id[{c}] & ~1u")))
        guard = f"id[{c}] ^ id[{c + 1}]"
        lines.append(_load(n_bytes, f"other{c}", _address(n_bytes, f"id[{c + 1}]"), guard))
    for c in range(0, n, 2):
        apart, odd = f"(id[{c}] ^ id[{c + 1}]) != 1u", f"id[{c}] & 1u"
        for k in range(n_words):
            low, high = f"both{c}[{k}]", f"both{c}[{k + n_words}]"
            if n_bytes == 2:
                low, high = f"({word})both{c}[0]", f"({word})(both{c}[0] >> 16)"
            lines.append(f"e[{c}][{k}] = {odd} ? {high} : {low};")
            lines.append(f"e[{c + 1}][{k}] = {apart} ? other{c}[{k}] : {odd} ? {low} : {high};")
    return lines


def _red(address: str, values: list[str]) -> str:
    """Return an asm statement that adds floats to memory."""
    n = len(values)
    suffix = "" if n == 1 else f".v{n}"
    names = ", ".join(f"%{i + 1}" for i in range(n))
    operands = names if n == 1 else f"{{{names}}}"
    inputs = ", ".join(f'"f"({v})' for v in values)
    return (
        f'asm volatile("red.global.add{suffix}.f32 [%0], {operands};" :: "l"({address}), {inputs});'
    )


def entries_text(shape: GridShape) -> str:
    """Return CUDA's text that ``scatter_text`` needs once."""
    return _ENTRIES.format(array="d_table", n_bytes=4 * shape.n_features)


def scatter_text(shape: GridShape, corners: range) -> str:
    """Return CUDA's text that adds v[0], v[1], ...: corners' entries, feature by feature."""
    n_features = shape.n_features
    n_bytes = 4 * n_features
    values = {c: [f"v[{k * n_features + f}]" for f in range(n_features)]
              for k, c in enumerate(corners)}  # fmt: skip
    at = {c: _address(n_bytes, f"id[{c}]") for c in corners}
    if _paired(shape, n_bytes):
        vectors = [_add_pair(c, values[c], values[c + 1]) for c in corners[::2]]
    else:
        vectors = [_add(at[c], values[c]) for c in corners]
    scalars = [_red(f"{at[c]} + {4 * f}", [v]) for c in corners for f, v in enumerate(values[c])]
    texts = ("\n".join(lines) for lines in (vectors, scalars))
    return "#if __CUDA_ARCH__ >= 900\n{}\n#else\n{}\n#endif".format(*texts)


def _add(address: str, values: list[str]) -> str:
    """Return the text that adds to one entry, four features at a time."""
    n = len(values)
    return "\n".join(
        _red(f"{address} + {4 * k}", values[k : k + 4]) for k in range(0, n, min(n, 4))
    )


def _add_pair(c: int, first: list[str], second: list[str]) -> str:
    """Return the text that adds to corners c and c + 1: at once, or where they lie apart, twice."""
    n_bytes = 4 * len(first)
    odd = f"id[{c}] & 1u"
    both = [f"{odd} ? {b} : {a}" for a, b in zip(first, second, strict=True)]
    both += [f"{odd} ? {a} : {b}" for a, b in zip(first, second, strict=True)]
    return f"""
if ((id[{c}] ^ id[{c + 1}]) == 1u) {{
    {_red(_address(n_bytes, f"id[{c}] & ~1u"), both)}
}} else {{
    {_red(_address(n_bytes, f"id[{c}]"), first)}
    {_red(_address(n_bytes, f"id[{c + 1}]"), second)}
}}"""
