"""Every kernel of the package compiles for CUDA, or says why it need not; this needs no GPU.

The tensor-core network has tests of its own (test_cuda_compile.py).
"""

import importlib
import importlib.util
import inspect
import pkgutil
import re

import pytest
import warp as wp
from cuda_kernels import CPU_ONLY, FLAT, KERNELS, SINGLE, WIDE, WIDEST, Compiler

import ngp_warp.kernels
from ngp_warp.kernels import grid_cuda, occupancy, packed

# A100, H100 and H200, consumers' Blackwell
ARCHITECTURES = [80, 90, 120]


def kernel_modules():
    """Every module of kernels in the package."""
    folder = ngp_warp.kernels
    names = [f"{folder.__name__}.{m.name}" for m in pkgutil.iter_modules(folder.__path__)]
    primitives = importlib.import_module("ngp_warp.primitives")
    for m in pkgutil.iter_modules(primitives.__path__):
        name = f"ngp_warp.primitives.{m.name}.kernels"
        if m.ispkg and importlib.util.find_spec(name):
            # a module, or a package of some
            found = importlib.import_module(name)
            inner = pkgutil.iter_modules(getattr(found, "__path__", []))
            names += [name, *(f"{name}.{i.name}" for i in inner)]
    return [importlib.import_module(name) for name in names]


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    compiler = Compiler(tmp_path_factory.mktemp("ptx"))
    yield compiler
    compiler.close()


def test_no_kernel_is_left_out():
    listed = {f"{f.__module__}.{f.__name__}" for f in KERNELS} | CPU_ONLY
    found = set()
    for module in kernel_modules():
        for name, value in vars(module).items():
            if isinstance(value, wp.Kernel):
                assert value in SINGLE, f"{module.__name__}.{name} is not in SINGLE"
            elif (
                not name.startswith("_")
                and inspect.isfunction(inspect.unwrap(value))
                and value.__module__ == module.__name__
                and inspect.unwrap(value).__annotations__.get("return") is wp.Kernel
            ):
                found.add(f"{module.__name__}.{name}")
    assert found == listed


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(
    ("factory", "args"),
    [(factory, args) for factory, cases in KERNELS.items() for args in cases],
    ids=lambda v: v.__module__.rpartition(".")[2] + "." + v.__name__ if callable(v) else None,
)
def test_kernel_compiles(factory, args, arch, compiler):
    assert f".target sm_{arch}" in compiler.ptx(factory(*args), arch)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kernel", SINGLE, ids=lambda k: k.key)
def test_single_kernel_compiles(kernel, arch, compiler):
    assert f".target sm_{arch}" in compiler.ptx(kernel, arch)


@pytest.mark.parametrize(
    ("shape", "instruction"),
    [
        (FLAT, "ld.global.nc.v4.u32"),
        (FLAT, "ld.global.nc.v2.u32"),
        (WIDE, "ld.global.nc.v4.u32"),
        (WIDEST, "ld.global.nc.v4.u32"),
    ],
    ids=["twice 2 floats", "2 floats", "twice 4 halves", "8 floats"],
)
def test_entries_are_read_at_once(shape, instruction, compiler):
    text = compiler.ptx(grid_cuda.forward_kernel(shape), 90)
    assert instruction in text
    # a feature indexed at run time would lie in local memory
    assert "__local_depot" not in text


@pytest.mark.parametrize(
    ("shape", "width"), [(FLAT, "v2"), (FLAT, "v4"), (WIDE, "v4"), (WIDEST, "v4")]
)
def test_entries_are_added_to_at_once(shape, width, compiler):
    text = compiler.ptx(grid_cuda.backward_kernel(shape), 90)
    assert f"red.global.add.{width}.f32" in text
    assert "atom." not in text
    assert "__local_depot" not in text


def test_fixed_point_adds_integers(compiler):
    text = compiler.ptx(grid_cuda.backward_kernel(FLAT, True), 90)
    assert re.search(r"(atom|red)\S*add\S*u64", text)
    assert not re.search(r"(atom|red)\S*add\S*f32", text)


@pytest.mark.parametrize("kernel", [packed.counters_kernel, occupancy.store_kernel])
def test_long_sums_are_shared_by_a_warp(kernel, compiler):
    assert "shfl.sync.bfly" in compiler.ptx(kernel, 90)
