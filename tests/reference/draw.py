"""Drawing rays in float64. Twin of primitives/nerf/kernels/draw.py."""

import numpy as np

from ngp_warp.rays.lenses import Lens
from reference.samplers import WORD, mix, unit

STREAM = 0x52415953


def key_of(seed, step):
    """Key of a batch."""
    return mix(mix(mix(seed ^ 0x9E3779B9) + step * 0x85EBCA6B & WORD) ^ STREAM)


def bits(key, i, d):
    """32 random bits."""
    return mix(mix(i * 4 + d + key & WORD) ^ key)


def draw(photos, poses, lenses: list[Lens], scale, seed, step, i, background, crop_steps=0):
    """Ray i: a dictionary of what the batch holds of it.

    Args:
        photos: Photos.
        poses: [n, 3, 4] camera to box.
        lenses: in pixels of the photos in memory.
        scale: from scene units to the box.
        seed: of the run.
        step: number.
        i: the ray.
        background: "random", or a colour.
        crop_steps: steps that see the middles of the photos only.
    """
    key = key_of(seed, step)
    n = int(photos.offsets[-1])
    index = (bits(key, i, 0) << 32 | bits(key, i, 1)) * n >> 64
    view = int(np.searchsorted(photos.offsets, index, side="right")) - 1
    width, height = (int(n) for n in photos.sizes[view])
    y, x = divmod(index - int(photos.offsets[view]), width)
    if step <= crop_steps:
        x, y = width // 4 + x // 2, height // 4 + y // 2
        index = int(photos.offsets[view]) + y * width + x
    local = lenses[view].unproject([[x + 0.5, y + 0.5]])[0]
    lost = bool(np.isnan(local[0]))
    if lost:
        local = np.array([0.0, 0.0, -1.0])
    masked = photos.masks is not None and photos.masks[index] == 0
    depth = 0.0 if photos.depths is None else float(photos.depths[index])
    if isinstance(background, str):
        background = [unit(bits(mix(key), i, c)) for c in range(3)]
    rgba = photos.pixels[index].astype(np.float64) / (
        255 if photos.pixels.dtype == np.uint8 else 1.0
    )
    alpha = float(rgba[3])
    return {
        "view": view,
        "pixel": (x, y),
        "origin": poses[view][:, 3],
        "direction": poses[view][:, :3] @ local,
        "jitter": unit(bits(key, i, 2)),
        "weight": 0.0 if lost or masked else 1.0,
        "depth_target": depth * scale / -local[2] if local[2] < 0 else 0.0,
        "background": np.asarray(background),
        "alpha": alpha,
        "target": alpha * rgba[:3] + (1 - alpha) * np.asarray(background),
    }
