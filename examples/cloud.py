"""Make a cloud, learn its light, look at it from below, and export its density.

Usage: python examples/cloud.py [VOLUME [STEPS]]
"""

import sys
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates

import ngp_warp

SHAPE = (144, 128, 96)  # x, y, and z, which is up


def cumulus(rng: np.random.Generator) -> np.ndarray:
    """Density of a heap of puffs with a flat base."""
    at = np.indices(SHAPE) / SHAPE[0]
    depth = np.full(SHAPE, -1.0)
    for _ in range(24):
        place = rng.normal((0.5, 0.44, 0.2), (0.13, 0.1, 0.06)).clip((0, 0, 0.2), 1)
        away = np.linalg.norm(at - place[:, None, None, None], axis=0)
        depth = np.maximum(depth, 1 - away / rng.uniform(0.08, 0.16))
    for octave in range(5):  # billows, ever smaller
        n = 6 * 2**octave
        depth += 0.34 * 0.55**octave * map_coordinates(rng.uniform(-1, 1, [n + 3] * 3), at * n + 1)
    base = ((at[2] - 0.15) * 24).clip(0, 1)  # at one height, where the air reaches its dew point
    return (3 * depth).clip(0, 1) * base


volume = sys.argv[1] if len(sys.argv) > 1 else "cloud.npy"
length = {"steps": int(sys.argv[2])} if len(sys.argv) > 2 else {"seconds": 120}
if not Path(volume).exists():
    np.save(volume, cumulus(np.random.default_rng(7)).astype(np.float32))
run = ngp_warp.fit_volume(volume, mode="radiance", albedo=0.99, **length)
print(f"{run.metrics['psnr']:.1f} dB after {run.metrics['steps']} steps, in {run.path}")
print(run.render(run.path / "exports" / "below.png", camera="orbit:120,-20,1.6", width=320))
print(run.export("nvdb")["output"])
