"""What is trained of a scene, and what a checkpoint gives back: the field and its cameras."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from ngp_warp.decode import load_state
from ngp_warp.distributed import current
from ngp_warp.launch import resolve_device
from ngp_warp.optimizer import Adam, Parameters
from ngp_warp.primitives.nerf.alignment import common_motion
from ngp_warp.primitives.nerf.backdrop import Backdrop
from ngp_warp.primitives.nerf.colors import from_srgb
from ngp_warp.primitives.nerf.config import (
    NerfConfig,
    background_color,
    refine_settings,
    settings_of,
    vanilla_settings_of,
)
from ngp_warp.primitives.nerf.environment import Environment
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.nerf.refine import Refinement
from ngp_warp.primitives.nerf.types import Photos, View
from ngp_warp.primitives.nerf.views import make_views
from ngp_warp.primitives.nerf.visibility import visible_cells
from ngp_warp.radiance.field import RadianceField, Rendered
from ngp_warp.radiance.positions import PositionEncoding
from ngp_warp.radiance.vanilla import VanillaField
from ngp_warp.rays.lenses import Lens

# What is evaluated; the few values that are refined come with their moments.
_STORED = ("value", "average", "quantum")
_REFINED, _MOMENTS = ("poses", "lenses", "exposures"), ("first_moment", "second_moment")


class NerfModel:
    """A radiance field with the cameras of its photos; implements ``Trainable``.

    Args:
        described: what ``NerfData.describe`` says of the scene.
        config: resolved.
        device: "cpu" or a CUDA device.
        folder: of the scene's photos.
        photos: of the views that are trained; None: nothing will be trained.
        encoding: see ``RadianceField``; not of the original NeRF.
    """

    def __init__(
        self,
        described: dict[str, Any],
        config: NerfConfig,
        device: str,
        folder: Path,
        photos: Photos | None = None,
        encoding: PositionEncoding | None = None,
    ):
        self.described, self.config, self.device = described, config, device
        self.frame = Frame.from_dict(described["frame"])
        self.trained = tuple(_view(c, "train", folder) for c in described["train"])
        self.held = tuple(_view(c, "test", folder) for c in described["held"])
        space = described["color_space"]
        pixels = photos or _no_photos(self.trained)
        self.arrays = make_views(self.trained, pixels, self.frame, device)
        self.radiance = self._make_field(encoding, trainable=photos is not None)
        self.batch = self.radiance.make_batch()
        self.surroundings: Environment | None = None
        if config.environment:
            self.surroundings = Environment(space, device, trainable=photos is not None)
        self.refinement: Refinement | None = None
        refined = refine_settings(config)
        if refined.any:
            unit = 1 / self.frame.aabb_scale
            self.refinement = Refinement(
                self.arrays, self.batch, refined, self.optimizer, unit=unit
            )

    def _make_field(self, encoding: PositionEncoding | None, *, trainable: bool) -> Any:
        config, described = self.config, self.described
        given: dict[str, Any] = {
            "optimizer": config.optimizer,
            "seed": config.training.seed,
            "device": self.device,
            "trainable": trainable,
        }
        scale, space = self.frame.scale, described["color_space"]
        # a step's are shared by the processes
        most_rays = current().part(int(config.max_rays or 0))
        if config.method == "vanilla":
            settings = vanilla_settings_of(config, box_per_unit=scale, color_space=space)
            return VanillaField(replace(settings, max_rays=most_rays), **given)
        settings = settings_of(
            config, box_per_unit=scale, n_views=len(self.trained), color_space=space
        )
        samples = current().part(settings.batch_samples)
        settings = replace(settings, batch_samples=samples, max_rays=most_rays)
        seen = None
        if trainable:
            seen = visible_cells(self.arrays, settings.n_cascades, near=settings.near)
        given |= {"deterministic": config.training.deterministic, "visible": seen}
        return RadianceField(settings, encoding=encoding, **given)

    @property
    def optimizer(self) -> Adam:
        """The field's, whose clock the others follow."""
        return self.radiance.optimizer

    @property
    def n_params(self) -> int:
        """Number of trained values."""
        return sum(p.value.size for p in self.parameters().values())

    def parameters(self) -> dict[str, Parameters]:
        """Return the trained arrays by name."""
        found = dict(self.radiance.parameters())
        for part in (self.surroundings, self.refinement):
            if part is not None:
                found |= part.parameters()
        return found

    def extra_state(self) -> dict[str, wp.array]:
        """Return the occupancy grid and the number of rays of a step."""
        return self.radiance.extra_state()

    def use_average(self) -> None:
        """Replace the parameters by their moving average, where there is one."""
        self.radiance.use_average()

    @property
    def views(self) -> tuple[View, ...]:
        """All views, the trained ones first, with refined poses and lenses.

        Views held back go with the motion that the refined poses have in common.
        """
        refinement = self.refinement
        if refinement is None:
            return self.trained + self.held
        poses, lenses = refinement.refined_poses(), refinement.refined_lenses()
        trained = [
            replace(view, pose=pose, lens=lens)
            for view, pose, lens in zip(self.trained, poses, lenses, strict=True)
        ]
        held = [replace(view, lens=refinement.refined_lens(view.lens)) for view in self.held]
        if refinement.settings.poses:
            motion = common_motion(np.stack([view.pose for view in self.trained]), poses)
            held = [replace(view, pose=motion.moved(view.pose)) for view in held]
        return (*trained, *held)

    @property
    def lenses(self) -> tuple[Lens, ...]:
        """Of all views, in pixels of their photos in memory."""
        return tuple(view.lens for view in self.views)

    @property
    def photos_background(self) -> tuple[float, float, float] | None:
        """What photos with an opacity are measured over, sRGB; None: they are opaque."""
        return background_color(self.config.background) if self.described["has_alpha"] else None

    @property
    def environment(self) -> Backdrop | None:
        """The light from beyond the box, where it was learned."""
        return self.surroundings

    def render_rays(self, origins: np.ndarray, directions: np.ndarray) -> Rendered:
        """Return what is seen along rays [n, 3] of the box, over the run's background."""
        directions = np.ascontiguousarray(directions, np.float32)
        color = self.photos_background or (0.0, 0.0, 0.0)
        behind = from_srgb(color, self.radiance.settings.color_space)
        if self.environment is not None:
            behind = self.environment(directions)
        return self.radiance.render_rays(
            np.ascontiguousarray(origins, np.float32), directions, background=behind
        )


