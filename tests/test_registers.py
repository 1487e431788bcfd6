"""The hot CUDA kernels spill no registers: read by cuobjdump from machine code, without a GPU."""

import functools
import re

import pytest
import warp as wp

from benchmarks import registers
from benchmarks.__main__ import main
from benchmarks.hot_kernels import Hot, hot_kernels
from benchmarks.registers import ARCHITECTURES, Usage, document, local_arrays, measure, read
from ngp_warp.errors import ResourceError
from ngp_warp.kernels.mlp_cuda import make_mlp_cuda_kernels
from ngp_warp.launch import module_options

TOOL = registers.find_tool()
needs_tool = pytest.mark.skipif(
    TOOL is None, reason="cuobjdump is not installed: pip install nvidia-cuda-cuobjdump"
)
# Bytes of a thread's stack that are arrays, not spilled registers: the exact argument reduction of
# sinf and cosf, the levels of a warp's tree walk (8, of two words), and the stack of Warp's (32
# nodes; the ray's and the winding number's).
ARRAYS = {
    "make rays": 32,
    "rays of a view": 32,
    "path tracer, pixels": 32,
    "path tracer, pool": 32,
    "query, normal": 64,
    "refresh near points, normal": 64,
    "query, raystab": 320,
    "query, winding": 512,
}
# 65,536 registers over two blocks of 256 threads, and over three of the networks' 128
MOST = {256: 128, 128: 168}
# What just fits in one kernel, see mlp_cuda_fused.fits: the most sums, inputs, outputs, layers
FITTING = [
    (32, 64, 2, 16, "softplus", "exponential"),
    (112, 16, 2, 16, "relu", "none"),
    (16, 64, 2, 30, "relu", "none"),
    (16, 64, 1, 64, "softplus", "sigmoid"),
    (64, 32, 3, 16, "tanh", "none"),
    (32, 64, 1, 16, "sine", "none"),
]


@pytest.fixture(scope="module")
def usages(tmp_path_factory):
    """Of every hot kernel on sm_90."""
    return measure(hot_kernels(), 90, tmp_path_factory.mktemp("cubin"), TOOL)


@needs_tool
def test_no_hot_kernel_spills(usages):
    stacks = {u.kernel: u.stack for u in usages if u.stack or u.local}
    assert stacks.keys() == ARRAYS.keys()
    for kernel, stack in stacks.items():
        assert stack <= ARRAYS[kernel], kernel
    assert not any(u.local for u in usages)


@needs_tool
def test_the_arrays_are_no_spilled_registers(tmp_path):
    kernels = [
        k for k in hot_kernels() if k.name in ("make rays", "rays of a view", "query, normal")
    ]
    for usage in measure(kernels, 90, tmp_path, TOOL, arrays=True):
        assert usage.arrays
        assert usage.spilled == 0


@needs_tool
def test_several_blocks_share_a_multiprocessor(usages):
    for usage in usages:
        # a path's state is large, and whole layers of 128 neurons lie in registers
        if "path tracer" not in usage.kernel and "128x2" not in usage.kernel:
            assert usage.registers <= MOST[usage.block_dim], usage.kernel


@needs_tool
def test_networks_that_just_fit_spill_nothing(tmp_path):
    hot = []
    for config in FITTING:
        made = make_mlp_cuda_kernels(*config)
        assert made.fused
        kernel = made.stage("huber").propagate
        key = re.sub("[.<>]", "_", kernel.key)
        hot.append(Hot("network", str(config), kernel.module, key, 128))
    for usage in measure(hot, 90, tmp_path, TOOL):
        assert (usage.stack, usage.local) == (0, 0), usage.kernel
        assert usage.registers <= MOST[128], usage.kernel
        assert usage.shared <= 48 << 10


@functools.cache
def array_kernel() -> wp.Kernel:
    """A kernel that keeps an array in local memory, as its place is not known when compiled."""
    text = """
float a[24];
for (int i = 0; i < 24; ++i) a[i] = x.data[tid + i];
for (int i = 0; i < 24; ++i) x.data[tid + i] = a[(i * n) % 24];
"""

    @wp.func_native(text)
    def turn(tid: int, n: int, x: wp.array[float]): ...

    @wp.kernel(module="unique", module_options=module_options())
    def turn_array(n: int, x: wp.array[float]):
        turn(wp.tid(), n, x)

    return turn_array


@needs_tool
def test_local_memory_is_noticed(tmp_path):
    kernel = array_kernel()
    hot = Hot("test", "array", kernel.module, re.sub("[.<>]", "_", kernel.key))
    (usage,) = measure([hot], 90, tmp_path, TOOL, arrays=True)
    assert usage.stack == usage.arrays == 96
    assert usage.spilled == 0


@needs_tool
def test_what_is_no_binary_is_refused(tmp_path):
    path = tmp_path / "x.cubin"
    path.write_text("nothing")
    with pytest.raises(ResourceError, match="cannot read"):
        read(path, TOOL)


def usage(**changed):
    values = {"part": "a", "kernel": "b", "arch": 90, "registers": 32, "stack": 0, "arrays": 0}
    return Usage(**{**values, "local": 0, "shared": 2048, "block_dim": 256, **changed})


@pytest.mark.parametrize(
    ("changed", "occupancy"),
    [
        ({}, 1.0),
        ({"registers": 33}, 0.75),
        ({"registers": 64}, 0.5),
        ({"registers": 249}, 0.125),
        ({"registers": 96, "block_dim": 128}, 0.3125),
        ({"registers": 33, "arch": 120}, 1.0),
        ({"shared": 100 << 10}, 0.25),
    ],
)
def test_occupancy(changed, occupancy):
    assert usage(**changed).occupancy == occupancy


def test_a_stack_beyond_its_arrays_is_spilled():
    assert usage(stack=72, arrays=28).spilled == 40
    assert usage(stack=32, arrays=28).spilled == 0
    assert "72 (40 spilled)" in document(
        [usage(arch=a, stack=72, arrays=28) for a in ARCHITECTURES]
    )


def test_arrays_are_those_of_the_function():
    text = (
        ".visible .entry f_1(\n.param .u64 a)\n{\n"
        ".local .align 4 .b8 \t__local_depot0[28];\n}\n"
        ".visible .entry g_1(\n)\n{\n.local .align 16 .b8 __local_depot1[512];\n}\n"
    )
    assert local_arrays(text, "f_1") == 28
    assert local_arrays(text, "g_1") == 512
    assert local_arrays(text, "h_1") == 0


def test_a_missing_tool_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(registers, "find_tool", lambda: None)
    assert main(["registers", "--out", str(tmp_path / "page.md")]) == 2
    assert "pip install nvidia-cuda-cuobjdump" in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()
