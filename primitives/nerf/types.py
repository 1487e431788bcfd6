"""A scene as it is read, and its photos in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ngp_warp.radiance.settings import ColorSpace
from ngp_warp.rays.lenses import Lens

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class View:
    """One photo and where it was taken from."""

    name: str
    """Relative to the scene's folder."""
    image: Path
    lens: Lens
    """In pixels of the photo as the scene's file describes it, before any downscaling."""
    pose: np.ndarray
    """float64 [3, 4]: camera to scene, OpenGL's camera axes, the scene's own units; its left 3x3
    part is a rotation."""
    split: Split = "train"
    mask: Path | None = None
    """Photo of the same size; pixels of 0 are not trained."""
    depth: Path | None = None
    """Distances along the optical axis; 0: not known."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Views of one scene."""

    path: Path
    """The folder or file that was given."""
    format: str
    """"transforms", "colmap" or "llff"."""
    views: tuple[View, ...]
    aabb_scale: int | None = None
    """What the file says, if it does."""
    scale: float | None = None
    """From scene units to the inner cube, what the file's dialect fixes; None: from the cameras."""
    offset: tuple[float, float, float] | None = None
    """Added after ``scale``; None: from the cameras."""
    depth_unit: float = 1.0
    """Scene units of one unit of the depth maps."""
    points: np.ndarray | None = None
    """float64 [n, 3]: sparse points of a reconstruction, scene units."""
    near: float | None = None
    """Distance from the cameras at which there is something, scene units."""
    far: float | None = None
    """Distance from the cameras beyond which there is next to nothing, scene units."""
    has_splits: bool = False
    """Whether the files name test views; otherwise ``eval_every`` or ``eval_split`` choose them."""


@dataclass(frozen=True, kw_only=True)
class Photos:
    """All pixels of some views, one after another, row by row."""

    pixels: np.ndarray
    """[n_pixels, 4] red, green, blue, opacity, not premultiplied: uint8, or float16 (shares of full
    scale, or linear light) where any photo has more than 8 bits."""
    offsets: np.ndarray
    """int64 [n_views + 1]: first pixel of each view, and their number."""
    sizes: np.ndarray
    """int32 [n_views, 2]: width and height in memory."""
    masks: np.ndarray | None = None
    """uint8 [n_pixels]: 0 where the pixel is not trained; None: all are."""
    depths: np.ndarray | None = None
    """float32 [n_pixels]: along the optical axis, scene units; 0: not known. None: no depths."""
    has_alpha: bool = False
    """Whether any pixel is not opaque."""
    color_space: ColorSpace = "srgb"
    """Of the pixels; linear for EXR and Radiance files."""
    downscale: float = 1.0
    """What the sides of the stored photos were divided by."""