def load_model(run: Any) -> NerfModel:
    """Return a run's model on the run's device, with its evaluated parameters.

    Raises:
        CheckpointError: the checkpoint is cut short, altered, or does not fit its config.
    """
    source = run.source if run.source.is_dir() else run.source.parent
    model = NerfModel(run.header["data"], run.config, resolve_device(run.device), source)
    refined = tuple(f"{name}.{part}" for name in _REFINED for part in _MOMENTS)
    names = tuple(model.extra_state())
    load_state(model, run.arrays((*_STORED, *names, *refined)))
    if model.refinement is not None:
        model.refinement.refresh()
    model.optimizer.step.assign(np.array([run.header["step"]], np.int64))
    model.use_average()
    return model


def resumed(config: NerfConfig, described: dict[str, Any]) -> NerfConfig:
    """Keep the size of the photos that was chosen, however much memory there is today."""
    if config.downscale is not None:
        return config
    return replace(config, downscale=described["downscale"])


def _view(camera: dict[str, Any], split: Any, folder: Path) -> View:
    return View(
        name=camera["name"],
        image=folder / camera["name"],
        lens=Lens(**camera["lens"]),
        pose=np.array(camera["pose"], np.float64),
        split=split,
    )


def _no_photos(views: tuple[View, ...]) -> Photos:
    return Photos(
        pixels=np.zeros((0, 4), np.uint8),
        offsets=np.zeros(len(views) + 1, np.int64),
        sizes=np.array([[v.lens.width, v.lens.height] for v in views], np.int32),
    )
