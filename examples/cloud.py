"""Make a cloud, learn its light, and look at it.

    python examples/cloud.py [SECONDS]

Writes cloud.nvdb, and a run to outputs/cloud with pictures in its renders.
"""

import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

import ngp_warp
from ngp_warp.primitives.volume.grid import Oddity, Volume
from ngp_warp.primitives.volume.writers import save_volume

SHAPE = (144, 96, 128)


def noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth noise over SHAPE, about ``cells`` bumps along the longest side, from -1 to 1."""
    coarse = rng.uniform(-1, 1, [-(-n * cells // max(SHAPE)) + 3 for n in SHAPE])
    at = np.indices(SHAPE) * (cells / max(SHAPE)) + 1
    return ndimage.map_coordinates(coarse, at, order=3, mode="nearest")


def cumulus(seed: int = 7) -> np.ndarray:
    """Density float32 [x, y, z] of a heap of puffs with a flat base; y is up."""
    rng = np.random.default_rng(seed)
    at = np.moveaxis(np.indices(SHAPE).astype(np.float64), 0, -1)
    middle = np.array(SHAPE) * (0.5, 0.3, 0.5)
    depth = np.full(SHAPE, -1.0)
    for _ in range(24):
        place = middle + rng.normal(size=3) * np.array(SHAPE) * (0.15, 0.08, 0.13)
        place[1] = max(place[1], middle[1])
        radius = rng.uniform(0.12, 0.24) * min(SHAPE)
        depth = np.maximum(depth, 1 - np.linalg.norm(at - place, axis=-1) / radius)
    for octave in range(5):
        depth += 0.34 * 0.55**octave * noise(rng, 6 * 2**octave)
    # the base is where the air reaches the dew point: at one height
    base = np.clip((at[..., 1] - 0.22 * SHAPE[1]) / 6, 0, 1)
    sides = zip(np.indices(SHAPE), SHAPE, strict=True)
    edges = np.minimum.reduce([np.minimum(a, n - 1 - a) for a, n in sides])
    return (np.clip(depth * 3, 0, 1) * base * np.clip(edges / 6, 0, 1)).astype(np.float32)


def main() -> None:
    """Write the cloud, fit it, and say how close the picture is."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 120.0
    voxel = 10.0  # metres
    values = cumulus()
    save_volume(
        "cloud.nvdb",
        Volume(
            name="density",
            format="nvdb",
            values=values,
            first=(0, 0, 0),
            active=values > 0,
            background=(0.0,),
            to_world=np.diag([voxel, voxel, voxel, 1.0]),
            grid_class="fog",
            dtype="float32",
            unit="meter",
            negative=Oddity(),
            nan=Oddity(),
            infinite=Oddity(),
        ),
    )
    run = ngp_warp.fit_volume(
        "cloud.nvdb", mode="radiance", seconds=seconds, albedo=0.99, out=Path("outputs", "cloud")
    )
    print(f"{run.metrics['psnr']:.1f} dB; the pictures are in {run.path / 'renders'}")


if __name__ == "__main__":
    main()
