"""Small synthetic views for the tests of drawing and refinement."""

from pathlib import Path

import numpy as np

from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.nerf.types import Photos, View
from ngp_warp.rays.lenses import Lens

FRAME = Frame(scale=0.25, offset=(0.5, 0.4, 0.6))
PINHOLE = Lens(width=40, height=30, fx=40.0, fy=40.0, cx=20.0, cy=15.0)
BROWN = Lens(
    width=40, height=30, fx=42.0, fy=40.0, cx=19.0, cy=15.5, k1=0.06, k2=-0.08, p1=-1e-3, p2=2e-4
)
RATIONAL = Lens(
    width=40, height=30, fx=30, fy=31, cx=19, cy=15, k1=8.0, k2=3.0, k3=0.2, k4=8.3, k5=4.7, k6=0.9
)
BARREL = Lens(width=40, height=30, fx=24, fy=24, cx=20, cy=15, k1=-0.2, k2=0.03, k3=-0.002)
FISHEYE = Lens(
    width=40,
    height=30,
    fx=12,
    fy=12,
    cx=20,
    cy=15,
    fisheye=True,
    k1=0.05,
    k2=-0.01,
    k3=2e-3,
    k4=-4e-4,
)
LENSES = {
    "pinhole": PINHOLE,
    "brown": BROWN,
    "rational": RATIONAL,
    "barrel": BARREL,
    "fisheye": FISHEYE,
}


def look_at(position, target=(0.0, 0.0, 0.0), up=(0.0, 0.0, 1.0)):
    """Pose [3, 4] at a position, looking at a target."""
    back = np.subtract(position, target)
    back = back / np.linalg.norm(back)
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back, position], axis=1)


def ring(n, lenses, distance=2.0):
    """Views on a ring about the origin, with the lenses in turn."""
    views = []
    for i in range(n):
        a = 2 * np.pi * i / n
        position = distance * np.array([np.cos(a), np.sin(a), 0.3 + 0.2 * (i % 2)])
        lens = lenses[i % len(lenses)]
        pose = look_at(position)
        views.append(View(name=f"{i}.png", image=Path(f"{i}.png"), lens=lens, pose=pose))
    return views


def photos(views, rng, *, dtype=np.uint8, alpha=None, masks=False, depths=False):
    """Random photos in the views' sizes."""
    sizes = np.array([[v.lens.width, v.lens.height] for v in views], np.int32)
    offsets = np.concatenate([[0], np.cumsum(sizes.prod(axis=1))]).astype(np.int64)
    n = int(offsets[-1])
    pixels = rng.integers(0, 256, (n, 4)).astype(np.uint8)
    if alpha is not None:
        pixels[:, 3] = alpha
    if dtype == np.float16:
        pixels = (pixels / 255).astype(np.float16)
    return Photos(
        pixels=pixels,
        offsets=offsets,
        sizes=sizes,
        masks=rng.integers(0, 2, n).astype(np.uint8) * 255 if masks else None,
        depths=rng.uniform(0, 2, n).astype(np.float32) if depths else None,
    )
