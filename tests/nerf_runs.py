"""Small settings for tests that fit a radiance field from end to end."""

from typing import Any

# A step takes some milliseconds, and 400 of them show the ball at 25 dB or so.
SMALL: dict[str, Any] = {
    "batch_size": 4096,
    "march_steps": 96,
    "max_rays": 1024,
    "encoding": {
        "n_levels": 4,
        "n_features_per_level": 2,
        "log2_hashmap_size": 13,
        "finest_resolution": 64,
    },
    "density_network": {"n_neurons": 16},
    "color_network": {"n_neurons": 16, "n_hidden_layers": 1},
}
