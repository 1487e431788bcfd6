"""Pictures and films of a run: ``ngp render``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from ngp_warp.config import check_range
from ngp_warp.errors import ConfigError
from ngp_warp.files import check_output
from ngp_warp.primitive import Report, check_options, report_nothing
from ngp_warp.primitives.film import SUFFIXES, check_video, film_cameras, write_video
from ngp_warp.primitives.pictures import save_png
from ngp_warp.primitives.volume.config import make_light
from ngp_warp.primitives.volume.grid import world_cube
from ngp_warp.primitives.volume.light import Light
from ngp_warp.primitives.volume.looks import DEFAULT_CAMERA, default_look
from ngp_warp.primitives.volume.medium import Medium
from ngp_warp.primitives.volume.neural_tracer import NeuralTracer
from ngp_warp.primitives.volume.painters import (
    FILM_SPP,
    PROJECTED_SPP,
    Options,
    Projected,
    Traced,
    frames_of,
)
from ngp_warp.primitives.volume.path_tracer import PathTracer
from ngp_warp.primitives.volume.slices import render_slices
from ngp_warp.primitives.volume.subject import Subject
from ngp_warp.rays.cameras import Camera, Up, parse_camera

Show = Literal["shaded", "reference", "surface", "mip", "transfer", "slices"]
_SIDE = 800

_LIT = ("shaded", "reference")
"""What shows light, and not values."""
_VIEW = {"camera", "up", "width", "height"}
_LIGHT = {"spp", "exposure", "background", "progressive"}
_SETTINGS = {"sun", "albedo", "density_scale"}
_KNOWN: dict[str, set[str]] = {
    "shaded": _VIEW | _LIGHT,
    "reference": _VIEW | _LIGHT,
    "surface": _VIEW | {"spp", "level", "background"},
    "mip": _VIEW | {"spp", "window"},
    "transfer": _VIEW | {"spp", "transfer", "background"},
    "slices": {"window", "at", "up", "width"},
}


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
    show: Show | None = None,
    frames: int | None = None,
    fps: float | None = None,
    background: str | None = None,
    level: float | None = None,
    transfer: str | None = None,
    window: tuple[float, float] | None = None,
    at: tuple[float, float, float] | None = None,
    exposure: float | None = None,
    sun: str | None = None,
    albedo: float | None = None,
    density_scale: float | None = None,
    progressive: bool = False,
    progress: Report = report_nothing,
) -> None:
    """Write a picture (.png; of light also .exr) or a film (.mp4, .mov, .mkv).

    Args:
        run: of a volume.
        output: the file.
        width: in pixels; None: the height, or 800. Of slices: the longest side of one.
        height: in pixels; None: the width.
        camera: "orbit:AZIMUTH,ELEVATION,DISTANCE", in degrees about the box's middle and in sides
            of a cube around it.
        camera_path: of a film: JSON in the world's units; None: a turntable.
        up: the world's axis that points up (of slices the index axis); None: the run's.
        spp: samples a pixel.
        show: "shaded": path traced in the decoded densities or, in radiance mode, the learned
            light; "reference": path traced in the original; "surface", "mip", "transfer":
            ``projection.project``; "slices". None: what shows most.
        frames: of a turntable.
        fps: of a turntable, pictures a second.
        background: of light: "sky" (None), "black" or "transparent"; of surfaces and transfer
            functions "white" (None), "black" or "transparent".
        level: of a surface; None: 0 of a level set, else the middle of the range.
        transfer: a preset's name or a JSON file: ``TransferFunction.parse``.
        window: of a MIP and of slices: the values shown darkest and brightest.
        at: index at which slices cross.
        exposure: of light: radiance 1 / exposure is white.
        sun: see ``VolumeConfig.sun``; None: the run's. Not of learned light, as the next two.
        albedo: see ``VolumeConfig.albedo``.
        density_scale: see ``VolumeConfig.density_scale``.
        progressive: write the picture again and again while samples come in.
        progress: told what is done.

    Raises:
        ConfigError: an extension or an option that does not go with the others.
        DataError: the camera path or the transfer function cannot be read, or there is no original.
        ResourceError: the file cannot be written.
    """
    subject = Subject.of(run)
    about, config = subject.about, subject.config
    if show is None:
        usual = default_look(about.n_channels, about.grid_class, about.format)
        show = "shaded" if subject.has_radiance else usual
    if show not in get_args(Show):
        raise ConfigError(f"--show must be one of {', '.join(get_args(Show))}, got {show}")
    film = output.suffix.lower() in SUFFIXES
    given = {"camera": camera, "camera_path": camera_path, "up": up, "spp": spp, "frames": frames}
    given |= {"fps": fps, "height": height, "background": background, "level": level, "at": at}
    given |= {"transfer": transfer, "window": window, "exposure": exposure, "sun": sun}
    given |= {"albedo": albedo, "density_scale": density_scale, "progressive": progressive or None}
    _check(given, show, film, output, subject)
    side = next((n for n in (width, height) if n is not None), _SIDE)
    upright: Up = up or config.up or "y"
    frame = about.frame
    if show == "slices":
        picture = render_slices(
            subject.values(progress),
            frame.to_world,
            frame.first,
            at=at,
            level_set=about.is_level_set,
            window=window,
            size=side,
            up=upright,
        )
        save_png(output, picture)
        return
    size = {"width": width or side, "height": height or side}
    if film:
        check_video(output, **size)
    eye = parse_camera(camera or DEFAULT_CAMERA, up=upright, **size)
    eye = eye.moved(*world_cube(frame.shape, frame.to_world, frame.first))
    cameras, rate = film_cameras(eye, camera_path, frames, fps) if film else ([eye], 0.0)
    options = Options(
        spp=spp,
        level=level,
        transfer=transfer,
        window=window,
        background=background,
        exposure=1.0 if exposure is None else exposure,
        progressive=progressive,
    )
    # learned light has its own sky
    light = config.light if subject.has_radiance else make_light(sun or config.sun, upright)
    maker: Any
    if show in _LIT:
        tracer = _tracer_of(subject, show, light, albedo, density_scale, background, progress)
        maker = Traced(tracer, options)
    else:
        maker = Projected(subject, show, options, progress)
    if film:
        default = FILM_SPP if show in _LIT else PROJECTED_SPP
        samples = default if spp is None else spp
        write_video(output, frames_of(maker, cameras, samples, progress), rate)
    else:
        maker.write(output, eye, progress)


def _tracer_of(
    subject: Subject,
    show: str,
    light: Light,
    albedo: float | None,
    density_scale: float | None,
    background: str | None,
    progress: Report,
) -> Callable[[Camera], Any]:
    """Return what makes a tracer for a camera."""
    sky = background in (None, "sky")
    if show == "shaded" and subject.has_radiance:
        return lambda camera: NeuralTracer(subject.field, light, camera, sky=sky)
    config, frame = subject.config, subject.about.frame
    volume = subject.original(progress) if show == "reference" else None
    values = subject.values(progress) if volume is None else volume.values
    medium = Medium.from_values(
        values,
        frame.to_world,
        frame.first,
        density_scale=config.density_scale if density_scale is None else density_scale,
        albedo=config.albedo if albedo is None else albedo,
        device=subject.field.device,
    )
    return lambda camera: PathTracer(medium, light, camera, sky=sky)


def _check(given: dict[str, Any], show: str, film: bool, output: Path, subject: Subject) -> None:
    """Raise ConfigError where an option would do nothing, or the extension does not fit."""
    about, lit = subject.about, show in _LIT
    if lit and about.n_channels > 1:
        raise ConfigError("vectors scatter no light: give --show mip, transfer, surface or slices")
    if lit and about.is_level_set:
        raise ConfigError("signed distances scatter no light: give --show surface or slices")
    known = set(_KNOWN[show])
    if lit and not subject.has_radiance:
        known |= _SETTINGS
    names = [name for name, value in given.items() if value is not None]
    if film:
        if show == "slices":
            raise ConfigError("slices are a picture, not a film: name *.png")
        known -= {"progressive"}
        path = {"camera_path"} if given["camera_path"] is not None else {"camera", "frames", "fps"}
        known = (known - {"camera"}) | path
    where = "a film" if film else "a picture"
    check_options(names, known, f"{where} with --show {show}" + _why(show, subject))
    allowed = {"sky", "black", "transparent"} if lit else {"white", "black", "transparent"}
    if film:
        allowed -= {"transparent"}
    background = given["background"]
    if background is not None and background not in allowed:
        raise ConfigError(
            f"--background must be one of {', '.join(sorted(allowed))} in {where} with --show "
            f"{show}, got {background}"
        )
    check_range("exposure", given["exposure"], 1e-6)
    check_range("spp", given["spp"], 1)
    suffixes = SUFFIXES if film else (".png", ".exr") if lit else (".png",)
    check_output(output, suffixes)


def _why(show: str, subject: Subject) -> str:
    learned = show in _LIT and subject.has_radiance
    return " of learned light (its sun and medium are the run's)" if learned else ""
