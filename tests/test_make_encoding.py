"""Encodings from tiny-cuda-nn's JSON: sizes computed by hand, padding, and what is refused."""

from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import pytest
import warp as wp

from ngp_warp.encodings.composite import Composite
from ngp_warp.encodings.grid_features import GridFeatures
from ngp_warp.encodings.make import make_encoding
from ngp_warp.encodings.padding import Padded
from ngp_warp.errors import ConfigError
from ngp_warp.kernels.grid import DENSE
from tests.encoding_case import run

T19 = 2**19


def full(resolutions, n_dims):
    """Entries of levels that have one for each vertex: rounded up to 8."""
    return sum(-(-(r**n_dims) // 8) * 8 for r in resolutions)


def powers(scale, n_levels, base=16):
    """Vertices a level where base * scale^l is no whole number but for l = 0."""
    return [ceil(base * Fraction(scale) ** level) for level in range(n_levels)]


# name: dimensions, config, (entries, features)
SIZES = {
    # 16, 32, 64 to the third power, 128^3 > 2^19
    "defaults": (3, {}, (4096 + 32768 + 262144 + 13 * T19, 2)),
    # 16 to 512 squared, 1024^2 > 2^19
    "defaults 2D": (2, {}, (256 + 1024 + 4096 + 16384 + 65536 + 262144 + 10 * T19, 2)),
    "image": (
        2,
        {"per_level_scale": 1.3, "log2_hashmap_size": 24},
        (full(powers("1.3", 16), 2), 2),
    ),
    "sdf": (3, {"per_level_scale": 1.38191288}, (full([16, 23, 31, 43, 59], 3) + 11 * T19, 2)),
    "nerf": (
        3,
        {"n_levels": 8, "n_features_per_level": 4},
        (4096 + 32768 + 262144 + 5 * T19, 4),
    ),
    # to 256 in 15 steps: 16 * 2^(4 l / 15), and 85^3 > 2^19
    "volume": (
        3,
        {"per_level_scale": 2 ** (4 / 15)},
        (full([16, 20, 24, 28, 34, 41, 49, 59, 71], 3) + 7 * T19, 2),
    ),
    # the paper's dense grid
    "dense": (
        3,
        {"type": "Dense", "n_levels": 8, "per_level_scale": 1.405},
        (full(powers("1.405", 8), 3), 2),
    ),
    "one level": (
        3,
        {"type": "dense", "n_levels": 1, "base_resolution": 128, "n_features_per_level": 8},
        (2**21, 8),
    ),
    "tiled": (3, {"type": "Tiled"}, (16 * 4096, 2)),
    "small": (
        2,
        {"n_levels": 4, "log2_hashmap_size": 10, "base_resolution": 5, "n_features_per_level": 1},
        # 5^2, 10^2, 20^2, 40^2 > 2^10
        (32 + 104 + 400 + 1024, 1),
    ),
}  # fmt: skip


def built(*args: Any, **kwargs: Any) -> Any:
    """Make an encoding; Any, so that tests may look into it."""
    return make_encoding(*args, **kwargs)


@pytest.mark.parametrize("name", SIZES)
def test_grids_have_the_references_parameters(name):
    n_dims, config, (n_entries, n_features) = SIZES[name]
    e = built(n_dims, {"otype": "Grid", **config}, "cpu")
    assert e.n_params == n_entries * n_features
    # levels lie one after another, and are dense as long as they fit
    levels = e.grid.levels
    ends = [level.offset + level.size for level in levels]
    assert [level.offset for level in levels] == [0, *ends[:-1]]
    for level in levels:
        assert (level.mode == DENSE) == (level.resolution**n_dims <= level.size)


def test_a_number_that_others_have_published():
    # 16 levels of 2 features to a resolution of 2048: 12,196,240 parameters in every
    # implementation of this convention
    e = make_encoding(3, {"otype": "HashGrid", "per_level_scale": 2 ** (7 / 15)}, "cpu")
    assert e.n_params == 12_196_240


def test_dense_grids_end_at_256_by_default():
    config = {"otype": "DenseGrid", "n_levels": 4}
    levels = built(2, config, "cpu").grid.levels
    assert levels[0].resolution == 16
    # float32 may put ceil() on either side
    assert levels[-1].resolution in {256, 257}
    assert built(2, {**config, "n_levels": 1}, "cpu").grid.levels[0].resolution == 16


def test_names_are_case_insensitive():
    config = {"otype": "hashGRID", "type": "TILED", "interpolation": "smoothstep", "n_levels": 2}
    e = make_encoding(3, {**config, "hash": "coherentprime"}, "cpu")
    assert e.hyperparams() == {
        "otype": "Grid",
        "type": "Tiled",
        "n_levels": 2,
        "n_features_per_level": 2,
        "base_resolution": 16,
        "per_level_scale": 2.0,
        "interpolation": "Smoothstep",
        "hash": "CoherentPrime",
    }
    assert make_encoding(1, {}, "cpu").hyperparams() == {"otype": "OneBlob", "n_bins": 16}


def test_the_name_of_the_references_class_is_good_too():
    named, grid = (make_encoding(3, {"otype": o}, "cpu") for o in ("GridEncoding", "Grid"))
    assert named.hyperparams() == grid.hyperparams()


@pytest.mark.parametrize(
    ("config", "n_outputs"),
    [
        ({"otype": "Identity"}, 3),
        ({"otype": "Frequency"}, 72),
        ({"otype": "TriangleWave"}, 36),
        ({"otype": "OneBlob"}, 48),
        ({"otype": "SphericalHarmonics"}, 16),
        ({"otype": "HashGrid"}, 32),
        ({"otype": "DenseGrid"}, 32),
        ({"otype": "TiledGrid"}, 32),
    ],
)
def test_default_sizes_work(config, n_outputs, device):
    e = make_encoding(3, config, device)
    assert e.n_outputs == n_outputs
    rng = np.random.default_rng(0)
    x = wp.array(rng.random(3 * 64, dtype=np.float32), device=device)
    dy = wp.array(rng.normal(size=n_outputs * 64).astype(np.float32), device=device)
    params = wp.array(e.initial_params(0), dtype=float, device=device)
    y, dx, d_params = wp.empty_like(dy), wp.empty_like(x), wp.zeros_like(params)
    run(e.forward(x, params, y))
    run(e.backward(x, params, dy, dx=dx, d_params=d_params))
    assert np.all(np.isfinite(y.numpy()))
    assert np.all(np.isfinite(dx.numpy()))
    assert np.count_nonzero(dx.numpy()) == 3 * 64
    assert e.n_params == 0 or np.count_nonzero(d_params.numpy()) > 1000


def features(e, x):
    blocked = np.zeros((e.n_dims, 32), np.float32)
    blocked[:, 0] = x
    y = wp.zeros(e.n_outputs * 32, dtype=float, device=e.device)
    params = wp.array(np.ones(e.n_params, np.float32), dtype=float, device=e.device)
    run(e.forward(wp.array(blocked.ravel(), dtype=float, device=e.device), params, y))
    return y.numpy().reshape(-1, 32)[:, 0]


GRID = {"otype": "HashGrid", "n_levels": 2, "n_features_per_level": 4}
HARMONIC = {"otype": "SphericalHarmonics", "degree": 2}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"otype": "Identity"}, [0.5, 0.25, 1, *13 * [1]]),
        ({"otype": "TriangleWave", "n_frequencies": 1}, [0, 0.5, -1, *13 * [1]]),
        (GRID, [*8 * [1], *8 * [0]]),
        # ones before: (d = 0, -0.5, 1)
        (HARMONIC, [*12 * [1], 0.28209479, 0.24430126, 0.48860251, 0]),
        # the last part is padded, with what it has
        ({"otype": "Composite", "nested": [{**HARMONIC, "n_dims_to_encode": 3}]},
         [*12 * [1], 0.28209479, 0.24430126, 0.48860251, 0]),
        ({"otype": "Composite", "nested": [{"otype": "Identity", "n_dims_to_encode": 1}, GRID]},
         [0.5, *3 * [1], *8 * [1], *4 * [0]]),
    ],
)  # fmt: skip
def test_padding_is_the_references(config, wanted):
    e = make_encoding(3, config, "cpu", alignment=16)
    assert np.allclose(features(e, [0.5, 0.25, 1.0]), wanted, atol=1e-6)


