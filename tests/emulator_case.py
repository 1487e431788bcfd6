"""PTX by hand, run on the emulated device's threads."""

import numpy as np

from tests.emulator import machine
from tests.emulator.memory import GlobalMemory
from tests.emulator.program import Program
from tests.emulator.text import Module

HEAD = ".version 8.0\n.target sm_90\n.address_size 64\n"
N = 64


def run(body, *arrays, before="", blocks=2, block_dim=32, races=True, traffic=None):
    """Run a kernel's text on arrays, whose addresses are in %rd0, %rd1, ...; %r0 is the thread.

    The arrays are changed in place.
    """
    names = [f"p{i}" for i in range(len(arrays))]
    params = ",".join(f".param .u64 {name}" for name in names)
    loads = "".join(f"ld.param.u64 %rd{i}, [{name}];\n" for i, name in enumerate(names))
    text = f"""{HEAD}{before}
.visible .entry k({params}) {{
.reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<30>; .reg .f32 %f<30>; .reg .b64 %rd<30>;
.reg .f64 %fd<9>;
{loads}
mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x;
mad.lo.s32 %r0, %r1, %r2, %r0;
{body}
}}"""
    memory = GlobalMemory()
    for array in arrays:
        memory.add(array.ctypes.data, array.nbytes)
    module = Module(text)
    program = Program(module, "k", {})
    raw = np.array([a.ctypes.data for a in arrays] + [0] * 2, np.uint64).view(np.uint8)
    grid = machine.Grid((blocks, 1, 1), block_dim)
    machine.launch(program, grid, raw, memory, races=races, traffic=traffic)


def words(values):
    """An array that Warp would have aligned."""
    values = np.asarray(values)
    raw = np.zeros(values.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    found = raw[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    found[...] = values
    return found


def each(text, dtype, *inputs, result=None):
    """Return what ``text`` makes of %f1, %f2, ... (or %r, %rd, %fd) in %f9, one value a thread."""
    inputs = [words(np.asarray(v, dtype)) for v in inputs]
    out = words(np.zeros(N, result or dtype))
    letter = {"f4": "f", "f8": "fd", "i4": "r", "u4": "r", "i8": "rd", "u8": "rd"}
    kind = {"f4": "f32", "f8": "f64", "i4": "b32", "u4": "b32", "i8": "b64", "u8": "b64"}
    body = ""
    for i, v in enumerate(inputs):
        name = v.dtype.str[1:]
        target = {"f": 1, "fd": 1, "r": 11, "rd": 11}[letter[name]] + i
        body += f"""mul.wide.s32 %rd20, %r0, {v.itemsize}; add.s64 %rd20, %rd{i}, %rd20;
ld.global.{kind[name]} %{letter[name]}{target}, [%rd20];\n"""
    name = out.dtype.str[1:]
    target = {"f": 9, "fd": 8, "r": 19, "rd": 19}[letter[name]]
    body += f"""{text}
mul.wide.s32 %rd20, %r0, {out.itemsize}; add.s64 %rd20, %rd{len(inputs)}, %rd20;
st.global.{kind[name]} [%rd20], %{letter[name]}{target}; ret;"""
    run(body, *inputs, out)
    return out


RNG = np.random.default_rng(0)
A32, B32 = (RNG.integers(-(2**31), 2**31, N).astype(np.int32) for _ in range(2))
X, Y, Z = (RNG.normal(size=N).astype(np.float32) * 10 for _ in range(3))
