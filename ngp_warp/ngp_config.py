"""Settings from instant-ngp's network configs: its JSON names and values in ours.

Source: the published configs (configs/*/base.json and their children) and tiny-cuda-nn's
DOCUMENTATION.md, whose defaults what is left out has. Losses, optimizers, encodings and activations
that a command has no place for are errors; settings that it has none for are named in the notes.
"""

import reprlib
from pathlib import Path
from typing import Any

from ngp_warp.errors import ConfigError
from ngp_warp.json_files import with_parents
from ngp_warp.json_values import JsonValues
from ngp_warp.ngp_optimizer import read_optimizer
from ngp_warp.tcnn_names import (
    ACTIVATIONS,
    GRID_DEFAULTS,
    GRIDS,
    HASH,
    NETWORK_DEFAULTS,
    NETWORKS,
)

LOSSES = {
    "l1": "l1",
    "l2": "l2",
    "relativel2": "relative_l2",
    "mape": "mape",
    "smape": "smape",
    "huber": "huber",
    "logl1": "log_l1",
}
_LOSS_NAMES = "Huber, L1, L2, LogL1, MAPE, RelativeL2, SMAPE"
_ENCODING_NAMES = "Grid, HashGrid, DenseGrid, TiledGrid"
_GRID_TYPES = ("hash", "dense", "tiled")
_GRID_SETTINGS = ("otype", "interpolation", "hash", "per_level_scale", *GRID_DEFAULTS)
_INTERPOLATIONS = ("linear", "smoothstep", "nearest")
_ACTIVATIONS = {name.lower(): ours for name, ours in ACTIVATIONS.items() if ours != "silu"}
_ACTIVATION_NAMES = ", ".join(name for name in ACTIVATIONS if name.lower() in _ACTIVATIONS)
_NETWORK_NAMES = "FullyFusedMLP, CutlassMLP, MegakernelMLP, MLP"

_NERF_ONLY = ("dir_encoding", "rgb_network")
_SIGNS = ("parent", "envmap", "distortion_map", *_NERF_ONLY)
_PARTS = ("loss", "optimizer", "encoding", "network")
_OF_TRAINING = ("parent", "loss", "optimizer")

# Settings whose usual values mean that nothing is to be done.
_IDLE: dict[str, tuple[Any, ...]] = {
    "relative_decay": (0, 0.0),
    "absolute_decay": (0, 0.0),
    "adabound": (False,),
    "feedback_alignment": (False,),
    "stochastic_interpolation": (False,),
}


def is_ngp_config(values: Any) -> bool:
    """Return whether JSON values are a network config of instant-ngp's, and none of ours."""
    if not isinstance(values, dict):
        return False
    if any(name in values for name in _SIGNS):
        return True
    parts = [values[name] for name in _PARTS if isinstance(values.get(name), dict)]
    # our loss is a name, and none of our settings is called otype or nested
    return isinstance(values.get("loss"), dict) or any("otype" in p or "nested" in p for p in parts)


def settings_from_ngp(
    values: dict[str, Any], primitive: str, path: Path
) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of ours that a config of instant-ngp's describes.

    Args:
        values: the config; its parents are read beside ``path``.
        primitive: "image", "sdf", "nerf" or "volume".
        path: its file, named in errors.

    Returns:
        Settings in our JSON form, to be checked by the primitive's config; and what there is to
        say, one line each.

    Raises:
        ConfigError: what the primitive cannot do; says where and what there is.
    """
    reader = _Reader(primitive, path)
    result = reader.settings(with_parents(values, path))
    encoding = result.get("encoding")
    if encoding is not None and "per_level_scale" not in encoding:
        reader.choose_finest(encoding)
    first = f"{path} is a config of instant-ngp's: taken over as settings"
    return result, [first, *reader.notes]


def settings_of_trained(
    values: dict[str, Any], primitive: str, path: Path
) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of a field that is trained already, from the config in its snapshot.

    Arguments and errors as of ``settings_from_ngp``; a part that its parameters need must be there,
    and what there is no ``per_level_scale`` for has none.
    """
    needed = ["encoding", "network", *(_NERF_ONLY if primitive == "nerf" else ())]
    if missing := [name for name in needed if name not in values]:
        raise ConfigError(f"{path} has no {', '.join(missing)} in its config")
    reader = _Reader(primitive, path)
    result = reader.settings({n: value for n, value in values.items() if n not in _OF_TRAINING})
    if left := [name for name in values if name in _OF_TRAINING]:
        reader.notes.append(f"not taken over: {', '.join(left)} (nothing is trained)")
    return result, reader.notes