@pytest.mark.parametrize(("reduction", "wanted"), [("Sum", 2.0), ("Product", 1.0)])
def test_reductions_pad_every_part(reduction, wanted):
    nested = [{"otype": "Identity", "n_dims_to_encode": 1} for _ in range(2)]
    config = {"otype": "Composite", "nested": nested, "reduction": reduction}
    y = features(make_encoding(2, config, "cpu", alignment=4), [0.5, 0.25])
    assert y[0] == (0.75 if reduction == "Sum" else 0.125)
    assert np.all(y[1:] == wanted)


def test_grids_begin_at_a_multiple_of_their_features():
    nested = [{"otype": "Identity", "n_dims_to_encode": 3}, {"n_dims_to_encode": 2, **GRID}]
    e = built(5, {"otype": "Composite", "nested": nested}, "cpu")
    assert isinstance(e, Composite)
    assert isinstance(e.encodings[0], Padded)
    assert isinstance(e.encodings[1], GridFeatures)
    assert [part.n_outputs for part in e.encodings] == [4, 8]


def test_the_rest_of_the_dimensions_is_derived():
    # of neural radiance caching (Mueller et al. 2021)
    nested = [
        {"n_dims_to_encode": 3, "otype": "TriangleWave", "n_frequencies": 12},
        {"n_dims_to_encode": 5, "otype": "OneBlob", "n_bins": 4},
        {"otype": "Identity"},
    ]
    e = built(14, {"otype": "Composite", "nested": nested}, "cpu")
    assert e.begins == [0, 3, 8]
    assert e.n_outputs == 36 + 20 + 6
    # nothing is left for the last one
    assert len(built(8, {"otype": "Composite", "nested": nested}, "cpu").encodings) == 2


