"""Networks from tiny-cuda-nn's JSON: names, defaults, and how wide their matrices are.

Source: tiny-cuda-nn's DOCUMENTATION.md, network.cu and cutlass_mlp.h (BSD-3).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ngp_warp.config import NetworkConfig, check_range
from ngp_warp.encodings.padding import next_multiple
from ngp_warp.errors import ConfigError
from ngp_warp.tcnn_names import ACTIVATIONS, NETWORK_DEFAULTS, NETWORKS, known_settings

ALIGNMENT = 16
"""Inputs and outputs of every network are padded to a multiple of it, as there."""

FULLY_FUSED = "FullyFusedMLP"
_FULLY_FUSED_WIDTHS = (16, 32, 64, 128, 256)


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """A network of one of tiny-cuda-nn's kinds, which differ here in their restrictions alone."""

    otype: str
    activation: str
    """A value of ``ACTIVATIONS``."""
    output_activation: str
    n_neurons: int
    n_hidden_layers: int

    def layers(self, n_in: int, n_out: int) -> list[tuple[int, int]]:
        """Return [(rows, columns)] of the matrices, padded rows of the last one included.

        Args:
            n_in: inputs, a multiple of ``ALIGNMENT``.
            n_out: outputs that count.
        """
        inner = [self.n_neurons] * self.n_hidden_layers
        return [(j, k) for k, j in pairwise([n_in, *inner, next_multiple(n_out, ALIGNMENT)])]

    def initial_weights(self, layers: list[tuple[int, int]], seed: int) -> np.ndarray:
        """Return flat float32 weights of the reference's distributions, by NumPy's generator.

        Uniform in +-sqrt(6 / (rows + columns)) (Glorot and Bengio 2010); for sines +-30 / columns
        in the first layer and +-sqrt(6 / columns) in the others (tiny-cuda-nn's gpu_matrix.h).
        """
        rng = np.random.default_rng([seed, 0])
        parts = []
        for index, (j, k) in enumerate(layers):
            bound = np.sqrt(6 / (j + k))
            if self.activation == "sine":
                bound = np.sqrt(6 / k) if index else 30 / k
            parts.append((rng.random(j * k) * 2 - 1) * bound)
        return np.concatenate(parts).astype(np.float32)

    def kernel_config(self) -> NetworkConfig | None:
        """Return what our kernels are made from; None where they lack the activation."""
        if "silu" in (self.activation, self.output_activation):
            return None
        return NetworkConfig(
            n_neurons=self.n_neurons,
            n_hidden_layers=self.n_hidden_layers,
            activation=self.activation,  # pyright: ignore[reportArgumentType]
            output_activation=self.output_activation,  # pyright: ignore[reportArgumentType]
        )

    def hyperparams(self) -> dict[str, Any]:
        """Return the settings in tiny-cuda-nn's JSON form."""
        names = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
        return {
            "otype": self.otype,
            "activation": names[self.activation],
            "output_activation": names[self.output_activation],
            "n_neurons": self.n_neurons,
            "n_hidden_layers": self.n_hidden_layers,
        }


def network_settings(config: dict[str, Any]) -> NetworkSettings:
    """Return the network that a config describes; names are case-insensitive.

    Args:
        config: {"otype": "FullyFusedMLP" | "MegakernelMLP" | "CutlassMLP" | "MLP", "activation",
            "output_activation", "n_neurons", "n_hidden_layers", "feedback_alignment": false}, each
            with tiny-cuda-nn's default.

    Raises:
        ConfigError: another otype or activation, a value of the wrong type or out of its range, or
            feedback alignment. Unknown settings are ignored with a warning that names them.
    """
    if not isinstance(config, dict):
        raise ConfigError(f"a network must be an object, got {type(config).__name__}")
    otype = _otype(config)
    values = {**NETWORK_DEFAULTS, **known_settings(config, NETWORK_DEFAULTS, "a network")}
    for name, low, high in (("n_neurons", 1, 4096), ("n_hidden_layers", 0, 64)):
        if not isinstance(values[name], int) or isinstance(values[name], bool):
            raise ConfigError(f"network.{name} must be an integer, got {values[name]!r}")
        check_range(f"network.{name}", values[name], low, high)
    if values["feedback_alignment"]:
        raise ConfigError("network.feedback_alignment is not supported; leave it out")
    settings = NetworkSettings(
        otype=otype,
        activation=_activation("activation", values["activation"]),
        output_activation=_activation("output_activation", values["output_activation"]),
        n_neurons=values["n_neurons"],
        n_hidden_layers=values["n_hidden_layers"],
    )
    if otype == FULLY_FUSED:
        _check_fully_fused(settings)
    return settings


def _otype(config: dict[str, Any]) -> str:
    name = str(config.get("otype", NETWORK_DEFAULTS["otype"]))
    if name.lower() in ("resnet", "cutlassresnet"):
        raise ConfigError(f"network.otype {name} is not supported; use FullyFusedMLP or CutlassMLP")
    if name.lower() not in NETWORKS:
        known = "FullyFusedMLP, MegakernelMLP, CutlassMLP, MLP"
        raise ConfigError(f"there is no network {name!r}; there are {known}")
    return NETWORKS[name.lower()]


def _activation(which: str, name: Any) -> str:
    for theirs, ours in ACTIVATIONS.items():
        if theirs.lower() == str(name).lower():
            return ours
    raise ConfigError(f"network.{which} must be one of {', '.join(ACTIVATIONS)}, got {name!r}")


def _check_fully_fused(settings: NetworkSettings) -> None:
    if settings.n_neurons not in _FULLY_FUSED_WIDTHS:
        raise ConfigError(
            f"network.n_neurons of a FullyFusedMLP must be one of "
            f"{', '.join(map(str, _FULLY_FUSED_WIDTHS))}, got {settings.n_neurons}; "
            "a CutlassMLP may have any width"
        )
    if settings.n_hidden_layers == 0:
        raise ConfigError("network.n_hidden_layers of a FullyFusedMLP must be at least 1, got 0")
