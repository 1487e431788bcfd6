"""The device fixture: every kernel test runs on the CPU, and on a GPU where there is one."""

import pytest


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=pytest.mark.cuda)])
def device(request):
    """Name of a Warp device; "cuda:0" skips where there is no GPU."""
    if request.param.startswith("cuda"):
        import warp as wp

        if not wp.is_cuda_available():
            pytest.skip("no NVIDIA GPU or driver on this machine")
    return request.param


@pytest.fixture(params=["vector", "portable"])
def backend(request, device):
    """Name of a backend of the grid and of Adam; "vector" skips on a GPU."""
    if request.param == "vector" and device != "cpu":
        pytest.skip("the vector kernels are for a CPU")
    return request.param
