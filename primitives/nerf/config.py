"""Settings of the nerf primitive, and how they follow from the scene and the device."""

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
from ngp_warp.primitives.nerf.colors import NAMED, named_color
from ngp_warp.primitives.nerf.refine import RefineSettings
from ngp_warp.radiance.settings import AABB_SCALES, ColorSpace, RadianceSettings
from ngp_warp.radiance.vanilla import VanillaSettings, vanilla_optimizer

Method = Literal["hash", "vanilla"]
SceneFormat = Literal["auto", "transforms", "colmap", "llff"]
EvalSplit = Literal["test", "val"]

DEFAULT_EVAL_EVERY = 8
# of the original NeRF, whose code begins its synthetic scenes so
_CROP_STEPS = 500
# Of the finest level a pixel of the photos. More learns the photos' noise: views of the chair held
# back, 400x400, after 12,000 steps: 36.6 dB with 5, 36.8 with 2.5, 37.0 with 1.25, 36.2 with 0.6.
_VERTICES_PER_PIXEL = 1.25
# By whether opacities say what is empty: without them 0.2 draws the light together at the cameras.
_DISTORTION_WEIGHTS = {False: 0.02, True: 0.2}


def _encoding() -> GridEncodingConfig:
    return GridEncodingConfig(dtype="float16")


def _density_network() -> NetworkConfig:
    return NetworkConfig(n_hidden_layers=1)


@dataclass(frozen=True, kw_only=True)
class NerfConfig:
    """How a radiance field is fitted to photos."""

    encoding: GridEncodingConfig = field(default_factory=_encoding)
    density_network: NetworkConfig = field(default_factory=_density_network)
    color_network: NetworkConfig = field(default_factory=NetworkConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    method: Method = "hash"
    """The hash encoding with its small networks, or the original NeRF (Mildenhall et al. 2020)."""
    format: SceneFormat = "auto"
    """Which of the scene's files is read; auto: the first of these that is there."""
    downscale: float | None = None
    """Train on photos this many times smaller; chosen where they would not fit in memory."""
    eval_every: int | None = None
    """Hold back every Nth photo, where the scene names no test views (8 if not given); 0: none."""
    eval_split: EvalSplit | None = None
    """Which views that the scene names are held back and measured: test, or val where there are no
    test views."""
    background: str = "random"
    """Colour behind everything: random (another for each ray; white where a run is measured),
    white, black or R,G,B from 0 to 1."""
    environment: bool = False
    """Learn a map of what is behind everything instead of a background colour."""
    aabb_scale: int | None = None
    """Side of the box in which there is anything, in sides of the cube of the finest detail: 1, 2,
    4, ... 128."""
    near: float | None = None
    """Distance from the cameras at which there may be something, in the scene's units."""
    march_steps: int | None = None
    """Samples in the diagonal of the cube of the finest detail."""
    render_steps: int | None = None
    """The same in pictures; twice as many if not given."""
    max_rays: int | None = None
    """Most rays of a step."""
    crop_steps: int | None = None
    """Steps at the beginning that see the middle half of each photo's rows and columns only, so
    that a field cannot begin as the background alone; 500 for vanilla, else 0, if not given."""
    loss: Loss = "huber"
    """Between the photos' colours and the field's."""
    train_poses: bool = False
    """Refine the cameras' positions and directions."""
    train_lenses: bool = False
    """Refine focal lengths, principal points and distortion."""
    exposure: bool = False
    """Learn the exposure of each photo's channels."""
    appearance: int = 0
    """Length of a learned vector for each photo's appearance; 0: none."""
    depth_weight: float | None = None
    """Weight of the depth maps, where the scene has any (0.1 if not given)."""
    distortion_weight: float | None = None
    """Weight of the distortion loss, which draws a ray's light together in one place (Barron et al.
    2022): against haze and floating specks. If not given, 0.2 where photos have an opacity, else
    0.02."""

    def __post_init__(self):
        check_choice("method", self.method, get_args(Method))
        check_choice("format", self.format, get_args(SceneFormat))
        check_choice("loss", self.loss, get_args(Loss))
        if self.eval_split is not None:
            check_choice("eval_split", self.eval_split, get_args(EvalSplit))
        if self.aabb_scale is not None:
            check_choice("aabb_scale", self.aabb_scale, AABB_SCALES)
        check_range("downscale", self.downscale, 1.0, 1024.0)
        check_range("eval_every", self.eval_every, 0, 10**6)
        check_range("near", self.near, 0.0)
        check_range("march_steps", self.march_steps, 16, 16384)
        check_range("render_steps", self.render_steps, 16, 16384)
        check_range("max_rays", self.max_rays, 32, 2**22)
        check_range("crop_steps", self.crop_steps, 0, 2**31 - 1)
        check_range("appearance", self.appearance, 0, 64)
        check_range("depth_weight", self.depth_weight, 0.0)
        check_range("distortion_weight", self.distortion_weight, 0.0)
        background_color(self.background)


def background_color(text: str) -> tuple[float, float, float]:
    """Return the colour that ``--background`` names; white for a random one.

    Raises:
        ConfigError: no name and no three numbers from 0 to 1.
    """
    if text == "random":
        return NAMED["white"]
    if (color := named_color(text)) is None:
        raise ConfigError(
            f"background must be random, white, black or R,G,B from 0 to 1, got {text!r}"
        )
    return color


def resolve(
    config: NerfConfig,
    device: str,
    *,
    aabb_scale: int,
    has_alpha: bool,
    has_depth: bool,
    pixels_across: float = math.inf,
) -> NerfConfig:
    """Return the config with every None chosen for the scene and the device.

    Args:
        config: as given.
        device: "cpu" or a CUDA device.
        aabb_scale: what the scene's frame has.
        has_alpha: whether any photo has an opacity.
        has_depth: whether there are depth maps to learn from.
        pixels_across: of the photos, along a side of the cube of the finest detail.

    Raises:
        ConfigError: a weight of depth maps, and none are there.
    """
    if config.depth_weight and not has_depth:
        raise ConfigError("--depth-weight needs depth maps, and the scene has none")
    if config.method == "vanilla":
        return _resolve_vanilla(config, aabb_scale)
    on_cpu = device == "cpu"
    encoding = config.encoding
    finest = min(_VERTICES_PER_PIXEL * pixels_across, 1024 if on_cpu else 2048)
    finest = max(round(finest / 16), 4) * 16
    encoding = replace(
        encoding,
        n_levels=encoding.n_levels or 8,
        n_features_per_level=encoding.n_features_per_level or 4,
        log2_hashmap_size=encoding.log2_hashmap_size or 19,
        finest_resolution=encoding.finest_resolution
        or max(finest, encoding.base_resolution) * aabb_scale,
    )
    training = config.training
    batch = training.batch_size or (2**16 if on_cpu else 2**18)
    depth_weight = config.depth_weight if config.depth_weight is not None else 0.1
    march_steps = config.march_steps or (512 if on_cpu else 1024)
    distortion_weight = config.distortion_weight
    if distortion_weight is None:
        distortion_weight = _DISTORTION_WEIGHTS[has_alpha]
    return replace(
        config,
        encoding=resolve_encoding(encoding),
        training=replace(training, batch_size=current().whole(batch, 32)),
        aabb_scale=aabb_scale,
        near=config.near or 0.0,
        march_steps=march_steps,
        render_steps=config.render_steps or min(2 * march_steps, 16384),
        max_rays=current().whole(config.max_rays or (2**15 if on_cpu else 2**17)),
        crop_steps=config.crop_steps or 0,
        depth_weight=depth_weight if has_depth else 0.0,
        distortion_weight=distortion_weight,
    )


# What the original NeRF has no place for, or fixes itself.
_NOT_VANILLA = (
    *("encoding", "density_network", "color_network", "march_steps", "render_steps", "loss"),
    *("train_poses", "train_lenses", "exposure", "appearance", "environment", "depth_weight"),
    "distortion_weight",
)


def _resolve_vanilla(config: NerfConfig, aabb_scale: int) -> NerfConfig:
    usual = NerfConfig()
    for name in _NOT_VANILLA:
        if getattr(config, name) != getattr(usual, name):
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} is not for --method vanilla, which has none; leave it out")
    if config.training.batch_size is not None:
        raise ConfigError("--batch-size is not for --method vanilla; give --max-rays")
    rays = current().whole(config.max_rays or VanillaSettings().max_rays)
    samples = rays * VanillaSettings().n_evaluations
    given = config.optimizer != usual.optimizer
    return replace(
        config,
        optimizer=config.optimizer if given else vanilla_optimizer(),
        training=replace(config.training, batch_size=samples),
        aabb_scale=aabb_scale,
        near=config.near or 0.0,
        max_rays=rays,
        crop_steps=_CROP_STEPS if config.crop_steps is None else config.crop_steps,
        depth_weight=0.0,
    )


