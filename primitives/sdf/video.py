"""Films of a field: any cameras, or a turntable."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.film import check_video, write_video
from ngp_warp.primitives.sdf.render import DEFAULT_SPP, Renderer
from ngp_warp.rays.cameras import Camera


def render_video(
    renderer: Renderer,
    cameras: Iterable[Camera],
    path: str | Path,
    *,
    fps: float = 24.0,
    spp: int = DEFAULT_SPP,
    progress: Report = report_nothing,
) -> Path:
    """Render a film; arguments and errors as ``Renderer.image`` and ``write_video``.

    Args:
        renderer: of the field.
        cameras: one a picture, all of one size; ``ngp_warp.rays.cameras.turntable`` gives a turn.
        path: the film.
        fps: pictures a second.
        spp: samples of a pixel.
        progress: told of the pictures done.
    """
    cameras = list(cameras)
    if not cameras:
        raise DataError(f"cannot write {path}: there are no cameras")
    check_video(path, cameras[0].width, cameras[0].height)

    def pictures() -> Iterator[np.ndarray]:
        for index, camera in enumerate(cameras):
            yield renderer.image(camera, spp=spp)
            progress(Progress(stage="write", step=index + 1, total=len(cameras)))

    return write_video(path, pictures(), fps)
