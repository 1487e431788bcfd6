"""The emulated CUDA device as Warp sees it: kernels, graphs, memory."""

import gc

import numpy as np
import pytest
import warp as wp

from tests.emulator.variables import PtxError


@wp.kernel
def double(a: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    out[i] = 2.0 * a[i]


def test_a_warp_kernel_runs_and_is_captured(emulated_cuda):
    before = sum(emulated_cuda.kernels_launched.values())
    a, b = (wp.array(np.arange(300, dtype=np.float32), device="cuda:0") for _ in range(2))
    wp.launch(double, 300, [a, b], device="cuda:0")
    np.testing.assert_array_equal(b.numpy(), 2 * np.arange(300))
    with wp.ScopedCapture("cuda:0") as capture:
        wp.launch(double, 300, [b, a], device="cuda:0")
        wp.copy(b, a)
    np.testing.assert_array_equal(a.numpy(), np.arange(300))  # nothing has run yet
    for _ in range(3):
        wp.capture_launch(capture.graph)
    np.testing.assert_array_equal(b.numpy(), 16 * np.arange(300))
    assert sum(emulated_cuda.kernels_launched.values()) == before + 4


def test_a_graph_keeps_the_memory_that_it_has_allocated(emulated_cuda):
    a, b = (wp.array(np.arange(300, dtype=np.float32), device="cuda:0") for _ in range(2))
    before = emulated_cuda.memory_used
    with wp.ScopedCapture("cuda:0") as capture:
        inner, outer = (wp.empty(300, dtype=float, device="cuda:0") for _ in range(2))
        wp.launch(double, 300, [a, inner], device="cuda:0")
        wp.launch(double, 300, [inner, outer], device="cuda:0")
        wp.launch(double, 300, [outer, b], device="cuda:0")
        del inner  # inside
    del outer  # and outside of the capture
    for _ in range(2):
        wp.capture_launch(capture.graph)
    np.testing.assert_array_equal(b.numpy(), 8 * np.arange(300))
    assert emulated_cuda.memory_used > before
    del capture
    gc.collect()
    assert emulated_cuda.memory_used == before


def test_a_graph_finds_no_values_of_its_last_launch(emulated_cuda):
    out = wp.zeros(4, dtype=float, device="cuda:0")
    with wp.ScopedCapture("cuda:0") as capture:
        own = wp.empty(4, dtype=float, device="cuda:0")
        wp.copy(out, own)
        own.fill_(1.0)
    for _ in range(2):
        wp.capture_launch(capture.graph)
    assert np.all(np.isnan(out.numpy()))


def test_a_graph_of_freed_memory_is_an_error(emulated_cuda):
    a, b = (wp.zeros(300, dtype=float, device="cuda:0") for _ in range(2))
    with wp.ScopedCapture("cuda:0") as kernel:
        wp.launch(double, 300, [a, b], device="cuda:0")
    with wp.ScopedCapture("cuda:0") as copy:
        wp.copy(b, a)
    with wp.ScopedCapture("cuda:0") as zero:
        b.zero_()
    del b
    gc.collect()
    for capture in (kernel, copy, zero):
        with pytest.raises(PtxError, match="no allocation"):
            wp.capture_launch(capture.graph)


def test_more_is_asked_for_than_there_is(emulated_cuda):
    device = wp.get_device("cuda:0")
    a = wp.empty(device.total_memory, dtype=wp.uint8, device=device)
    assert device.free_memory == 0
    del a


def test_new_memory_holds_no_zeros(emulated_cuda):
    assert np.all(np.isnan(wp.empty(64, dtype=float, device="cuda:0").numpy()))


@pytest.mark.parametrize("n", [299, 301])
def test_an_access_behind_an_array_is_found(emulated_cuda, n):
    a, b = wp.zeros(n, dtype=float, device="cuda:0"), wp.zeros(300, dtype=float, device="cuda:0")
    if n < 300:
        with pytest.raises(PtxError, match=r"no allocation|an allocation of"):
            wp.launch(double, 300, [a, b], device="cuda:0")
    else:
        wp.launch(double, 300, [a, b], device="cuda:0")


def test_an_array_of_the_host_is_not_the_devices(emulated_cuda):
    host, b = wp.zeros(300, dtype=float, device="cpu"), wp.zeros(300, dtype=float, device="cuda:0")
    with pytest.raises((PtxError, RuntimeError)):
        wp.launch(double, 300, [host, b], device="cuda:0")


def test_a_wait_in_a_capture_is_refused(emulated_cuda):
    a = wp.zeros(4, dtype=float, device="cuda:0")
    with wp.ScopedCapture("cuda:0"):
        with pytest.raises(PtxError, match="while a graph is captured"):
            a.numpy()
        with pytest.raises(RuntimeError, match="while graph capture is active"):
            wp.synchronize_device("cuda:0")
