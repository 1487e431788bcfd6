"""tiny-cuda-nn's names in JSON, and its defaults: for its configs and those of instant-ngp.

Source: its DOCUMENTATION.md, network.cu and grid.h (BSD-3). Names are case-insensitive there; keys
here are in lower case where they are looked up.
"""

import warnings
from typing import Any

GRIDS = {
    "grid": "Hash",
    "gridencoding": "Hash",  # the name of its class there
    "hashgrid": "Hash",
    "densegrid": "Dense",
    "tiledgrid": "Tiled",
}
"""Otype of a grid: its type, unless that is given."""

GRID_DEFAULTS: dict[str, Any] = {
    "n_levels": 16,
    "n_features_per_level": 2,
    "log2_hashmap_size": 19,
    "base_resolution": 16,
}

HASH = "CoherentPrime"

NETWORKS = {
    "fullyfusedmlp": "FullyFusedMLP",
    "megakernelmlp": "FullyFusedMLP",
    "cutlassmlp": "CutlassMLP",
    "mlp": "CutlassMLP",
}
"""Otype of a network: the kind that it is."""

NETWORK_DEFAULTS: dict[str, Any] = {
    "otype": "MLP",
    "activation": "ReLU",
    "output_activation": "None",
    "n_neurons": 128,
    "n_hidden_layers": 5,
    "feedback_alignment": False,
}

ACTIVATIONS = {
    "None": "none",
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "Exponential": "exponential",
    "Sine": "sine",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
    "Squareplus": "squareplus",
    "Softplus": "softplus",
    "Tanh": "tanh",
}
"""Theirs: ours. Our kernels have no silu."""


def known_settings(given: dict[str, Any], known: Any, what: str) -> dict[str, Any]:
    """Return the settings that there are, and warn of the others by name.

    tiny-cuda-nn ignores them, and models hand it configs with keys that are their own.

    Args:
        given: settings.
        known: names of those that there are.
        what: they belong to, for the warning.
    """
    unknown = [repr(name) for name in given if name not in known]
    if unknown:
        warnings.warn(
            f"{what} has no setting {', '.join(unknown)}, ignored; it has {', '.join(known)}",
            stacklevel=2,
        )
    return {name: value for name, value in given.items() if name in known}
