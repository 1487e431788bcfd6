"""The CUDA kernels compile for sm_80, sm_90 and sm_120; this needs no GPU and proves no result."""

import pytest
import warp as wp

from ngp_warp.kernels import mlp_cuda

TYPICAL = (32, 64, 2, 16, "relu", "none")
# uneven sizes, a slope that is stored, the largest fused width
UNEVEN = (35, 128, 3, 17, "sine", "sigmoid")


def compile_stage(config, stage, arch, folder, use_ptx):
    module = mlp_cuda.make_mlp_cuda_kernels(*config).stage(stage).module
    (path,) = wp.compile_aot_module(module, arch=arch, module_dir=folder, use_ptx=use_ptx)
    assert path.stat().st_size > 0
    return path


@pytest.mark.parametrize("arch", [80, 90, 120])
@pytest.mark.parametrize("stage", ["forward", "backward", "l2"])
def test_network_compiles(arch, stage, tmp_path):
    compile_stage(TYPICAL, stage, arch, tmp_path, use_ptx=False)


@pytest.mark.parametrize("arch", [80, 90, 120])
def test_uneven_network_compiles(arch, tmp_path):
    compile_stage(UNEVEN, "smape", arch, tmp_path, use_ptx=False)


@pytest.mark.parametrize("arch", [80, 90, 120])
def test_network_uses_tensor_cores_and_registers(arch, tmp_path):
    text = compile_stage(TYPICAL, "huber", arch, tmp_path, use_ptx=True).read_text()
    # 32-64-64-16 in tiles of 16, of 4 mma each: a tile of a layer forward and backward (a loop goes
    # over the others), and for each 16 of 128 points 2, 4 and 1 tiles of the weights' gradient
    assert text.count("mma.sync.aligned.m16n8k16") == 4 * (2 + 4 + 4 + 1 + 4 + 4) + 2 * 8 * 7
    assert "ldmatrix.sync" in text
    # a fragment indexed at run time would lie in local memory
    assert "__local_depot" not in text


def test_wide_network_uses_two_kernels(tmp_path):
    text = compile_stage(UNEVEN, "huber", 90, tmp_path, use_ptx=True).read_text()
    # more than fits on the chip: 48-128-128-128-32 forward and backward, unrolled but for layers
    assert text.count("mma.sync.aligned.m16n8k16") > 4 * 2 * (24 + 64 + 16)
    assert "movmatrix.sync" in text
    assert "ldmatrix.sync" not in text
    assert "__local_depot" not in text
