"""What a small picture of equal bytes gives when it is enlarged again, for images of any size."""

import io
import math

import numpy as np
from PIL import Image

# Lanczos' kernel reaches three output pixels to each side; their rows are read along.
_SUPPORT = 4
_BAND_BYTES = 1 << 26


def reduce(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a reduced picture by Lanczos resampling, band by band.

    Args:
        pixels: uint8 [h, w, 3], possibly a memory map.
        width: at most w.
        height: at most h.

    Returns:
        uint8 [height, width, 3], the same as of the whole picture at once.
    """
    full_height, full_width, _ = pixels.shape
    ratio = full_height / height
    rows = max(int(_BAND_BYTES / (3 * full_width * ratio)), 1)
    out = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        n = min(rows, height - top)
        first = max(math.floor((top - _SUPPORT) * ratio), 0)
        last = min(math.ceil((top + n + _SUPPORT) * ratio), full_height)
        band = Image.fromarray(np.ascontiguousarray(pixels[first:last]))
        box = (0, top * ratio - first, full_width, min((top + n) * ratio, full_height) - first)
        out[top : top + n] = np.asarray(band.resize((width, n), Image.Resampling.LANCZOS, box=box))
    return out


def enlarged_psnr(pixels: np.ndarray, thumbnail: np.ndarray) -> float:
    """Return the PSNR in dB over all pixels of the thumbnail's bicubic enlargement."""
    height, width, _ = pixels.shape
    image = Image.fromarray(thumbnail)
    ratio = thumbnail.shape[0] / height
    rows = max(_BAND_BYTES // (3 * width * 4), 1)
    squares = 0
    for top in range(0, height, rows):
        truth = pixels[top : top + rows].astype(np.int16)
        box = (0, top * ratio, image.width, min((top + len(truth)) * ratio, image.height))
        decoded = image.resize((width, len(truth)), Image.Resampling.BICUBIC, box=box)
        difference = np.asarray(decoded).astype(np.int16) - truth
        squares += int(np.square(difference, dtype=np.int32).sum(dtype=np.int64))
    return 10 * math.log10(255**2 * pixels.size / max(squares, 1))


def raw_thumbnail(pixels: np.ndarray, n_bytes: int) -> np.ndarray:
    """Return the largest reduced picture whose 8-bit pixels take at most ``n_bytes``."""
    return reduce(pixels, *_size(pixels, n_bytes / 3))


def png_thumbnail(pixels: np.ndarray, n_bytes: int) -> tuple[np.ndarray, int]:
    """Return the largest reduced picture found whose PNG takes at most ``n_bytes``, and its size.

    The search follows the size of a pixel from trial to trial and ends within two percent.
    """
    n_pixels = n_bytes / 3
    best: tuple[np.ndarray, int] | None = None
    for _ in range(8):
        thumbnail = reduce(pixels, *_size(pixels, n_pixels))
        size = _png_bytes(thumbnail)
        if size <= n_bytes and (best is None or size > best[1]):
            best = thumbnail, size
        whole = thumbnail.shape == pixels.shape
        if best is not None and (best[1] > 0.98 * n_bytes or (whole and size <= n_bytes)):
            break
        n_pixels = min(n_pixels * 0.99 * n_bytes / size, pixels.size / 3)
    if best is None:
        raise ValueError(f"no PNG of at most {n_bytes} bytes was found")
    return best


def _size(pixels: np.ndarray, n_pixels: float) -> tuple[int, int]:
    """Return width and height of at most so many pixels in the picture's proportions."""
    height, width, _ = pixels.shape
    scale = min(math.sqrt(n_pixels / (width * height)), 1.0)
    return max(int(width * scale), 1), max(int(height * scale), 1)


def _png_bytes(pixels: np.ndarray) -> int:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.tell()
