"""Pictures and films of a run: ``ngp render``."""

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.files import atomic_path, check_output
from ngp_warp.primitive import Report, check_options, report_nothing
from ngp_warp.primitives.film import SUFFIXES, check_video, film_cameras
from ngp_warp.primitives.pictures import save_png
from ngp_warp.primitives.sdf.query import frame_of
from ngp_warp.primitives.sdf.render import DEFAULT_SPP, Renderer
from ngp_warp.primitives.sdf.slices import render_slices
from ngp_warp.primitives.sdf.video import render_video
from ngp_warp.rays.cameras import Up, parse_camera

Show = Literal["shaded", "normals", "depth", "slices"]
DEFAULT_CAMERA = "orbit:30,20,2"
_DEFAULT_SIDE = 800


def render(
    run: Any,
    output: Path,
    *,
    width: int | None = None,
    height: int | None = None,
    camera: str | None = None,
    camera_path: str | Path | None = None,
    up: Up | None = None,
    spp: int | None = None,
    show: Show = "shaded",
    frames: int | None = None,
    fps: float | None = None,
    progress: Report = report_nothing,
) -> None:
    """Write a picture (.png, or .npy of a depth) or a film (.mp4, .mov, .mkv).

    Args:
        run: of a mesh.
        output: the file.
        width: in pixels; None: the height, or 800. Of slices: the side of one.
        height: in pixels; None: the width.
        camera: "orbit:AZIMUTH,ELEVATION,DISTANCE" in degrees and sides of the unit cube.
        camera_path: of a film: JSON, see ``ngp_warp.rays.camera_paths``; None: a turntable.
        up: the mesh's axis that points up; None: y.
        spp: samples of a pixel.
        show: the shaded surface, its normals (as colours), its depth (in the mesh's units, .npy;
            or as grey values), or slices through the field.
        frames: of a turntable.
        fps: of a turntable, pictures a second.
        progress: told what is done.

    Raises:
        ConfigError: an extension or an option that does not go with the others.
        DataError: the camera path cannot be read.
        ResourceError: the file cannot be written.
    """
    if show not in get_args(Show):
        raise ConfigError(f"--show must be one of {', '.join(get_args(Show))}, got {show}")
    film = output.suffix.lower() in SUFFIXES
    given = {"camera": camera, "camera_path": camera_path, "spp": spp, "frames": frames}
    given |= {"fps": fps, "up": up, "height": height}
    _check(given, show, film, output)
    side = next((n for n in (width, height) if n is not None), _DEFAULT_SIDE)
    size = {"width": width or side, "height": height or side}
    if show == "slices":
        save_png(output, render_slices(run.fitted, size=side, scale=frame_of(run).scale))
        return
    up = up or "y"
    at = parse_camera(camera or DEFAULT_CAMERA, up=up, **size)
    if film:
        check_video(output, **size)
    cameras, rate = film_cameras(at, camera_path, frames, fps) if film else ([at], 0.0)
    renderer = Renderer(run.fitted, up=up, floor=show == "shaded")
    samples = DEFAULT_SPP if spp is None else spp
    if film:
        render_video(renderer, cameras, output, fps=rate, spp=samples, progress=progress)
    elif show == "shaded":
        save_png(output, renderer.image(at, spp=samples, progress=progress))
    elif show == "normals":
        normals = renderer.normals(at, progress=progress)
        save_png(output, np.rint(normals * 127.5 + 127.5).astype(np.uint8))
    else:
        _write_depth(output, renderer.depth(at, progress=progress), run)


def _check(given: dict[str, Any], show: str, film: bool, output: Path) -> None:
    """Raise ConfigError where an option would do nothing, or the extension does not fit."""
    names = [name for name, value in given.items() if value is not None]
    if film and show != "shaded":
        raise ConfigError(f"a film shows the shaded surface, not --show {show}")
    if film:
        if given["camera_path"] is not None:
            # the floor lies across the up axis also where the cameras say what is up in the picture
            check_options(names, {"spp", "camera_path", "up", "height"}, "a film along a path")
        else:
            known = {"camera", "spp", "frames", "fps", "up", "height"}
            check_options(names, known, "a turntable")
        check_output(output, SUFFIXES)
        return
    view = {"camera", "up", "height"}
    known = {"shaded": {*view, "spp"}, "normals": view, "depth": view}.get(show, set())
    check_options(names, known, f"a picture with --show {show}")
    suffixes = (".png", ".npy") if show == "depth" else (".png",)
    if output.suffix.lower() not in suffixes:
        wanted = " or ".join(f"*{s}" for s in suffixes)
        raise ConfigError(
            f"cannot write {output}: a picture is named {wanted}, a film *{', *'.join(SUFFIXES)}"
        )
    check_output(output, suffixes)


def _write_depth(output: Path, depth: np.ndarray, run: Any) -> None:
    """Write a depth in the mesh's units as .npy, or as grey values, near ones bright."""
    if output.suffix.lower() == ".npy":
        values = frame_of(run).distance_from_unit(depth).astype(np.float32)
        with atomic_path(output) as temporary, temporary.open("wb") as file:
            np.save(file, values)
        return
    hit = np.isfinite(depth)
    near, far = (depth[hit].min(), depth[hit].max()) if hit.any() else (0.0, 1.0)
    share = np.where(hit, (far - depth) / max(far - near, 1e-9), 0.0)
    grey = np.where(hit, 55 + 200 * share, 0.0)
    save_png(output, np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2))
