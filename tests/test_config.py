"""Laws of the shared settings: they survive JSON, and refuse what they cannot mean."""

import json
import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngp_warp import config as c
from ngp_warp.errors import ConfigError


def finite(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


encodings = st.builds(
    c.GridEncodingConfig,
    grid_type=st.sampled_from(get_args(c.GridType)),
    n_levels=st.none() | st.integers(1, 64),
    n_features_per_level=st.none() | st.sampled_from(c.N_FEATURES_ALLOWED),
    log2_hashmap_size=st.none() | st.integers(c.LOG2_HASHMAP_SIZE_MIN, c.LOG2_HASHMAP_SIZE_MAX),
    base_resolution=st.integers(1, 2**20),
    finest_resolution=st.none() | st.integers(1, 2**24),
    per_level_scale=st.none() | finite(1.0, 16.0),
    interpolation=st.sampled_from(get_args(c.Interpolation)),
    dtype=st.sampled_from(get_args(c.TableDtype)),
)
networks = st.integers(2, 64).flatmap(
    lambda depth: st.builds(
        c.NetworkConfig,
        n_neurons=st.integers(1, 4096),
        n_hidden_layers=st.just(depth),
        activation=st.sampled_from(get_args(c.Activation)),
        output_activation=st.sampled_from(get_args(c.Activation)),
        bias=st.booleans(),
        skip_layer=st.none() | st.integers(1, depth - 1),
        backend=st.sampled_from(get_args(c.Backend)),
    )
)
optimizers = st.builds(
    c.OptimizerConfig,
    learning_rate=finite(0.0, 1e3),
    beta1=finite(0.0, 0.999999),
    beta2=finite(0.0, 0.999999),
    epsilon=finite(0.0, 1.0),
    l2_regularization=finite(0.0, 1.0),
    decay_start=finite(0.0, 1.0),
    final_learning_rate=finite(0.0, 1.0),
    ema_decay=finite(0.0, 0.999999),
)
durations = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"seconds": finite(0.1, 1e6)}),
    st.fixed_dictionaries({"steps": st.integers(1, 2**31 - 1)}),
)
trainings = durations.flatmap(
    lambda duration: st.builds(
        c.TrainingConfig,
        **{name: st.just(value) for name, value in duration.items()},
        batch_size=st.none() | st.integers(1, 2**24),
        seed=st.integers(0, 2**31 - 1),
        checkpoint_seconds=finite(0.0, 1e6),
        deterministic=st.booleans(),
    )
)


@given(st.one_of(encodings, networks, optimizers, trainings))
def test_a_config_survives_json(config: Any) -> None:
    values = json.loads(json.dumps(c.to_dict(config)))
    assert c.from_dict(type(config), values) == config
    assert c.from_dict(type(config), c.to_dict(config)) == config


def test_a_changed_value_is_noticed() -> None:
    config = c.OptimizerConfig()
    assert c.from_dict(c.OptimizerConfig, {**c.to_dict(config), "beta1": 0.5}) != config


@pytest.mark.parametrize(
    "cls", [c.GridEncodingConfig, c.NetworkConfig, c.OptimizerConfig, c.TrainingConfig]
)
def test_an_unknown_key_is_named_with_its_place(cls: type) -> None:
    with pytest.raises(ConfigError, match=r"^file\.json has no setting 'n_layer'; it has "):
        c.from_dict(cls, {"n_layer": 1}, "file.json")


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (c.GridEncodingConfig, "n_levels", "16"),
        (c.GridEncodingConfig, "n_levels", 16.0),
        (c.GridEncodingConfig, "n_levels", True),
        (c.GridEncodingConfig, "grid_type", "octree"),
        (c.GridEncodingConfig, "grid_type", None),
        (c.GridEncodingConfig, "base_resolution", None),
        (c.NetworkConfig, "bias", 1),
        (c.NetworkConfig, "activation", ["relu"]),
        (c.OptimizerConfig, "beta1", "0.9"),
        (c.OptimizerConfig, "beta1", False),
        (c.TrainingConfig, "seed", None),
        (c.TrainingConfig, "seconds", {}),
    ],
)
def test_a_wrong_type_is_refused_by_name(cls: type, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^file.json.{name} must be "):
        c.from_dict(cls, {name: value}, "file.json")


@pytest.mark.parametrize("values", [None, [], "encoding", 3])
def test_what_is_no_object_is_refused(values: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config must be an object"):
        c.from_dict(c.NetworkConfig, values)


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (c.GridEncodingConfig, "n_levels", 0),
        (c.GridEncodingConfig, "n_levels", 65),
        (c.GridEncodingConfig, "n_features_per_level", 3),
        (c.GridEncodingConfig, "log2_hashmap_size", 25),
        (c.GridEncodingConfig, "base_resolution", 0),
        (c.GridEncodingConfig, "finest_resolution", 2**24 + 1),
        (c.GridEncodingConfig, "per_level_scale", 0.99),
        (c.GridEncodingConfig, "per_level_scale", math.nan),
        (c.NetworkConfig, "n_neurons", 0),
        (c.NetworkConfig, "n_hidden_layers", -1),
        (c.NetworkConfig, "skip_layer", 2),
        (c.OptimizerConfig, "learning_rate", -1e-9),
        (c.OptimizerConfig, "learning_rate", math.nan),
        (c.OptimizerConfig, "learning_rate", math.inf),
        (c.OptimizerConfig, "beta1", 1.0),
        (c.OptimizerConfig, "decay_start", 1.1),
        (c.TrainingConfig, "seconds", 0.0),
        (c.TrainingConfig, "seconds", math.inf),
        (c.TrainingConfig, "steps", 0),
        (c.TrainingConfig, "seed", -1),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(cls: type, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^(\w+\.)?{name} must be .*, got "):
        cls(**{name: value})


def test_seconds_and_steps_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="seconds or steps, not both"):
        c.TrainingConfig(seconds=1.0, steps=1)
