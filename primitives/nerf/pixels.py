"""From the pixels of a file to red, green, blue and straight opacity in a given array."""

from dataclasses import dataclass

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.image.info import rows_per_band
from ngp_warp.primitives.nerf.downscale import average
from ngp_warp.primitives.nerf.photo_files import PhotoFile
from ngp_warp.primitives.pictures import srgb_to_linear

_HALF_MAX = 65504.0


@dataclass(frozen=True)
class Conversion:
    """What a file's values need."""

    to_linear: bool = False
    """sRGB becomes linear light."""
    associated: bool = False
    """Colours are stored multiplied by their opacity."""


def convert(file: PhotoFile, target: np.ndarray, how: Conversion) -> bool:
    """Decode a file into ``target``, reduced to its size.

    Averages are taken of the stored values, then converted. float16 holds up to 65504: what is
    beyond becomes that.

    Args:
        file: 1 to 4 channels.
        target: uint8 (of a file of uint8) or float16 [height, width, 4], C-contiguous.
        how: what the values need.

    Returns:
        Whether any pixel is not opaque.

    Raises:
        DataError: broken, or pixels that are not finite.
    """
    n_channels, as_is = file.source.channels, file.source.dtype == str(target.dtype)
    same_size = file.size == (target.shape[1], target.shape[0])
    if as_is and same_size and n_channels == 4:
        file.decode(target)
        return not _opaque(target[..., 3], 255)
    pixels = file.decode()
    full = 1.0 if pixels.dtype == np.float32 else float(np.iinfo(pixels.dtype).max)
    if full == 1.0 and not np.isfinite(pixels).all():
        raise DataError(f"{file.path} has pixels that are NaN or infinite; mend them first")
    has_alpha = n_channels in (2, 4)
    transparent = has_alpha and not _opaque(pixels[..., -1], full)
    if as_is and same_size:
        target[..., :3] = pixels[..., : n_channels - has_alpha]
        target[..., 3] = pixels[..., -1] if has_alpha else 255
        return transparent
    if transparent and not how.associated and not same_size:
        pixels = _multiplied(pixels, full)
        how = Conversion(how.to_linear, True)
    reduced = pixels if same_size else average(pixels, (target.shape[1], target.shape[0]))
    del pixels
    step = rows_per_band(target.shape[1] * 16)
    for y in range(0, len(target), step):
        colors, alpha = _straight(reduced[y : y + step], full, how, has_alpha)
        _store(colors, alpha, full, how.to_linear, target[y : y + step])
    return transparent


def _opaque(alpha: np.ndarray, full: float) -> bool:
    return bool(alpha.min() >= full)


def _multiplied(pixels: np.ndarray, full: float) -> np.ndarray:
    """Return float32 colours times their opacity, and the opacity, in the file's units."""
    result = pixels.astype(np.float32)
    result[..., :-1] *= result[..., -1:] / np.float32(full)
    return result


def _straight(
    pixels: np.ndarray, full: float, how: Conversion, has_alpha: bool
) -> tuple[np.ndarray, np.ndarray | float]:
    """Return colours, not multiplied by opacity, and opacity, [h, w] or ``full``; file's units."""
    values = pixels.astype(np.float32)
    if not has_alpha:
        return values, full
    colors, alpha = values[..., :-1], np.clip(values[..., -1:], 0.0, full)
    if how.associated:
        share = alpha / np.float32(full)
        colors = np.divide(colors, share, out=np.zeros_like(colors), where=share > 0)
    return colors, alpha[..., 0]


def _store(
    colors: np.ndarray, alpha: np.ndarray | float, full: float, to_linear: bool, out: np.ndarray
) -> None:
    """Round values in the file's units into ``out``; uint8 comes from uint8 alone."""
    if out.dtype == np.uint8:
        out[..., :3] = np.clip(colors + 0.5, 0.0, 255.0)
        out[..., 3] = alpha + 0.5
        return
    colors = colors / np.float32(full)
    if to_linear:
        colors = srgb_to_linear(colors)
    out[..., :3] = np.clip(colors, -_HALF_MAX, _HALF_MAX)
    out[..., 3] = alpha / full