IDENTITY = {"otype": "Identity"}


@pytest.mark.parametrize(
    ("n_dims", "config", "match"),
    [
        (3, {"otype": "Fourier"}, "no encoding 'Fourier'; there are Composite, .*OneBlob"),
        (3, {"otype": "OneBlob", "n_bins": 12}, "power of two"),
        (3, {"otype": "OneBlob", "n_bins": 16.0}, "n_bins must be int"),
        (3, {"otype": "OneBlob", "n_bins": True}, "n_bins must be int"),
        (3, {"otype": "Identity", "scale": "2"}, "scale must be float"),
        (3, {"otype": "Frequency", "n_frequencies": 0}, "n_frequencies must be from 1 to 20"),
        (3, {"otype": "SphericalHarmonics", "degree": 9}, "degree must be from 1 to 8"),
        (2, {"otype": "SphericalHarmonics"}, "3 dimensions, got 2"),
        (4, {"otype": "HashGrid"}, "2 or 3 dimensions, got 4"),
        (3, {"otype": "HashGrid", "hash": "Prime"}, "must be CoherentPrime, got 'Prime'"),
        (3, {"otype": "HashGrid", "type": "Sparse"}, "hash, dense, tiled, got sparse"),
        (3, {"otype": "HashGrid", "interpolation": "Cubic"}, "interpolation must be one of"),
        (3, {"otype": "HashGrid", "n_levels": 0}, "n_levels must be at least 1"),
        (3, {"otype": "HashGrid", "n_features_per_level": 3}, "1, 2, 4, 8, got 3"),
        (3, {"otype": "HashGrid", "stochastic_interpolation": True}, "not supported"),
        (3, {"otype": "TiledGrid", "base_resolution": 5}, "multiple of 8, got 5"),
        (3, {"otype": "Composite"}, "array of nested"),
        (3, {"otype": "Composite", "nested": [{**IDENTITY, "n_dims_to_encode": 0}]}, "at least"),
        (3, {"otype": "Composite", "nested": [IDENTITY, IDENTITY]}, "left out once"),
        (3, {"otype": "Composite", "nested": [{**IDENTITY, "n_dims_to_encode": 2}] * 2},
         "have 4 dimensions, the composite 3"),
        (3, {"otype": "Composite", "nested": [{**IDENTITY, "dims_to_encode_begin": 2}]},
         "not beside dims_to_encode_begin"),
        (3, {"otype": "Composite", "nested": [
            {**IDENTITY, "dims_to_encode_begin": 2, "n_dims_to_encode": 2}]}, "dimensions 2 to 4"),
        (3, {"otype": "Composite", "reduction": "Max", "nested": [IDENTITY]}, "one of"),
        (3, {"otype": "Composite", "reduction": "Sum", "nested": [
            {**IDENTITY, "n_dims_to_encode": 1}, IDENTITY]}, "one width, got"),
        (0, IDENTITY, "n_dims must be from 1"),
        (3, "HashGrid", "must be an object"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(n_dims, config, match):
    with pytest.raises(ConfigError, match=match):
        make_encoding(n_dims, config, "cpu")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"otype": "OneBlob", "bins": 4}, "no setting 'bins', ignored; it has n_bins"),
        ({"otype": "HashGrid", "finest_resolution": 512}, "no setting 'finest_resolution', ign"),
        ({"otype": "Composite", "nested": [{**IDENTITY, "depth": 1}]}, "identity has no .*'depth'"),
    ],
)
def test_what_is_unknown_is_ignored_with_a_warning(config, message):
    with pytest.warns(UserWarning, match=message):
        make_encoding(3, config, "cpu")
