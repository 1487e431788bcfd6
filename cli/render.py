"""`ngp render`: decode a run at any size and crop."""

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
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")],
    width: Annotated[int | None, typer.Option(min=1, help="Width of the picture.")] = None,
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
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> dict[str, Any]:
    """Decode a run into a picture of any size."""
    if width is not None and scale is not None:
        raise ConfigError("give --width or --scale, not both")
    if scale is not None and not 0.0 < scale < math.inf:
        raise ConfigError(f"--scale must be above 0, got {scale:g}")
    box = None if crop is None else parse_crop(crop)
    from ngp_warp.primitives import get as get_primitive

    opened = open_for(run, device, threads)
    with Console(quiet=quiet, as_json=as_json) as console:
        get_primitive(opened.primitive).render(
            opened, output, width=width, scale=scale, crop=box, progress=console.progress
        )
    console.say(f"picture {output}")
    return {"output": output}
