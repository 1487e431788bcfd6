"""A scene as it is fitted: which views are trained and which held back, with their photos."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp import launch, memory
from ngp_warp.errors import ConfigError, DataError
from ngp_warp.primitive import Progress, Report, check_same
from ngp_warp.primitives.nerf.config import DEFAULT_EVAL_EVERY, NerfConfig
from ngp_warp.primitives.nerf.frame import Frame, choose_frame
from ngp_warp.primitives.nerf.images import load_photos
from ngp_warp.primitives.nerf.scene import load_scene
from ngp_warp.primitives.nerf.types import Photos, Scene, View


@dataclass(frozen=True, kw_only=True)
class ViewSet:
    """Some of a scene's views, with lenses in pixels of their photos in memory."""

    views: tuple[View, ...]
    photos: Photos


@dataclass(frozen=True, kw_only=True)
class NerfData:
    """What is fitted, and what it is measured on."""

    scene: Scene
    frame: Frame
    train: ViewSet
    held: ViewSet | None
    """None: no view is held back."""

    def pixels_across(self) -> float:
        """Return the pixels along a side of the cube of the finest detail, in the median view."""
        side = 1.0 / (self.frame.scale * self.frame.aabb_scale)
        centre, found = self.frame.centre, []
        for view in self.train.views:
            # from within the cube, what lies half a side ahead
            distance = max(float(np.linalg.norm(view.pose[:, 3] - centre)), side / 2)
            found.append(view.lens.fx * side / distance)
        return float(np.median(found))

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: cameras, frame, what the photos are like."""
        return {
            "n_dims": 3,
            "n_outputs": 4,
            "format": self.scene.format,
            "color_space": self.train.photos.color_space,
            "has_alpha": self.train.photos.has_alpha,
            "downscale": self.train.photos.downscale,
            "has_depth": self.train.photos.depths is not None,
            "frame": self.frame.to_dict(),
            "train": _cameras(self.train),
            "held": _cameras(self.held) if self.held else [],
        }


def load(source: Path, config: NerfConfig, report: Report) -> NerfData:
    """Read a scene and its photos.

    Raises:
        DataError: it cannot be read, or a view has no photo.
        ConfigError: no view is left to train.
        ResourceError: the photos do not fit in memory.
    """

    def say(line: str) -> None:
        report(Progress(stage="load", message=line))

    wanted = None if config.format == "auto" else config.format
    scene = load_scene(source, format=wanted, report=say)
    train, held = split_views(scene, config)
    frame = choose_frame(scene, config.aabb_scale)
    kind = {"transforms": "transforms.json", "colmap": "COLMAP model", "llff": "LLFF poses"}
    text = f"{kind[scene.format]}: {len(train)} views to train, {len(held)} held back"
    say(text)
    # together, so that both get the same size
    views = _load_views(scene, (*train, *held), config, report)
    trained = _part(views, 0, len(train))
    if not np.any(trained.photos.pixels[:, 3]):
        raise DataError(f"every pixel of {scene.path}'s photos is transparent; nothing to train")
    measured = _part(views, len(train), len(views.views)) if held else None
    return NerfData(scene=scene, frame=frame, train=trained, held=measured)


def split_views(scene: Scene, config: NerfConfig) -> tuple[tuple[View, ...], tuple[View, ...]]:
    """Return the views to train and those held back.

    Raises:
        ConfigError: the scene has no such split, or no view is left to train.
    """
    if scene.has_splits and config.eval_every is None:
        named = {view.split for view in scene.views}
        wanted = config.eval_split or ("test" if "test" in named else "val")
        if config.eval_split and wanted not in named:
            raise ConfigError(f"{scene.path} names no {wanted} views; leave --eval-split out")
        held = tuple(view for view in scene.views if view.split == wanted)
        train = tuple(view for view in scene.views if view.split == "train")
    else:
        if config.eval_split:
            raise ConfigError(
                f"{scene.path} names no splits; hold views back with --eval-every"
                if not scene.has_splits
                else "give --eval-split or --eval-every, not both"
            )
        every = DEFAULT_EVAL_EVERY if config.eval_every is None else config.eval_every
        held = scene.views[::every] if every else ()
        train = tuple(v for i, v in enumerate(scene.views) if not every or i % every)
    if not train:
        raise ConfigError(
            f"{scene.path} has no view left to train: {len(held)} are held back; "
            "raise --eval-every, or 0 to hold none back"
        )
    return train, held


def load_again(run: Any, report: Report) -> NerfData:
    """Read the scene that a run was fitted to.

    Raises:
        DataError: it is gone, or another.
    """
    data = load(run.original(), run.config, report)
    check_same(run.source, data.describe(), run.header["data"])
    return data


def _load_views(scene: Scene, views: Sequence[View], config: NerfConfig, report: Report) -> ViewSet:
    photos, lenses = load_photos(
        views,
        downscale=config.downscale,
        depth_unit=scene.depth_unit,
        threads=launch.num_threads(),
        report=report,
        available_bytes=memory.available_bytes() // 2,
    )
    sized = (replace(view, lens=lens) for view, lens in zip(views, lenses, strict=True))
    return ViewSet(views=tuple(sized), photos=photos)


def _part(views: ViewSet, begin: int, end: int) -> ViewSet:
    """Return some of the views; their pixels are not copied."""
    photos = views.photos
    first, last = int(photos.offsets[begin]), int(photos.offsets[end])
    part = replace(
        photos,
        pixels=photos.pixels[first:last],
        offsets=photos.offsets[begin : end + 1] - first,
        sizes=photos.sizes[begin:end],
        masks=None if photos.masks is None else photos.masks[first:last],
        depths=None if photos.depths is None else photos.depths[first:last],
    )
    return ViewSet(views=views.views[begin:end], photos=part)


def _cameras(views: ViewSet) -> list[dict[str, Any]]:
    return [
        {
            "name": view.name,
            "pose": np.asarray(view.pose, np.float64).tolist(),
            "lens": asdict(view.lens),
        }
        for view in views.views
    ]
