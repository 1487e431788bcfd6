"""Encodings from tiny-cuda-nn's JSON: its names, defaults and layouts (its DOCUMENTATION.md)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ngp_warp.config import GridEncodingConfig, check_range
from ngp_warp.encodings.alignment import aligned, concatenated, required_alignment
from ngp_warp.encodings.composite import CONCATENATION, Composite
from ngp_warp.encodings.encoding import Encoding
from ngp_warp.encodings.grid import resolve
from ngp_warp.encodings.grid_features import GridFeatures
from ngp_warp.encodings.identity import Identity
from ngp_warp.encodings.one_blob import OneBlob
from ngp_warp.encodings.sinusoids import Sinusoids
from ngp_warp.encodings.spherical_harmonics import SphericalHarmonics
from ngp_warp.encodings.triangle_wave import TriangleWave
from ngp_warp.errors import ConfigError
from ngp_warp.tcnn_names import GRID_DEFAULTS, GRIDS, HASH, known_settings


def make_encoding(
    n_dims: int, config: dict[str, Any], device: str, *, alignment: int = 1
) -> Encoding:
    """Return the encoding that a config describes.

    Names are case-insensitive; settings left out have tiny-cuda-nn's defaults, "otype" too
    (OneBlob). Octrees need points, and are made with ``octree.OctreeEncoding``.

    Args:
        n_dims: rows of the input.
        config: {"otype": ..., its settings}.
        device: "cpu" or a CUDA device.
        alignment: the number of rows is padded to a multiple of it; 0: not padded at all, not even
            to whole levels of a nested grid.

    Raises:
        ConfigError: an unknown otype, a wrong value, or what is not supported. A setting that is
            unknown is ignored with a warning.
    """
    check_range("alignment", alignment, 0, 1024)
    encoding = _bare(n_dims, config, device)
    return aligned(encoding, alignment) if alignment else encoding


def _bare(n_dims: int, config: dict[str, Any], device: str) -> Encoding:
    if not isinstance(config, dict):
        raise ConfigError(f"an encoding must be an object, got {type(config).__name__}")
    settings = {key: value for key, value in config.items() if key != "otype"}
    otype = str(config.get("otype", "OneBlob")).lower()
    if otype == "composite":
        return _composite(n_dims, settings, device)
    if otype in GRIDS:
        return _grid(n_dims, GRIDS[otype], settings, device)
    if otype not in _FIXED:
        known = "Composite, Grid, HashGrid, DenseGrid, TiledGrid, " + ", ".join(
            cls.__name__ if cls is not Sinusoids else "Frequency" for cls, _ in _FIXED.values()
        )
        raise ConfigError(f"there is no encoding {config.get('otype')!r}; there are {known}")
    cls, defaults = _FIXED[otype]
    return cls(n_dims, device, **_checked(settings, defaults, otype))


_FIXED: dict[str, tuple[Callable[..., Encoding], dict[str, Any]]] = {
    "identity": (Identity, {"scale": 1.0, "offset": 0.0}),
    "frequency": (Sinusoids, {"n_frequencies": 12}),
    "trianglewave": (TriangleWave, {"n_frequencies": 12}),
    "oneblob": (OneBlob, {"n_bins": 16}),
    "sphericalharmonics": (SphericalHarmonics, {"degree": 4}),
}


def _checked(settings: dict[str, Any], defaults: dict[str, Any], what: str) -> dict[str, Any]:
    """Return the defaults with the settings over them, of the defaults' types."""
    settings = known_settings(settings, defaults, what)
    for name, value in settings.items():
        wanted = type(defaults[name])
        fits = isinstance(value, int | float if wanted is float else wanted)
        if not fits or isinstance(value, bool) != (wanted is bool):
            raise ConfigError(f"{what}: {name} must be {wanted.__name__}, got {value!r}")
    return {**defaults, **settings}


