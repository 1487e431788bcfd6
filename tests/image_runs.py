"""Small pictures and small settings for tests that fit from end to end."""

from pathlib import Path
from typing import Any

import numpy as np

# One hidden layer of 16 neurons and two small levels: a step takes less than a millisecond.
SMALL = {
    "batch_size": 256,
    "encoding": {"n_levels": 2, "n_features_per_level": 2, "log2_hashmap_size": 8},
    "network": {"n_neurons": 16, "n_hidden_layers": 1},
}
SMALL_FLAGS = [
    *("--batch-size", "256", "--encoding.n-levels", "2", "--encoding.n-features-per-level", "2"),
    *("--encoding.log2-hashmap-size", "8", "--network.n-neurons", "16"),
    *("--network.n-hidden-layers", "1", "--device", "cpu"),
]


def smooth(channels: int = 3, dtype: str = "uint8", width: int = 48, height: int = 32) -> Any:
    """Return waves that a few hundred steps fit well, [height, width, channels], over 0..1."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 7 + c) * np.cos(y / 5 - c) for c in range(channels)]
    unit = 0.5 + 0.45 * np.stack(waves, -1)
    if np.dtype(dtype).kind == "u":
        return np.rint(unit * np.iinfo(dtype).max).astype(dtype)
    return unit.astype(dtype)


def write_picture(path: Path, pixels: Any = None) -> Path:
    """Write pixels, by default smooth 8-bit RGB, in the format of the path's extension."""
    from ngp_warp.primitives.image.writers import save_image

    save_image(path, smooth() if pixels is None else pixels)
    return path


def settings(**changes: Any) -> dict[str, Any]:
    """Return SMALL with changes, nested ones one by one."""
    result: dict[str, Any] = dict(SMALL)
    for name, value in changes.items():
        old = result.get(name)
        result[name] = {**old, **value} if isinstance(old, dict) else value
    return result