class _Reader(JsonValues):
    """One config on its way to settings."""

    def __init__(self, primitive: str, path: Path):
        super().__init__(path, _IDLE)
        self.primitive = primitive

    def settings(self, values: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        nerf = self.primitive == "nerf"
        for name, value in values.items():
            if name == "loss":
                result["loss"] = self._loss(value)
            elif name == "optimizer":
                result["optimizer"] = read_optimizer(self, value)
            elif name == "encoding":
                result["encoding"] = self._encoding(value)
            elif name == "network":
                key = "density_network" if nerf else "network"
                result[key] = self._network(value, "network")
            elif name == "rgb_network" and nerf:
                result["color_network"] = self._color_network(value)
            elif name == "dir_encoding" and nerf:
                self._directions(value)
            else:
                self.leave(name)
        return result

    def _loss(self, value: Any) -> str:
        value = self.object(value, "loss")
        otype = self.otype(value, "loss", "L2")
        if otype.lower() not in LOSSES:
            raise self.error("loss", f"{otype} is not among what there is: {_LOSS_NAMES}")
        self.leave_rest(value, {"otype"}, "loss")
        return LOSSES[otype.lower()]

    def _encoding(self, value: Any) -> dict[str, Any]:
        value = self.object(value, "encoding")
        otype = self.otype(value, "encoding", "HashGrid")
        if otype.lower() not in GRIDS:
            raise self.error(
                "encoding",
                f"{otype} is not among what this command has: {_ENCODING_NAMES}; the Python "
                "interface has others",
            )
        kind = GRIDS[otype.lower()].lower()
        if otype.lower() == "grid" and "type" in value:
            kind = self.choice(value["type"], _GRID_TYPES, "encoding.type")
        result: dict[str, Any] = {"grid_type": kind}
        for name, usual in GRID_DEFAULTS.items():
            result[name] = self.whole(value.get(name, usual), f"encoding.{name}")
        if "interpolation" in value:
            result["interpolation"] = self.choice(
                value["interpolation"], _INTERPOLATIONS, "encoding.interpolation"
            )
        if "hash" in value and self.name(value["hash"], "encoding.hash") != HASH.lower():
            raise self.wrong("encoding.hash", HASH, value["hash"])
        if value.get("stochastic_interpolation"):
            raise self.error("encoding.stochastic_interpolation", "is not to be had here")
        if "per_level_scale" in value:
            scale = self.number(value["per_level_scale"], "encoding.per_level_scale")
            result["per_level_scale"] = float(scale)
        known = {*_GRID_SETTINGS} | ({"type"} if otype.lower() == "grid" else set())
        self.leave_rest(value, known, "encoding")
        return result

    def choose_finest(self, encoding: dict[str, Any]) -> None:
        """Where no scale is given, instant-ngp takes one that leads to a finest resolution."""
        if self.primitive == "sdf":
            encoding["finest_resolution"] = 2048
            return
        theirs = {
            "image": "half of the longer side",
            "nerf": "2048 times the box's aabb_scale",
            "volume": "the longest side",
        }[self.primitive]
        self.notes.append(
            f"encoding has no per_level_scale: instant-ngp's finest resolution would be {theirs}, "
            "here it is chosen for the input; --encoding.finest-resolution sets it"
        )

    def _network(self, value: Any, where: str) -> dict[str, Any]:
        value = self.object(value, where)
        otype = self.otype(value, where, NETWORK_DEFAULTS["otype"])
        if otype.lower() not in NETWORKS:
            raise self.error(where, f"{otype} is not among what there is: {_NETWORK_NAMES}")
        result: dict[str, Any] = {
            name: self.whole(value.get(name, NETWORK_DEFAULTS[name]), f"{where}.{name}")
            for name in ("n_neurons", "n_hidden_layers")
        }
        for name in ("activation", "output_activation"):
            given = self.name(value.get(name, NETWORK_DEFAULTS[name]), f"{where}.{name}")
            if given not in _ACTIVATIONS:
                raise self.error(
                    f"{where}.{name}",
                    f"{value[name]} is not among what there is: {_ACTIVATION_NAMES}",
                )
            result[name] = _ACTIVATIONS[given]
        self.leave_rest(value, {"otype", *result}, where)
        return result

    def _color_network(self, value: Any) -> dict[str, Any]:
        result = self._network(value, "rgb_network")
        if result.pop("output_activation") != "none":
            self.leave("rgb_network.output_activation", "the photos decide it")
        return result

    def _directions(self, value: Any) -> None:
        """Check that directions are encoded as ours are: harmonics of degree 4, then the rest."""
        first, where = self.object(value, "dir_encoding"), "dir_encoding"
        if self.otype(first, where, "").lower() == "composite":
            nested = value.get("nested")
            if not isinstance(nested, list) or not nested:
                raise self.wrong("dir_encoding.nested", "an array of encodings", nested)
            reduction = value.get("reduction", "Concatenation")
            if self.name(reduction, "dir_encoding.reduction") != "concatenation":
                raise self.wrong("dir_encoding.reduction", "Concatenation", reduction)
            self.leave_rest(value, {"otype", "nested", "reduction"}, where)
            for index, part in enumerate(nested[1:], 1):
                here = f"dir_encoding.nested[{index}]"
                if self.otype(self.object(part, here), here).lower() != "identity":
                    raise self.wrong(here, "an Identity", part["otype"])
                self.leave_rest(part, {"otype", "n_dims_to_encode"}, here)
            where = "dir_encoding.nested[0]"
            first = self.object(nested[0], where)
        harmonics = self.otype(first, where, "").lower() == "sphericalharmonics"
        degree = first.get("degree", 4)
        place = first.get("n_dims_to_encode", 3), first.get("dims_to_encode_begin", 0)
        if not harmonics or degree != 4 or place != (3, 0):
            raise self.error(
                "dir_encoding",
                "must be SphericalHarmonics of degree 4 in the first 3 dimensions, alone or as the "
                f"first part of a Composite before an Identity, got {first.get('otype')}"
                + (f" of degree {reprlib.repr(degree)}" if harmonics else ""),
            )
        known = {"otype", "degree", "n_dims_to_encode", "dims_to_encode_begin"}
        self.leave_rest(first, known, where)
