"""How near a picture comes to a photo: PSNR and structural similarity of 8-bit values."""

import math

import numpy as np

from ngp_warp.errors import ShapeError

SSIM_MARGIN = 5
"""Half the window of Wang et al. 2004 (sigma 1.5, 11 pixels across); windows that would reach
beyond the picture do not count."""
_MIN_SQUARED_ERROR = 1e-12


def rounded(picture: np.ndarray) -> np.ndarray:
    """Return values in 0..1 as 8 bits hold them, float32."""
    return np.rint(np.clip(picture, 0, 1) * np.float32(255)).astype(np.float32) / np.float32(255)


def psnr(squared_error: float) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error, full scale 1.

    At most 120 dB.
    """
    return -10 * math.log10(max(squared_error, _MIN_SQUARED_ERROR))


def compare(
    picture: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None
) -> tuple[float | None, float | None]:
    """Return PSNR in dB and SSIM of a picture, both rounded to 8 bits before.

    Args:
        picture: float [h, w, 3], sRGB, 0..1.
        truth: the same of the photo.
        mask: bool [h, w]: pixels that count. PSNR is that of them alone; SSIM the mean of the map
            over them, whose windows also see what lies around. None: all.

    Returns:
        PSNR, None where no pixel counts; SSIM, None where no pixel that counts has a whole window.

    Raises:
        ShapeError: pictures of different sizes.
    """
    if picture.shape != truth.shape or (mask is not None and mask.shape != truth.shape[:2]):
        raise ShapeError(
            f"a picture of {list(picture.shape)} cannot be compared with {list(truth.shape)}"
        )
    counted = np.ones(truth.shape[:2], bool) if mask is None else mask.astype(bool)
    if not counted.any():
        return None, None
    a, b = rounded(picture), rounded(truth)
    error = np.square(a - b)[counted].mean(dtype=np.float64)
    return psnr(float(error)), _ssim(a, b, counted)


def _ssim(a: np.ndarray, b: np.ndarray, counted: np.ndarray) -> float | None:
    inner = (slice(SSIM_MARGIN, -SSIM_MARGIN),) * 2
    if min(a.shape[:2]) <= 2 * SSIM_MARGIN or not counted[inner].any():
        return None
    from skimage.metrics import structural_similarity

    values = structural_similarity(
        a,
        b,
        data_range=1.0,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )[1]
    return float(values[inner][counted[inner]].mean(dtype=np.float64))
