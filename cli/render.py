"""`ngp render`: a picture or a film of a run."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from ngp_warp.cli.console import Console
from ngp_warp.cli.options import (
    DeviceOption,
    JsonOption,
    QuietOption,
    RunArgument,
    ThreadsOption,
    open_for,
    parse_numbers,
)
from ngp_warp.errors import ConfigError


def parse_crop(text: str) -> tuple[int, int, int, int]:
    """Return left, top, width, height from ``x,y,w,h``; a usage error where they are not."""
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not x,y,w,h: four whole numbers") from None
    if min(x, y) < 0 or min(width, height) < 1:
        raise typer.BadParameter(f"{text!r} must have x and y of at least 0, w and h of at least 1")
    return x, y, width, height


def command(
    run: RunArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="The picture to write; of a mesh, photos or a volume also a film; of photos also "
            "a folder of pictures (no extension).",
        ),
    ],
    width: Annotated[int | None, typer.Option(min=1, help="Width of the picture.")] = None,
    height: Annotated[
        int | None, typer.Option(min=1, help="Height of the picture, not of a fitted picture.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="Size as a multiple of the fitted picture's.")
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(
            metavar="x,y,w,h",
            help="Only this part, in pixels of the fitted picture from its top left.",
        ),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            metavar="orbit:AZ,EL,DIST",
            help="Where from: degrees about the up axis and above the horizon, and the distance "
            "(the mesh's largest side is 0.9; of photos in sides of the inner cube, of a volume in "
            "sides of a cube around it).",
        ),
    ] = None,
    camera_path: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Cameras of a film, or key frames.")
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(metavar="orbit|spiral", help="Of photos: a path that follows from them."),
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(metavar="N|NAME", help="Of photos: the view of one of them."),
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="Of photos: all views held back, to a folder.")
    ] = False,
    up: Annotated[
        str | None,
        typer.Option(
            metavar="x|y|z",
            help="The up axis: y of a mesh; of photos what is up there; of a volume the run's.",
        ),
    ] = None,
    spp: Annotated[int | None, typer.Option(min=1, help="Samples of a pixel.")] = None,
    show: Annotated[
        str | None,
        typer.Option(
            metavar="shaded|color|normals|depth|opacity|slices|surface|mip|transfer|reference",
            help="What the picture shows: shaded, normals, depth or slices of a mesh; color, "
            "normals, depth (.png as colours; .exr, .npy in scene units) or opacity of photos; "
            "shaded (its light), surface, mip, transfer or slices of a volume, or reference (the "
            "original's light).",
        ),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(
            metavar="white|black|transparent|R,G,B|sky",
            help="What is behind: of photos R,G,B from 0 to 1 too; of a volume's light the sky.",
        ),
    ] = None,
    appearance: Annotated[
        str | None,
        typer.Option(metavar="N|NAME", help="Of photos: the trained view to look like."),
    ] = None,
    level: Annotated[float | None, typer.Option(help="Of volumes: the value on a surface.")] = None,
    transfer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.json",
            help="Of volumes: a transfer function: grey, bone, fire, cool, or "
            '{"points": [[value, r, g, b, opacity], ...]}.',
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(metavar="low,high", help="Of volumes, mip and slices: values of the ends."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="i,j,k", help="Of volumes: index at which slices cross."),
    ] = None,
    exposure: Annotated[
        float | None, typer.Option(help="Of volumes: factor of the light; 1.")
    ] = None,
    sun: Annotated[
        str | None,
        typer.Option(metavar="AZ,EL|none", help="Of volumes without learned light: the sun."),
    ] = None,
    albedo: Annotated[
        float | None, typer.Option(help="Of volumes without learned light: scattered share.")
    ] = None,
    density_scale: Annotated[
        float | None,
        typer.Option(help="Of volumes without learned light: extinction of density 1."),
    ] = None,
    progressive: Annotated[
        bool,
        typer.Option("--progressive", help="Of volumes: write the picture while it gets better."),
    ] = False,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Pictures of a turntable or path.")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Pictures a second.")] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> dict[str, Any]:
    """Make a picture or a film of a run."""
    if width is not None and scale is not None:
        raise ConfigError("give --width or --scale, not both")
    if scale is not None and not 0.0 < scale < math.inf:
        raise ConfigError(f"--scale must be above 0, got {scale:g}")
    options = {
        "width": width,
        "height": height,
        "scale": scale,
        "crop": None if crop is None else parse_crop(crop),
        "camera": camera,
        "camera_path": camera_path,
        "path": path,
        "view": view,
        "test": test or None,
        "up": up,
        "spp": spp,
        "show": show,
        "background": background,
        "appearance": appearance,
        "level": level,
        "transfer": transfer,
        "window": None if window is None else parse_numbers(window, "low,high"),
        "at": None if at is None else parse_numbers(at, "i,j,k"),
        "exposure": exposure,
        "sun": sun,
        "albedo": albedo,
        "density_scale": density_scale,
        "progressive": progressive or None,
        "frames": frames,
        "fps": fps,
    }
    opened = open_for(run, device, threads)
    with Console(quiet=quiet, as_json=as_json) as console:
        opened.render(output, progress=console.progress, **options)
    console.say(f"wrote {output}")
    return {"output": output}
