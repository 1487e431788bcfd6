"""What a run of photos has for pictures and exports: the field, and where its photos were taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ngp_warp.primitives.nerf.backdrop import Backdrop, Plain
from ngp_warp.primitives.nerf.colors import Color, from_srgb
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.nerf.passes import Renderer
from ngp_warp.primitives.nerf.shots import Size, sized
from ngp_warp.primitives.nerf.traced import Shot
from ngp_warp.primitives.nerf.types import View
from ngp_warp.rays.lenses import Lens


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A radiance field and its scene."""

    field: Any
    """A ``RadianceField``."""
    frame: Frame
    """From the scene to the box."""
    views: Sequence[View]
    """All views, with refined poses, in the order of the scene."""
    lenses: Sequence[Lens]
    """Refined, one for each view, of the photos' size in memory."""
    background: Color | None = None
    """What the photos are over, sRGB; None: nothing, they are opaque."""
    environment: Backdrop | None = None
    """The light from beyond the box, where it was learned."""

    @classmethod
    def of(cls, run: Any) -> "Subject":
        """Return that of a run."""
        return cls.of_model(run.fitted)

    @classmethod
    def of_model(cls, fitted: Any) -> "Subject":
        """Return that of a ``NerfModel``."""
        return cls(
            field=fitted.radiance,
            frame=fitted.frame,
            views=fitted.views,
            lenses=fitted.lenses,
            background=fitted.photos_background,
            environment=fitted.environment,
        )

    @property
    def held_back(self) -> list[int]:
        """Numbers of the views that were not trained, to be measured."""
        return [i for i, view in enumerate(self.views) if view.split == "test"]

    @property
    def trained(self) -> list[int]:
        """Numbers of the views that were trained, in the order of their latent vectors."""
        return [i for i, view in enumerate(self.views) if view.split == "train"]

    def latent(self, index: int) -> int | None:
        """Return the number of a view's latent vector; None for one that was not trained."""
        if not self.field.settings.n_latent_dims or self.views[index].split != "train":
            return None
        return self.trained.index(index)

    def shot(self, index: int, size: Size = (None, None)) -> Shot:
        """Return the picture of a view, by default of its own size."""
        view, lens = self.views[index], self.lenses[index]
        pose = np.asarray(view.pose, np.float64)
        return Shot(lens=sized(lens, size), pose=pose, latent=self.latent(index))

    def renderer(self, background: Color | None = None, *, transparent: bool = False) -> Renderer:
        """Return a renderer of the field.

        Args:
            background: sRGB; None: the environment, or else that of the photos, or else black.
            transparent: no background at all.
        """
        if transparent:
            return Renderer(self.field, self.frame)
        if background is None and self.environment is not None:
            return Renderer(self.field, self.frame, self.environment)
        color = background or self.background or (0.0, 0.0, 0.0)
        return Renderer(self.field, self.frame, plain(color, self.field))


def plain(color: Color, field: Any) -> Backdrop:
    """Return a backdrop of one colour, given in sRGB."""
    return Plain(from_srgb(color, field.settings.color_space))
