"""`ngp export`: write a run in a format that other programs read."""

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
    format_name: Annotated[
        str,
        typer.Option("--format", "-f", help="dzi (a page to zoom in), png, tif, exr and others."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to; the run's exports folder if not given."),
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> dict[str, Any]:
    """Write a run in a format that other programs read."""
    from ngp_warp.primitives import get as get_primitive

    opened = open_for(run, device, threads)
    exporters = get_primitive(opened.primitive).exporters
    if format_name not in exporters:
        raise ConfigError(
            f"--format must be one of {', '.join(sorted(exporters))}, got {format_name}"
        )
    with Console(quiet=quiet, as_json=as_json) as console:
        path = exporters[format_name](opened, output, progress=console.progress)
    console.say(f"export {path}")
    return {"output": path, "format": format_name}