def vanilla_settings_of(
    config: NerfConfig, *, box_per_unit: float, color_space: ColorSpace
) -> VanillaSettings:
    """Return the settings of the original NeRF; arguments as of ``settings_of``."""
    assert config.aabb_scale is not None
    assert config.max_rays is not None
    return VanillaSettings(
        aabb_scale=config.aabb_scale,
        near=(config.near or 0.0) * box_per_unit,
        color_space=color_space,
        max_rays=config.max_rays,
    )


def refine_settings(config: NerfConfig) -> RefineSettings:
    """Return what is refined beside the field."""
    return RefineSettings(
        poses=config.train_poses,
        focal=config.train_lenses,
        distortion=config.train_lenses,
        exposure=config.exposure,
    )


def settings_of(
    config: NerfConfig, *, box_per_unit: float, n_views: int, color_space: ColorSpace
) -> RadianceSettings:
    """Return what a radiance field's kernels follow from.

    Args:
        config: resolved.
        box_per_unit: sides of the box in one of the scene's units.
        n_views: views that are trained.
        color_space: of the photos.
    """
    assert config.aabb_scale is not None
    assert config.march_steps is not None
    assert config.max_rays is not None
    latents = config.appearance > 0
    output = "exponential" if color_space == "linear" else "sigmoid"
    return RadianceSettings(
        encoding=config.encoding,
        density_network=config.density_network,
        color_network=replace(config.color_network, output_activation=output),
        aabb_scale=config.aabb_scale,
        steps=config.march_steps,
        render_steps=config.render_steps,
        cone_angle=1 / 256 if config.aabb_scale > 1 else 0.0,
        near=(config.near or 0.0) * box_per_unit,
        batch_samples=int(config.training.batch_size or 0),
        max_rays=config.max_rays,
        n_views=n_views if latents or config.exposure else 0,
        n_latent_dims=config.appearance,
        loss=config.loss,
        depth_weight=config.depth_weight or 0.0,
        distortion_weight=config.distortion_weight or 0.0,
        exposure=config.exposure,
        ray_gradients=config.train_poses or config.train_lenses,
        background_gradients=config.environment,
        color_space=color_space,
    )
