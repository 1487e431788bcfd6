"""Settings shared by the primitives: frozen, keyword-only, checked when made.

A field's docstring (the string literal below it) is the help of its flag. A field of value None is
chosen by the primitive for its input and device; the run's config.json holds the choice.
"""

import dataclasses
import math
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ngp_warp.errors import ConfigError

GridType = Literal["hash", "dense", "tiled"]
Interpolation = Literal["linear", "smoothstep", "nearest"]
TableDtype = Literal["float32", "float16"]
Activation = Literal[
    "none", "relu", "leaky_relu", "exponential", "sine", "sigmoid", "squareplus", "softplus", "tanh"
]
Backend = Literal["auto", "fused", "unfused"]
Sampler = Literal["stratified", "uniform", "halton", "sobol"]
Loss = Literal["l2", "l1", "relative_l2", "mape", "smape", "huber", "log_l1"]

# Given alone, one of a pair replaces the other of a file or of a resumed run.
_EXCLUSIVE = (("seconds", "steps"), ("finest_resolution", "per_level_scale"))
# What per_level_scale follows from, beside finest_resolution; a run's config.json holds both.
_SCALE_FOLLOWS = {"n_levels", "base_resolution"}

N_FEATURES_ALLOWED = (1, 2, 4, 8)
# A level's size is a multiple of 8 entries (kernels.grid.GROUP divides it), so it has at least 8
LOG2_HASHMAP_SIZE_MIN, LOG2_HASHMAP_SIZE_MAX = 3, 24
_LARGEST_WHOLE = 2**63  # JSON's have no end, floats do

_C = TypeVar("_C")


def check_range(name: str, value: float | None, low: float, high: float = float("inf")) -> None:
    """Raise ConfigError unless ``value`` is None or finite and within [low, high].

    Raises:
        ConfigError: names the setting, the value and the range.
    """
    if value is not None and not (low <= value <= high and math.isfinite(value)):
        bound = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise ConfigError(f"{name} must be {bound}, got {value:g}")


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise ConfigError unless ``value`` is one of ``choices``.

    Raises:
        ConfigError: names the setting, the value and the choices.
    """
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(map(str, choices))}, got {value}")


@dataclass(frozen=True, kw_only=True)
class GridEncodingConfig:
    """A multiresolution grid (Mueller et al. 2022, section 3)."""

    grid_type: GridType = "hash"
    """Where a level has more vertices than entries: hash their coordinates, tile them, or
    (dense) give every vertex its own entry."""
    n_levels: int | None = None
    """Number of resolutions L."""
    n_features_per_level: int | None = None
    """Features F of an entry: 1, 2, 4 or 8."""
    log2_hashmap_size: int | None = None
    """log2 of the most entries T that a level may have (3 to 24)."""
    base_resolution: int = 16
    """Resolution N_min of the coarsest level."""
    finest_resolution: int | None = None
    """Resolution N_max of the finest level, unless per_level_scale is given."""
    per_level_scale: float | None = None
    """Factor b from one level's resolution to the next."""
    interpolation: Interpolation = "linear"
    """Interpolation between vertices."""
    dtype: TableDtype = "float32"
    """Storage of the table that is read; float16 keeps float32 master values."""
    quantization: float = 0.0
    """Round the table that is read to multiples of this share of its root mean square, after two
    fifths of the steps, for a compact export of a few bits a value (0.5); 0: do not."""

    @property
    def half(self) -> bool:
        """Whether a float16 table is read; a quantized one always is."""
        return self.dtype == "float16" or self.quantization > 0

    def __post_init__(self):
        check_choice("encoding.grid_type", self.grid_type, get_args(GridType))
        check_choice("encoding.interpolation", self.interpolation, get_args(Interpolation))
        check_choice("encoding.dtype", self.dtype, get_args(TableDtype))
        check_range("encoding.n_levels", self.n_levels, 1, 64)
        if self.n_features_per_level is not None:
            check_choice(
                "encoding.n_features_per_level", self.n_features_per_level, N_FEATURES_ALLOWED
            )
        check_range(
            "encoding.log2_hashmap_size",
            self.log2_hashmap_size,
            LOG2_HASHMAP_SIZE_MIN,
            LOG2_HASHMAP_SIZE_MAX,
        )
        check_range("encoding.base_resolution", self.base_resolution, 1, 2**20)
        check_range("encoding.finest_resolution", self.finest_resolution, 1, 2**24)
        check_range("encoding.quantization", self.quantization, 0.0, 4.0)
        # two levels may lie as far apart as the coarsest and the finest resolution
        check_range("encoding.per_level_scale", self.per_level_scale, 1.0, 2**24)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """A multilayer perceptron."""

    n_neurons: int = 64
    """Width of the hidden layers."""
    n_hidden_layers: int = 2
    """Number of hidden layers."""
    activation: Activation = "relu"
    """Activation of the hidden layers."""
    output_activation: Activation = "none"
    """Activation of the outputs."""
    bias: bool = False
    """Add biases (not fused)."""
    skip_layer: int | None = None
    """Concatenate the input again before this hidden layer, counted from 0 (not fused)."""
    backend: Backend = "auto"
    """Fused: all layers in one kernel, widths 16 to 128; unfused: layer by layer, any width."""

    def __post_init__(self):
        check_range("network.n_neurons", self.n_neurons, 1, 4096)
        check_range("network.n_hidden_layers", self.n_hidden_layers, 0, 64)
        check_choice("network.activation", self.activation, get_args(Activation))
        check_choice("network.output_activation", self.output_activation, get_args(Activation))
        check_choice("network.backend", self.backend, get_args(Backend))
        if self.skip_layer is not None:
            check_range("network.skip_layer", self.skip_layer, 1, self.n_hidden_layers - 1)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam with the settings of Mueller et al. 2022, section 4, and a decay over the run."""

    learning_rate: float | None = 1e-2
    """Learning rate before its decay; where it has no default, what suits the mode."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.99
    """Decay of the second moment."""
    epsilon: float = 1e-15
    """Added to the square root of the second moment."""
    l2_regularization: float = 1e-6
    """Weight of the L2 penalty on the network's weights; table entries have none."""
    decay_start: float | None = 0.75
    """Share of the run's steps after which the learning rate decays; where it has no default, what
    suits the mode."""
    final_learning_rate: float = 0.01
    """Learning rate at the last step, as a share of learning_rate (exponential decay)."""
    ema_decay: float = 0.0
    """Decay of the moving average of the weights that is evaluated; 0: none."""

    def __post_init__(self):
        check_range("optimizer.learning_rate", self.learning_rate, 0.0)
        check_range("optimizer.beta1", self.beta1, 0.0, 0.999999)
        check_range("optimizer.beta2", self.beta2, 0.0, 0.999999)
        check_range("optimizer.epsilon", self.epsilon, 0.0)
        check_range("optimizer.l2_regularization", self.l2_regularization, 0.0)
        check_range("optimizer.decay_start", self.decay_start, 0.0, 1.0)
        check_range("optimizer.final_learning_rate", self.final_learning_rate, 0.0, 1.0)
        check_range("optimizer.ema_decay", self.ema_decay, 0.0, 0.999999)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, on what and from which seed."""

    seconds: float | None = None
    """Training time; turned once, after a timed warm-up, into a number of steps."""
    steps: int | None = None
    """Number of training steps."""
    batch_size: int | None = None
    """Samples of a step; rounded up to a multiple of 32."""
    seed: int = 0
    """Seed of every random number: a seed and a step give the batch."""
    checkpoint_seconds: float = 30.0
    """Time between checkpoints; ten times that of writing one, if that is more."""
    deterministic: bool = False
    """Bit-identical results on CUDA too (a CPU always gives them), at some cost in speed."""

    def __post_init__(self):
        if self.seconds is not None and self.steps is not None:
            raise ConfigError("give seconds or steps, not both")
        check_range("seconds", self.seconds, 0.1)
        check_range("steps", self.steps, 1, 2**31 - 1)
        check_range("batch_size", self.batch_size, 1, 2**24)
        check_range("seed", self.seed, 0, 2**31 - 1)
        check_range("checkpoint_seconds", self.checkpoint_seconds, 0.0)


def to_dict(config: Any) -> dict[str, Any]:
    """Return the config, nested dataclasses included, as plain JSON values."""
    return dataclasses.asdict(config)


def from_dict(cls: type[_C], values: dict[str, Any], where: str = "config") -> _C:
    """Build a config dataclass from plain JSON values.

    Args:
        cls: the dataclass.
        values: field name to value; fields left out take their defaults.
        where: named in errors.

    Raises:
        ConfigError: an unknown field, a value of the wrong type, or one out of its range.
    """
    return _overridden(cls(), values, where)


def _overridden(base: _C, values: dict[str, Any], where: str) -> _C:
    """Return ``base`` with some fields replaced: a nested default may differ from its class's."""
    hints = get_type_hints(type(base))
    names = [f.name for f in dataclasses.fields(base)]  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be an object, got {type(values).__name__}")
    kwargs = {}
    for name, value in values.items():
        if name not in names:
            raise ConfigError(f"{where} has no setting {name!r}; it has {', '.join(names)}")
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            kwargs[name] = _overridden(getattr(base, name), value, f"{where}.{name}")
        else:
            kwargs[name] = _typed(value, hint, f"{where}.{name}")
    return dataclasses.replace(base, **kwargs)  # type: ignore[type-var]


