"""CUDA's kernels against the CPU's, on the emulated device: the rows of the GPU benchmark.

Those whose text for CUDA is its own run always, all with ``--emulate-cuda``.
"""

import numpy as np
import pytest

from benchmarks import gpu_agreement
from benchmarks.gpu_compare import Side, run_row
from ngp_warp.primitives.sdf import samples

# Vector loads and additions, tensor cores, sums of a warp, marching, draws; a whole step of each.
ALWAYS = {
    "grid forward, hash 3D linear",
    "grid forward, hash 3D smoothstep half F=4",
    "grid forward, tiled 3D linear F=8",
    "grid backward, hash 3D linear",
    "grid backward, tiled 3D linear F=8",
    "grid backward in fixed point",
    "grid slopes, hash 3D linear",
    "grid second order, hash 3D linear",
    "octree 3D sum",
    "sampler sobol 3D",
    "fused network, relu, l1",
    "fused network, sine, smape",
    "unfused network, tanh, l1",
    "loss huber",
    "eikonal step 3D",
    "Adam, half",
    "Adam, flagged",
    "radiance step",
    "occupancy grid",
    "marks of occupied cells",
    "original NeRF's step",
    "image step",
    "distances, sign normal",
    "sphere tracing",
    "volume step",
    "projection, surface",
}
ROWS = {row.name: row for row in gpu_agreement.all_rows(small=True)}


def test_every_row_of_the_list_is_one():
    assert set(ROWS) > ALWAYS


@pytest.mark.parametrize("name", ROWS)
def test_the_compiled_kernels_agree(name, emulated_cuda, request, monkeypatch):
    if name not in ALWAYS and not request.config.getoption("emulate_cuda"):
        pytest.skip("run all with --emulate-cuda --emulate-seconds 300")
    if name == "torch module":
        pytest.skip("torch has no emulated device")
    monkeypatch.setattr(samples, "_POOL_SLOTS", 2048)  # filled by the slow side too
    before = sum(emulated_cuda.kernels_launched.values())
    result = run_row(ROWS[name], Side("cpu", False), Side("cuda:0", True))
    assert result["ok"] is True, result
    assert sum(emulated_cuda.kernels_launched.values()) > before


def test_an_error_in_a_kernel_is_noticed(emulated_cuda, monkeypatch):
    """Additions that are lost, as by a wrong ``red``: the gradient differs."""
    monkeypatch.setattr(np, "add", LosesAdditions())
    result = run_row(
        ROWS["grid backward, hash 3D linear"], Side("cpu", False), Side("cuda:0", True)
    )
    assert result["ok"] is False


class LosesAdditions:
    """NumPy's ``add`` whose scattered additions leave out every other one."""

    def __init__(self):
        self._add = np.add

    def __call__(self, *args, **kwargs):
        return self._add(*args, **kwargs)

    def at(self, array, index, values):
        self._add.at(array, index[::2], values[::2])
