"""`ngp export`: write a run in a format that other programs read."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ngp_warp.cli.console import Console
from ngp_warp.cli.options import JsonOption, QuietOption, RunArgument
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
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> dict[str, Any]:
    """Write a run in a format that other programs read."""
    from ngp_warp.primitives import get as get_primitive
    from ngp_warp.run import open_run

    opened = open_run(run)
    exporters = get_primitive(opened.primitive).exporters
    if format_name not in exporters:
        raise ConfigError(
            f"--format must be one of {', '.join(sorted(exporters))}, got {format_name}"
        )
    path = output or opened.path / "exports" / f"{opened.primitive}.{format_name}"
    with Console(quiet=quiet, as_json=as_json) as console:
        exporters[format_name](opened, path, progress=console.progress)
    console.say(f"export {path}")
    return {"output": path, "format": format_name}
