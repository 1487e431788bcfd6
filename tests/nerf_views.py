"""Views of a scene for tests: cameras around the box's middle, in scene units."""

from pathlib import Path

import numpy as np

from ngp_warp.primitives.nerf.types import View
from ngp_warp.rays.cameras import orbit


def ring(frame, lens, n, *, distance=1.4, up="z", elevation=25.0, n_test=2):
    """n views around the box's middle, the last of them held back; the distance is in its sides."""
    views = []
    for i in range(n):
        camera = orbit(360.0 * i / n, elevation, distance, up=up)
        pose = camera.camera_to_world()[:3].copy()
        pose[:, 3] = frame.to_scene(pose[None, :, 3])[0]
        split = "test" if i >= n - n_test else "train"
        name = f"{split}/r_{i}.png"
        views.append(View(name=name, image=Path(name), lens=lens, pose=pose, split=split))
    return views


def photos(pictures, alphas=None, masks=None):
    """``Photos`` of pictures, each uint8 [h, w, 3]."""
    from ngp_warp.primitives.nerf.types import Photos

    n = [p.shape[0] * p.shape[1] for p in pictures]
    alphas = [np.full(p.shape[:2], 255, np.uint8) for p in pictures] if alphas is None else alphas
    rows = [
        np.concatenate([p.reshape(-1, 3), a.reshape(-1, 1)], axis=1)
        for p, a in zip(pictures, alphas, strict=True)
    ]
    return Photos(
        pixels=np.concatenate(rows),
        offsets=np.concatenate([[0], np.cumsum(n)]),
        sizes=np.array([p.shape[1::-1] for p in pictures], np.int32),
        masks=None if masks is None else np.concatenate([m.ravel() for m in masks]),
        has_alpha=any(bool((a < 255).any()) for a in alphas),
    )
