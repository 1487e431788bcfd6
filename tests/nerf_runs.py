"""Small settings for tests that fit a radiance field from end to end."""

from typing import Any

# A step takes some milliseconds, and 600 of them show the ball at 28 dB or so.
SMALL: dict[str, Any] = {
    "batch_size": 8192,
    "march_steps": 128,
    "max_rays": 1024,
    "encoding": {
        "n_levels": 6,
        "n_features_per_level": 2,
        "log2_hashmap_size": 14,
        "finest_resolution": 128,
    },
    "density_network": {"n_neurons": 16},
    "color_network": {"n_neurons": 16, "n_hidden_layers": 1},
}
