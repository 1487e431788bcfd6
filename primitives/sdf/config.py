"""Settings of the sdf primitive, and how they follow from the device."""

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from ngp_warp.config import (
    GridEncodingConfig,
    Loss,
    NetworkConfig,
    OptimizerConfig,
    TrainingConfig,
    check_choice,
    check_range,
)
from ngp_warp.distributed import current
from ngp_warp.encodings.grid import resolve as resolve_encoding

SignChoice = Literal["auto", "normal", "raystab", "winding"]


@dataclass(frozen=True, kw_only=True)
class SdfConfig:
    """How a mesh's signed distance field is fitted."""

    encoding: GridEncodingConfig = field(default_factory=GridEncodingConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=3e-3))
    training: TrainingConfig = field(default_factory=TrainingConfig)
    loss: Loss = "mape"
    """Loss between fitted and true signed distances, in sides of the unit cube."""
    sign: SignChoice = "auto"
    """How inside is told from outside: pseudo-normals (watertight meshes), rays that escape
    (closed meshes of any winding), winding numbers (meshes with holes); auto: as the mesh needs."""
    noise_std: float = 8.5e-4
    """Standard deviation of the samples near the surface, in sides of the unit cube."""
    eikonal_weight: float = 0.0
    """Weight of the eikonal term, mean (|gradient| - 1)^2; it makes a step slower."""

    def __post_init__(self):
        check_choice("loss", self.loss, get_args(Loss))
        check_choice("sign", self.sign, get_args(SignChoice))
        check_range("noise_std", self.noise_std, 1e-6, 0.1)
        check_range("eikonal_weight", self.eikonal_weight, 0.0)


def resolve(config: SdfConfig, device: str) -> SdfConfig:
    """Return the config with every None chosen for the device."""
    encoding = config.encoding
    encoding = replace(
        encoding,
        n_levels=encoding.n_levels or 8,
        n_features_per_level=encoding.n_features_per_level or 4,
        log2_hashmap_size=encoding.log2_hashmap_size or 18,
        finest_resolution=encoding.finest_resolution or 1024,
    )
    training = config.training
    batch = training.batch_size or (2**15 if device == "cpu" else 2**18)
    training = replace(training, batch_size=current().whole(batch, 32))
    return replace(config, encoding=resolve_encoding(encoding), training=training)
