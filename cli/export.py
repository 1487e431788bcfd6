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


def command(
    run: RunArgument,
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="Of a picture: dzi (a page to zoom in), png, tif, exr, npy, jpg; of a mesh: "
            "obj, ply, stl, glb, npz, nvdb; of both: compact.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to; the run's exports folder if not given."),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(min=16, max=4096, help="Of a mesh: cells along its box; 256.")
    ] = None,
    faces: Annotated[
        int | None, typer.Option(min=4, help="Of a mesh: decimate to about so many faces.")
    ] = None,
    largest_only: Annotated[
        bool,
        typer.Option("--largest-only", help="Of a mesh: only its largest piece."),
    ] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> dict[str, Any]:
    """Write a run in a format that other programs read."""
    options = {"resolution": resolution, "faces": faces, "largest_only": largest_only or None}
    opened = open_for(run, device, threads)
    with Console(quiet=quiet, as_json=as_json) as console:
        made = opened.export(format_name, output, progress=console.progress, **options)
    output = made.pop("output")
    console.table(made)
    console.say(f"export {output}")
    return {"output": output, "format": format_name, **made}
