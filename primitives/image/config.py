"""Settings of the image primitive, and how they follow from the image and the device."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from ngp_warp.config import (
    GridEncodingConfig,
    Loss,
    NetworkConfig,
    OptimizerConfig,
    Sampler,
    TrainingConfig,
    check_choice,
    check_range,
)
from ngp_warp.distributed import current
from ngp_warp.errors import ConfigError
from ngp_warp.primitives.image.info import ImageInfo

Target = Literal["pixel", "bilinear"]
Transfer = Literal["auto", "linear", "asinh"]


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How an image is fitted."""

    encoding: GridEncodingConfig = field(default_factory=GridEncodingConfig)
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(n_hidden_layers=1))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=6e-3))
    training: TrainingConfig = field(default_factory=TrainingConfig)
    loss: Loss = "l2"
    """Loss between decoded and true values, after the transfer."""
    sampler: Sampler = "stratified"
    """Where a step's samples lie."""
    target: Target = "pixel"
    """Samples at pixel centres, or anywhere with bilinear values."""
    transfer: Transfer = "auto"
    """What is fitted: the values, or asinh(value / transfer_scale) for high dynamic range."""
    transfer_scale: float | None = None
    """Values of asinh below which it is linear, in the image's units."""
    crop: str | None = None
    """Fit only this part: left,top,width,height in pixels of the picture."""
    cache_dir: str | None = None
    """Folder of the decoded pixels of an image larger than memory."""

    def __post_init__(self):
        check_choice("loss", self.loss, get_args(Loss))
        check_choice("sampler", self.sampler, get_args(Sampler))
        check_choice("target", self.target, get_args(Target))
        check_choice("transfer", self.transfer, get_args(Transfer))
        check_range("transfer_scale", self.transfer_scale, 1e-30)
        parse_box(self.crop)


def parse_box(crop: str | None) -> tuple[int, int, int, int] | None:
    """Return left, top, width and height of a crop, or None where there is none.

    Raises:
        ConfigError: other than four whole numbers, or an empty box.
    """
    if crop is None:
        return None
    try:
        left, top, width, height = (int(part) for part in crop.split(","))
    except ValueError:
        left = top = width = height = -1
    if min(left, top) < 0 or min(width, height) < 1:
        raise ConfigError(f"crop must be left,top,width,height in whole pixels, got {crop!r}")
    return left, top, width, height


def format_box(box: tuple[int, int, int, int]) -> str:
    """Return a box as ``ImageConfig.crop`` has it."""
    return ",".join(map(str, box))


def resolve(config: ImageConfig, info: ImageInfo, device: str) -> ImageConfig:
    """Return the config with every None chosen for the image and the device.

    Eight levels of four features cost a CPU half of sixteen of two (half the random reads) and
    reach the same quality.
    """
    encoding = config.encoding
    n_levels = encoding.n_levels or 8
    finest = encoding.finest_resolution or _finest(info, encoding.base_resolution)
    encoding = replace(
        encoding,
        n_levels=n_levels,
        n_features_per_level=encoding.n_features_per_level or 4,
        log2_hashmap_size=encoding.log2_hashmap_size or _log2_table(info),
        finest_resolution=finest,
    )
    training = config.training
    batch = training.batch_size or (2**15 if device == "cpu" else 2**18)
    training = replace(training, batch_size=current().whole(batch, 32))
    return replace(config, encoding=encoding, training=training)


def _finest(info: ImageInfo, least: int) -> int:
    """Return the finest resolution: a vertex a pixel up to 8 megapixels, then fewer.

    In a run of a minute a large image's pixels are hardly seen once; finer levels than these cost
    time and gain nothing (measured at 2 and 35 megapixels).
    """
    longest = max(info.width, info.height)
    share = (8e6 / (info.width * info.height)) ** 0.25
    return max(round(longest * min(max(share, 0.25), 1.0)), least)


def _log2_table(info: ImageInfo) -> int:
    """Return log2 of the entries of a level: at least half a pixel's worth, 8 million at most."""
    pixels = info.width * info.height
    return min(max(math.ceil(math.log2(pixels)) - 1, 8), 23)
