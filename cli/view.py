"""`ngp view`: an Open3D window, or its picture, with a mesh's run beside the original."""

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


def command(
    run: RunArgument,
    screenshot: Annotated[
        Path | None,
        typer.Option(metavar="out.png", help="Write a picture instead; needs no display."),
    ] = None,
    wireframe: Annotated[
        bool, typer.Option("--wireframe", help="Begin with the edges; W switches them.")
    ] = False,
    error_colors: Annotated[
        bool,
        typer.Option(
            "--error-colors",
            help="Begin with the result coloured by its distance to the original; E switches.",
        ),
    ] = False,
    resolution: Annotated[
        int, typer.Option(min=16, max=2048, help="Cells to a side of the result's mesh.")
    ] = 256,
    width: Annotated[int, typer.Option(min=64, max=4096, help="Width in pixels.")] = 1280,
    height: Annotated[int, typer.Option(min=64, max=4096, help="Height in pixels.")] = 720,
    up: Annotated[
        str, typer.Option(metavar="y|z", help="The mesh's axis that points upwards.")
    ] = "y",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> dict[str, Any]:
    """Show a mesh's run beside the original."""
    from ngp_warp.primitives import get as get_primitive
    from ngp_warp.primitives.sdf.view import KEYS, check, show

    # First what takes no time: extracting the mesh may take a minute.
    check(screenshot, width, height, up)
    opened = open_for(run, device, threads)
    kind = get_primitive(opened.primitive)
    if kind.meshes is None:
        raise ConfigError(f"{run} is a fitted {kind.name}: ngp view shows meshes")
    with Console(quiet=quiet, as_json=as_json) as console:
        original, result = kind.meshes(opened, resolution=resolution, progress=console.progress)
    if screenshot is None:
        console.say(KEYS)
    errors = show(
        original,
        result,
        wireframe=wireframe,
        error_colors=error_colors,
        screenshot=screenshot,
        width=width,
        height=height,
        up=up,
    )
    if screenshot is not None:
        console.say(f"picture {screenshot}")
    return {"screenshot": screenshot, **errors}
