"""CUDA's kernels against the CPU's, on the emulated device: the rows of the GPU benchmark.

The slow ones run with ``--emulate-cuda`` alone.
"""

import numpy as np
import pytest

from benchmarks import gpu_agreement
from benchmarks.gpu_compare import Side, run_row
from ngp_warp.primitives.sdf import samples

# and what they take on one core of an AMD EPYC, in seconds
SLOW = {
    "distances, sign raystab": 94,
    "distances, sign winding": 17,
    "radiance pictures and points": 64,
    "scene step": 26,
    "scene step, environment": 22,
    "scene step, refined": 24,
    "volume's light, step": 153,
    "volume, learned": 111,
}
ROWS = {row.name: row for row in gpu_agreement.all_rows(small=True)}


def test_every_slow_row_is_one():
    assert set(SLOW) < set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_the_compiled_kernels_agree(name, emulated_cuda, request, monkeypatch):
    if name in SLOW and not request.config.getoption("emulate_cuda"):
        pytest.skip(f"takes {SLOW[name]} s: run with --emulate-cuda")
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