def override(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return the settings ``below`` with those of ``above`` over them, nested ones one by one.

    Args:
        below: plain JSON values, as ``to_dict`` gives them; may leave anything out.
        above: the same; ``seconds`` and ``steps`` replace each other, as do ``finest_resolution``
            and ``per_level_scale``. Another number of levels or base resolution keeps the finest
            one, where there is one.
    """
    result = dict(below)
    for names in _EXCLUSIVE:
        if len(set(names) & set(above)) == 1:
            for name in names:
                result.pop(name, None)
    if _SCALE_FOLLOWS & set(above) and result.get("finest_resolution") is not None:
        result.pop("per_level_scale", None)
    for key, value in above.items():
        nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = override(result[key], value) if nested else value
    return result


@contextmanager
def settings_of_file(path: Path) -> Iterator[None]:
    """Name the file in errors about settings that do not name it.

    Raises:
        ConfigError: as the block raises it.
    """
    try:
        yield
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if str(path) in text else f"{path}: {text}") from None


def _typed(value: Any, hint: Any, where: str) -> Any:
    """Return ``value`` as the annotated type, int widened to float; ConfigError otherwise."""
    if isinstance(value, int) and abs(value) > _LARGEST_WHOLE:
        raise ConfigError(f"{where} must be {hint}, got {reprlib.repr(value)}, which is too large")
    options = get_args(hint) if get_origin(hint) not in (Literal, None) else (hint,)
    for option in options:
        if get_origin(option) is Literal and value in get_args(option):
            return value
        if option is type(None) and value is None:
            return None
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if isinstance(option, type) and option is not float and type(value) is option:
            return value
    raise ConfigError(f"{where} must be {hint}, got {reprlib.repr(value)}")
