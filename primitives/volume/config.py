"""Settings of the volume primitive, and how they follow from the volume and the device."""

import math
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
from ngp_warp.errors import ConfigError
from ngp_warp.primitives.volume.light import Light
from ngp_warp.primitives.volume.medium import DEFAULT_ALBEDO, DENSITY_SCALES
from ngp_warp.primitives.volume.readers.raw import RawDtype, RawLayout
from ngp_warp.rays.cameras import Up

Mode = Literal["density", "radiance"]
Target = Literal["voxel", "trilinear"]
DEFAULT_SUN = "50,40"


@dataclass(frozen=True, kw_only=True)
class VolumeConfig:
    """How a volume is fitted."""

    encoding: GridEncodingConfig = field(default_factory=GridEncodingConfig)
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(n_hidden_layers=1))
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=None, decay_start=None)
    )
    training: TrainingConfig = field(default_factory=TrainingConfig)
    mode: Mode = "density"
    """What is learned: the grid's own values, or (radiance) the density and the light that it
    scatters under a sky and a sun."""
    loss: Loss | None = None
    """Loss between fitted and true values, as shares of the volume's range: l2 of values,
    relative_l2 of light."""
    grid: str | None = None
    """Name of the grid to fit, of a file that holds several."""
    shape: str | None = None
    """Of a raw file: its size as x,y,z or x,y,z,channels."""
    dtype: RawDtype | None = None
    """Of a raw file: what its numbers are."""
    big_endian: bool = False
    """Of a raw file: whether its numbers begin with their highest byte."""
    target: Target | None = None
    """Of density mode: samples at voxels' middles (if not given), or anywhere with trilinear
    values."""
    occupied_share: float | None = None
    """Of density mode: share of the samples that lie in occupied blocks alone; if not given, half
    where those fill less than half of the box, else none."""
    albedo: float = DEFAULT_ALBEDO
    """Share of the light that a collision scatters; the rest is absorbed."""
    density_scale: float | None = None
    """Extinction of density 1 for each unit of the world; if not given, such that the box's longest
    side has an optical depth of 60 at the largest density."""
    sun: str = DEFAULT_SUN
    """Direction of the sun: its azimuth and elevation in degrees, or none."""
    up: Up | None = None
    """The world's axis that points up: z of scans, else y."""

    def __post_init__(self):
        check_choice("mode", self.mode, get_args(Mode))
        if self.loss is not None:
            check_choice("loss", self.loss, get_args(Loss))
        if self.target is not None:
            check_choice("target", self.target, get_args(Target))
        for name in ("target", "occupied_share"):
            if self.mode == "radiance" and getattr(self, name) is not None:
                raise ConfigError(f"{name} is for density mode; radiance mode follows light")
        check_range("occupied_share", self.occupied_share, 0.0, 1.0)
        check_range("albedo", self.albedo, 0.0, 1.0)
        check_range("density_scale", self.density_scale, *DENSITY_SCALES)
        if self.up is not None:
            check_choice("up", self.up, get_args(Up))
        parse_sun(self.sun)
        raw_layout(self)

    @property
    def light(self) -> Light:
        """The sky and the sun; ``up`` must be resolved."""
        return make_light(self.sun, self.up or "y")


def parse_sun(text: str) -> tuple[float, float] | None:
    """Return azimuth and elevation in degrees of ``AZIMUTH,ELEVATION``; None of ``none``.

    Raises:
        ConfigError: it is neither.
    """
    if text == "none":
        return None
    try:
        azimuth, elevation = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"sun must be AZIMUTH,ELEVATION in degrees (such as {DEFAULT_SUN}) or none, got {text}"
        ) from None
    Light(sun_azimuth=azimuth, sun_elevation=elevation)  # raises where they are out of range
    return azimuth, elevation


def make_light(sun: str, up: Up) -> Light:
    """Return the default light with the sun in a direction, or without one; see ``parse_sun``."""
    angles = parse_sun(sun)
    if angles is None:
        return Light(up=up, sun_radiance=(0.0, 0.0, 0.0))
    return Light(up=up, sun_azimuth=angles[0], sun_elevation=angles[1])


def raw_layout(config: VolumeConfig) -> RawLayout | None:
    """Return what ``shape``, ``dtype`` and ``big_endian`` say of a raw file; None: nothing.

    Raises:
        ConfigError: one of the first two alone, or values that cannot be.
    """
    if config.shape is None and config.dtype is None and not config.big_endian:
        return None
    if config.shape is None or config.dtype is None:
        raise ConfigError("a raw volume needs shape and dtype: --shape 256,256,110 --dtype uint8")
    try:
        x, y, z, *channels = (int(part) for part in config.shape.split(","))
        (n_channels,) = channels or [1]
    except ValueError:
        raise ConfigError(
            f"shape must be x,y,z or x,y,z,channels in whole numbers, got {config.shape}"
        ) from None
    return RawLayout(
        shape=(x, y, z),
        dtype=config.dtype,
        n_channels=n_channels,
        big_endian=config.big_endian,
    )


def resolve(config: VolumeConfig, side: int, n_bytes: int, device: str) -> VolumeConfig:
    """Return the config with every None chosen but those that the values decide.

    Args:
        config: as given.
        side: voxels along the longest side of the unit cube.
        n_bytes: of the dense box as stored.
        device: "cpu" or a CUDA device.
    """
    radiance = config.mode == "radiance"
    encoding = config.encoding
    encoding = replace(
        encoding,
        n_levels=encoding.n_levels or 8,
        n_features_per_level=encoding.n_features_per_level or 4,
        log2_hashmap_size=encoding.log2_hashmap_size or _log2_table(n_bytes, radiance=radiance),
        # one more than voxels: vertices of the finest level then lie at the voxels' middles
        finest_resolution=encoding.finest_resolution
        or (None if encoding.per_level_scale else max(side + 1, encoding.base_resolution)),
    )
    training = config.training
    batch = training.batch_size or (2**15 if device == "cpu" else 2**18)
    training = replace(training, batch_size=current().whole(batch, 512))
    # Single paths are noisy, and averaged by small steps of a rate that falls early; the relative
    # loss keeps thin and dark parts from drowning in the noise of bright ones (measured: 1.8 dB).
    given = config.optimizer
    optimizer = replace(
        given,
        learning_rate=_or(given.learning_rate, 2e-3 if radiance else 6e-3),
        decay_start=_or(given.decay_start, 0.25 if radiance else 0.75),
    )
    return replace(
        config,
        encoding=resolve_encoding(encoding),
        training=training,
        optimizer=optimizer,
        loss=config.loss or ("relative_l2" if radiance else "l2"),
    )


def _or(given: float | None, usual: float) -> float:
    return usual if given is None else given


def _log2_table(n_bytes: int, *, radiance: bool) -> int:
    """Return log2 of the entries of a level: the field is about as large as the volume.

    Four times as many gain half a decibel in a minute (measured on a head of 9 million voxels).
    The light in a small volume is no smaller for that.
    """
    return min(max(math.ceil(math.log2(n_bytes)) - 7, 14 if radiance else 10), 21)
