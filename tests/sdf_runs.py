"""A small mesh and small settings for tests that fit a distance field from end to end."""

from pathlib import Path
from typing import Any

import pytest

# A step takes two milliseconds or so, and 300 of them fit a sphere to a percent.
SMALL: dict[str, Any] = {
    "batch_size": 2048,
    "encoding": {
        "n_levels": 4,
        "n_features_per_level": 2,
        "log2_hashmap_size": 12,
        "finest_resolution": 64,
    },
    "network": {"n_neurons": 32, "n_hidden_layers": 1},
    "optimizer": {"learning_rate": 1e-2},
}
CENTRE = (10.0, -5.0, 2.0)
RADIUS = 3.0


def make_quick(patch: pytest.MonkeyPatch) -> None:
    """Measure and draw with fewer points and pixels: seconds instead of half a minute."""
    from ngp_warp.primitives.sdf import evaluate, metrics

    patch.setattr(evaluate, "RESOLUTION", 64)
    patch.setattr(evaluate, "_PICTURE_SIDE", 64)
    for name in ("N_BOX", "N_BAND", "N_SURFACE"):
        patch.setattr(metrics, name, 2**15)


def write_sphere(path: Path) -> Path:
    """Write a sphere of 1,280 faces away from the origin, in the format of the path's extension."""
    import trimesh

    sphere = trimesh.creation.icosphere(subdivisions=3, radius=RADIUS)
    sphere.apply_translation(CENTRE)
    sphere.export(path)
    return path
