"""Several pictures of a radiance field: to a film, or to a folder."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ngp_warp.files import atomic_folder
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.film import write_video
from ngp_warp.primitives.nerf.passes import Buffers, Renderer
from ngp_warp.primitives.nerf.render import DepthRange, Show, picture, write_picture
from ngp_warp.primitives.nerf.traced import Shot
from ngp_warp.primitives.pictures import save_png

CAMERAS_FILE = "cameras.json"
"""In a folder of pictures: where each was taken from."""

_PROBES, _PROBE_SIDE = 8, 64


@dataclass(frozen=True, kw_only=True)
class Look:
    """What pictures show, and how."""

    renderer: Renderer
    show: Show = "color"
    spp: int = 1
    transparent: bool = False

    def buffers(self, shot: Shot, progress: Report = report_nothing) -> Buffers:
        """Return the passes that ``show`` needs."""
        normals = self.show == "normals"
        return self.renderer.buffers(shot, spp=self.spp, normals=normals, progress=progress)

    def span(self, shots: Sequence[Shot]) -> DepthRange | None:
        """Return the depths that all of some pictures map to colours; None: they show others."""
        if self.show != "depth":
            return None
        chosen = np.unique(np.linspace(0, len(shots) - 1, _PROBES).astype(int))
        made = [self.renderer.buffers(_small(shots[i])) for i in chosen]
        depths = np.concatenate([part.depth.ravel() for part in made])
        return DepthRange.of(depths, np.concatenate([part.opacity.ravel() for part in made]))

    def picture(self, made: Buffers, span: DepthRange | None) -> np.ndarray:
        """Return the pass as a picture, uint8."""
        space = self.renderer.field.settings.color_space
        return picture(made, self.show, space, transparent=self.transparent, span=span)


def _small(shot: Shot) -> Shot:
    factor = min(1.0, _PROBE_SIDE / max(shot.width, shot.height))
    width, height = (max(round(n * factor), 1) for n in (shot.width, shot.height))
    return Shot(lens=shot.lens.scaled(width, height), pose=shot.pose, latent=shot.latent)


def render_film(
    look: Look, shots: Sequence[Shot], path: Path, fps: float, progress: Report = report_nothing
) -> None:
    """Write pictures of one size as a film; errors as ``write_video``.

    Args:
        look: what they show.
        shots: at least one.
        path: .mp4, .mov or .mkv.
        fps: pictures a second.
        progress: told of the pictures done.
    """
    span = look.span(shots)

    def pictures() -> Iterator[np.ndarray]:
        for index, shot in enumerate(shots):
            yield look.picture(look.buffers(shot), span)
            progress(Progress(stage="write", step=index + 1, total=len(shots)))

    write_video(path, pictures(), fps)


def render_folder(
    look: Look,
    shots: Sequence[Shot],
    folder: Path,
    names: Sequence[str] | None = None,
    progress: Report = report_nothing,
) -> None:
    """Write pictures to a folder, which is there as a whole or not at all.

    Of a depth each is there as colours (.png, of one range for all) and as numbers (.npy). Beside
    them lies cameras.json: for each picture its lens and its pose, camera to scene.

    Args:
        look: what they show.
        shots: at least one.
        folder: made, or replaced if it was made so.
        names: of the pictures; None: numbers from 0000.png on.
        progress: told of the pictures done.

    Raises:
        ResourceError: the folder holds something else or cannot be written, or the disk is full.
    """
    span = look.span(shots)
    names = [f"{i:04d}.png" for i in range(len(shots))] if names is None else names
    with atomic_folder(folder, CAMERAS_FILE) as temporary:
        cameras = []
        for index, (name, shot) in enumerate(zip(names, shots, strict=True)):
            made = look.buffers(shot)
            save_png(temporary / name, look.picture(made, span))
            if look.show == "depth":
                space = look.renderer.field.settings.color_space
                write_picture((temporary / name).with_suffix(".npy"), made, "depth", space)
            cameras.append({"file": name, "lens": asdict(shot.lens), "pose": shot.pose.tolist()})
            progress(Progress(stage="write", step=index + 1, total=len(shots)))
        (temporary / CAMERAS_FILE).write_text(json.dumps(cameras, indent=2) + "\n")
