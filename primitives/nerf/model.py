"""What is trained of a scene, and what a checkpoint gives back: the field and its cameras."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from ngp_warp.decode import load_state
from ngp_warp.launch import resolve_device
from ngp_warp.optimizer import Adam, Parameters
from ngp_warp.primitives.nerf.config import NerfConfig, background_color, settings_of
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.nerf.types import View
from ngp_warp.radiance.field import RadianceField
from ngp_warp.rays.lenses import Lens

_STORED = ("value", "average", "quantum")


class NerfModel:
    """A radiance field with the cameras of its photos; implements ``Trainable``.

    Args:
        described: what ``NerfData.describe`` says of the scene.
        config: resolved.
        device: "cpu" or a CUDA device.
        folder: of the scene's photos.
        trainable: keep gradients and moments.
        visible: cells that a camera sees, bool [n_cascades, 128, 128, 128]; None: all.
    """

    def __init__(
        self,
        described: dict[str, Any],
        config: NerfConfig,
        device: str,
        folder: Path,
        *,
        trainable: bool = True,
        visible: np.ndarray | None = None,
    ):
        self.described, self.config, self.device = described, config, device
        self.frame = Frame.from_dict(described["frame"])
        self.n_trained = len(described["train"])
        cameras = [(c, "train") for c in described["train"]]
        cameras += [(c, "test") for c in described["held"]]
        self.views = tuple(_view(c, split, folder) for c, split in cameras)
        self.lenses = tuple(view.lens for view in self.views)
        self.radiance = RadianceField(
            settings_of(
                config,
                box_per_unit=self.frame.scale,
                n_views=self.n_trained,
                color_space=described["color_space"],
            ),
            optimizer=config.optimizer,
            seed=config.training.seed,
            device=device,
            deterministic=config.training.deterministic,
            trainable=trainable,
            visible=visible,
        )

    @property
    def optimizer(self) -> Adam:
        """The field's; the others follow its clock."""
        return self.radiance.optimizer

    @property
    def n_params(self) -> int:
        """Number of trained values."""
        return sum(p.value.size for p in self.parameters().values())

    @property
    def photos_background(self) -> tuple[float, float, float] | None:
        """What photos with an opacity are measured over, sRGB; None: they are opaque."""
        return background_color(self.config.background) if self.described["has_alpha"] else None

    @property
    def environment(self) -> None:
        """The light from beyond the box."""
        return

    def parameters(self) -> dict[str, Parameters]:
        """Return the trained arrays by name."""
        return self.radiance.parameters()

    def extra_state(self) -> dict[str, wp.array]:
        """Return the occupancy grid and the number of rays of a step."""
        return self.radiance.extra_state()

    def use_average(self) -> None:
        """Replace the parameters by their moving average, where there is one."""
        self.radiance.use_average()


def load_model(run: Any) -> NerfModel:
    """Return a run's model on the run's device, with its evaluated parameters.

    Raises:
        CheckpointError: the checkpoint is cut short, altered, or does not fit its config.
    """
    source = run.source if run.source.is_dir() else run.source.parent
    data = run.header["data"]
    model = NerfModel(data, run.config, resolve_device(run.device), source, trainable=False)
    names = tuple(model.extra_state())
    load_state(model, run.arrays((*_STORED, *names)))
    model.optimizer.step.assign(np.array([run.header["step"]], np.int64))
    model.use_average()
    return model


def _view(camera: dict[str, Any], split: Any, folder: Path) -> View:
    return View(
        name=camera["name"],
        image=folder / camera["name"],
        lens=Lens(**camera["lens"]),
        pose=np.array(camera["pose"], np.float64),
        split=split,
    )


def resumed(config: NerfConfig, described: dict[str, Any]) -> NerfConfig:
    """Keep the size of the photos that was chosen, however much memory there is today."""
    if config.downscale is not None:
        return config
    return replace(config, downscale=described["downscale"])
