"""PSNR and SSIM of views: their definitions, the rounding, masks."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from ngp_warp.errors import ShapeError
from ngp_warp.primitives.nerf.metrics import compare, psnr, rounded


def pictures(seed=0, h=40, w=50, noise=0.05):
    random = np.random.default_rng(seed)
    truth = random.random((h, w, 3)).astype(np.float32)
    return np.clip(truth + noise * random.standard_normal(truth.shape), 0, 1), truth


def test_psnr_is_that_of_8_bit_values():
    result, truth = pictures()
    a, b = (np.rint(v * 255).astype(np.uint8).astype(float) for v in (result, truth))
    wanted = 10 * np.log10(255**2 / np.mean((a - b) ** 2))
    assert compare(result, truth)[0] == pytest.approx(wanted, abs=1e-5)


def test_ssim_is_skimages():
    result, truth = pictures()
    wanted = structural_similarity(
        rounded(result),
        rounded(truth),
        data_range=1.0,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert compare(result, truth)[1] == pytest.approx(wanted, abs=1e-6)


def test_differences_below_the_rounding_do_not_count():
    truth = np.full((20, 20, 3), 100 / 255, np.float32)
    assert compare(truth + 0.4 / 255, truth) == (pytest.approx(120.0), pytest.approx(1.0))
    assert compare(truth + 0.6 / 255, truth)[0] == pytest.approx(-20 * np.log10(1 / 255), abs=1e-3)


def test_masked_pixels_do_not_count():
    result, truth = pictures()
    mask = np.ones(truth.shape[:2], bool)
    mask[:, 25:] = False
    wrong = result.copy()
    wrong[:, 31:] = 0  # further from what counts than half a window
    assert compare(wrong, truth, mask) == pytest.approx(compare(result, truth, mask))
    assert compare(wrong, truth)[0] < compare(result, truth)[0] - 3
    assert compare(result[:, :25], truth[:, :25])[0] == pytest.approx(
        compare(result, truth, mask)[0]
    )


def test_without_pixels_or_windows_there_is_no_figure():
    result, truth = pictures(h=10)
    assert compare(result, truth)[1] is None
    assert compare(result, truth)[0] is not None
    assert compare(result, truth, np.zeros(truth.shape[:2], bool)) == (None, None)


def test_psnr_is_bounded():
    assert psnr(0.0) == 120
    assert psnr(1.0) == 0


def test_pictures_of_different_sizes_are_refused():
    with pytest.raises(ShapeError, match="compared"):
        compare(np.zeros((4, 5, 3)), np.zeros((5, 4, 3)))