def _grid(n_dims: int, grid_type: str, settings: dict[str, Any], device: str) -> Encoding:
    defaults = {
        "type": grid_type,
        **GRID_DEFAULTS,
        "per_level_scale": 2.0,
        "interpolation": "Linear",
        "hash": HASH,
        "stochastic_interpolation": False,
    }
    values = _checked(settings, defaults, "a grid")
    kind = values["type"].lower()
    if values["hash"].lower() != HASH.lower():
        raise ConfigError(f"a grid's hash must be {HASH}, got {values['hash']!r}")
    if values["stochastic_interpolation"]:
        raise ConfigError("a grid's stochastic_interpolation is not supported")
    base, n_levels = values["base_resolution"], values["n_levels"]
    check_range("encoding.base_resolution", base, 1)
    check_range("encoding.n_levels", n_levels, 1)
    if kind == "dense" and "per_level_scale" not in settings:
        values["per_level_scale"] = _dense_scale(base, n_levels)
    if kind == "tiled" and base**n_dims % 8:
        raise ConfigError(
            f"a tiled grid's base_resolution^{n_dims} must be a multiple of 8, got {base}: levels "
            "would not have tiny-cuda-nn's size"
        )
    grid = GridEncodingConfig(
        grid_type=kind,
        n_levels=n_levels,
        n_features_per_level=values["n_features_per_level"],
        log2_hashmap_size=values["log2_hashmap_size"],
        base_resolution=base,
        per_level_scale=float(values["per_level_scale"]),
        interpolation=values["interpolation"].lower(),
    )
    return GridFeatures(n_dims, resolve(grid), device)


def _dense_scale(base_resolution: int, n_levels: int) -> float:
    """Return the scale that leads to a resolution of 256, in float32 like the reference."""
    if n_levels == 1:
        return 1.0
    return float(np.exp(np.log(np.float32(256) / np.float32(base_resolution)) / (n_levels - 1)))


def _composite(n_dims: int, settings: dict[str, Any], device: str) -> Encoding:
    values = _checked(settings, {"nested": [], "reduction": CONCATENATION}, "a composite")
    nested = values["nested"]
    if not nested or not all(isinstance(part, dict) for part in nested):
        raise ConfigError("a composite needs an array of nested encodings")
    parts: list[tuple[Encoding, int]] = []
    for config, begin, n in zip(nested, *_slices(n_dims, nested), strict=True):
        own = {key: value for key, value in config.items() if key not in _PLACES}
        if n > 0:
            parts.append((_bare(n, own, device), begin))
    reduction = values["reduction"].lower()
    if reduction == CONCATENATION:
        return concatenated(n_dims, parts)
    alignment = int(np.lcm.reduce([required_alignment(part) for part, _ in parts]))
    return Composite(n_dims, [(aligned(part, alignment), i) for part, i in parts], reduction)


_PLACES = ("n_dims_to_encode", "dims_to_encode_begin")


def _slices(n_dims: int, nested: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """Return the first dimension and the number of dimensions of each nested encoding.

    A slice begins where the one before ends, unless it says where. One of them may leave its number
    out and gets the rest, if no other says where it begins.
    """
    for part in nested:
        for name in _PLACES:
            if name in part:
                _checked({name: part[name]}, {name: 0}, "a nested encoding")
                check_range(name, part[name], 0, n_dims)
    given = [part.get("n_dims_to_encode") for part in nested]
    placed = any("dims_to_encode_begin" in part for part in nested)
    rest = n_dims - sum(n or 0 for n in given)
    if not placed and rest < 0:
        raise ConfigError(
            f"nested encodings have {n_dims - rest} dimensions, the composite {n_dims}"
        )
    if given.count(None) > (0 if placed else 1):
        raise ConfigError(
            "n_dims_to_encode may only be left out once, and not beside dims_to_encode_begin"
        )
    begins, sizes, at = [], [], 0
    for part, n in zip(nested, given, strict=True):
        at = part.get("dims_to_encode_begin", at)
        begins.append(at)
        sizes.append(rest if n is None else n)
        at += sizes[-1]
    return begins, sizes
