"""Laws of the image primitive's kernels, against their float64 twin."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.primitives.image.kernels import raster_kernel, target_kernel
from ngp_warp.views import flat_view
from tests.reference import image as twin

N = 256
WIDTH, HEIGHT = 37, 23


def run_targets(pixels, x, gain, bilinear, asinh, device):
    """Return the kernel's targets [N, c] and the positions [N, 2] that it leaves."""
    channels = pixels.shape[2]
    dtype = {"uint8": wp.uint8, "uint16": wp.uint16, "float32": wp.float32}[pixels.dtype.name]
    blocked = np.ascontiguousarray(x.reshape(-1, 32, 2).transpose(0, 2, 1))
    positions = wp.array(blocked.ravel(), dtype=float, device=device)
    target = wp.zeros(N * channels, dtype=float, device=device)
    kernel = target_kernel(dtype, channels, bilinear, asinh)
    args = [flat_view(pixels, device), WIDTH, HEIGHT, gain, positions, target]
    launch.launch(kernel, N // 32 if device == "cpu" else N, args, device)
    return tuple(
        a.numpy().reshape(-1, rows, 32).transpose(0, 2, 1).reshape(N, rows)
        for a, rows in ((target, channels), (positions, 2))
    )


def values(dtype, channels, rng):
    """Return pixels of a dtype; floats of any magnitude and sign."""
    shape = (HEIGHT, WIDTH, channels)
    if dtype != "float32":
        return rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    magnitudes = 10.0 ** rng.uniform(-9, 34, shape)
    return (magnitudes * rng.choice([-1, 1], shape)).astype(np.float32)


@pytest.mark.parametrize("bilinear", [False, True])
@pytest.mark.parametrize(
    ("dtype", "channels", "asinh"),
    [("uint8", 3, False), ("uint16", 1, False), ("float32", 2, True), ("float32", 4, False)],
)
def test_targets_are_the_twins(dtype, channels, asinh, bilinear, device):
    rng = np.random.default_rng(0)
    pixels, gain = values(dtype, channels, rng), 3.0 if asinh else 1 / 255
    x = rng.random((N, 2), dtype=np.float32)
    x[:4] = [[0, 0], [0.9999999, 0], [0, 0.9999999], [0.9999999, 0.9999999]]
    target, after = run_targets(pixels, x, gain, bilinear, asinh, device)
    if bilinear:
        expected = twin.bilinear_targets(pixels, x.astype(float), gain, asinh)
        assert np.array_equal(after, x)
        # float32 rounds a position in 37 pixels to 2e-6 of one, times the values' spread
        scale = np.abs(twin.transfer(pixels, gain, asinh)).max()
        assert np.allclose(target, expected, rtol=0, atol=1e-5 * scale)
    else:
        expected, centres = twin.pixel_targets(pixels, x.astype(float), gain, asinh)
        assert np.allclose(after, centres, rtol=1e-6, atol=0)
        # log(a + sqrt(a^2 + 1)) near a = 1e-3 has lost ten of float32's 24 bits
        assert np.allclose(target, expected, rtol=1e-4 if asinh else 1e-6, atol=0)
    assert np.isfinite(target).all()


def test_positions_of_a_raster_beyond_32_bits(device):
    first, box, width, height = 5 * 2**31 + 7, (1000, 20, 60_000), 70_000, 400_000
    x = wp.zeros(N * 2, dtype=float, device=device)
    start = wp.array([first], dtype=wp.int64, device=device)
    args = [start, *box, 1.0 / width, 1.0 / height, x]
    launch.launch(raster_kernel(), N // 32 if device == "cpu" else N, args, device)
    positions = x.numpy().reshape(-1, 2, 32).transpose(0, 2, 1).reshape(N, 2)
    expected = twin.raster_positions(first, N, box, width, height)
    assert np.allclose(positions, expected, rtol=1e-7, atol=0)
