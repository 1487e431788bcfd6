"""Passes of a radiance field as pictures: colour, depth, normals, opacity; and as files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.files import atomic_path
from ngp_warp.primitives.nerf.colors import to_srgb, to_srgb8
from ngp_warp.primitives.nerf.passes import Buffers
from ngp_warp.primitives.pictures import save_png, write_exr
from ngp_warp.radiance.settings import ColorSpace

Show = Literal["color", "depth", "normals", "opacity"]

PICTURE_SUFFIXES = {
    "color": (".png",),
    "depth": (".png", ".npy", ".exr"),
    "normals": (".png",),
    "opacity": (".png",),
}
SOLID = 0.5
"""Opacity from which on a pixel counts as hit, in pictures of depths."""
_MAP = "turbo"
_SHARES = (1.0, 99.0)
"""Percentiles of the depths that the colour map's ends stand for."""


@dataclass(frozen=True)
class DepthRange:
    """The depths that the ends of the colour map stand for, in scene units."""

    near: float
    far: float

    @classmethod
    def of(cls, depths: np.ndarray, opacities: np.ndarray | None = None) -> "DepthRange":
        """Return the range of depths, the outermost hundredths and what is transparent left out."""
        solid = np.isfinite(depths) & (depths > 0)
        if opacities is not None:
            solid &= opacities >= SOLID
        seen = depths[solid]
        if not len(seen):
            return cls(1.0, 2.0)
        near, far = (float(value) for value in np.percentile(seen, _SHARES))
        return cls(near, max(far, near * (1 + 1e-6)))


def check_show(show: str) -> None:
    """Raise ConfigError unless it names a pass."""
    if show not in get_args(Show):
        raise ConfigError(f"--show must be one of {', '.join(get_args(Show))}, got {show}")


def color_picture(made: Buffers, color_space: ColorSpace, *, transparent: bool) -> np.ndarray:
    """Return the colours uint8 sRGB [h, w, 3]; or [h, w, 4] with the opacity, not premultiplied."""
    if not transparent:
        return to_srgb8(made.color, color_space)
    opacity = made.opacity[..., None]
    straight = made.color / np.maximum(opacity, 1e-4)
    return np.rint(
        np.concatenate([to_srgb(straight, color_space), np.clip(opacity, 0, 1)], axis=2) * 255
    ).astype(np.uint8)


def depth_picture(
    depth: np.ndarray, span: DepthRange | None = None, opacity: np.ndarray | None = None
) -> np.ndarray:
    """Return depths as colours uint8 [h, w, 3], from red (near) to blue; black where nothing is.

    The colours are even in 1 / depth, in which near things differ as much as they seem to.

    Args:
        depth: [h, w], infinite where nothing is.
        span: what the ends stand for; None: what this picture holds.
        opacity: [h, w]: what is transparent fades to black; None: nothing does.
    """
    import matplotlib

    span = DepthRange.of(depth, opacity) if span is None else span
    hit = np.isfinite(depth)
    inverse = 1 / np.maximum(np.where(hit, depth, span.far), 1e-30)
    share = np.clip((inverse - 1 / span.far) / (1 / span.near - 1 / span.far), 0, 1)
    colors = matplotlib.colormaps[_MAP](share, bytes=True)[..., :3]
    shown = hit if opacity is None else np.where(hit, np.clip(opacity, 0, 1), 0)
    return np.rint(colors * shown[..., None]).astype(np.uint8)


def picture(
    made: Buffers,
    show: Show,
    color_space: ColorSpace,
    *,
    transparent: bool = False,
    span: DepthRange | None = None,
) -> np.ndarray:
    """Return a pass as a picture, uint8 [h, w, 3], or [h, w, 4] of transparent colours."""
    if show == "color":
        return color_picture(made, color_space, transparent=transparent)
    if show == "depth":
        return depth_picture(made.depth, span, made.opacity)
    if show == "normals":
        if made.normals is None:
            raise ValueError("the passes were made without normals")
        return np.rint(made.normals * 127.5 + 127.5).astype(np.uint8)
    grey = np.rint(np.clip(made.opacity, 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def write_picture(
    path: Path, made: Buffers, show: Show, color_space: ColorSpace, *, transparent: bool = False
) -> None:
    """Write a pass to a file by its extension.

    PNG holds 8-bit colours (of a depth, a colour map from near to far); of a depth, NPY holds
    float32 [h, w] and EXR a channel Z: distances along the optical axis in scene units, infinite
    where nothing is.

    Raises:
        ResourceError: the folder cannot be written, or the disk is full.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, made.depth)
    elif suffix == ".exr":
        write_exr(path, {"Z": made.depth})
    else:
        save_png(path, picture(made, show, color_space, transparent=transparent))
