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
    parse_numbers,
)

_BOX = "x0,y0,z0,x1,y1,z1"


def command(
    run: RunArgument,
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="Of a picture: dzi (a page to zoom in), png, tif, exr, npy, jpg; of a mesh: "
            "obj, ply, stl, glb, npz, nvdb; of photos: obj, ply, stl, glb, points (ply), nvdb, "
            "npz, npy (the density), occupancy (npz); of a volume: nvdb, vdb, npy, npz, nii, and "
            "obj, ply, stl, glb (a surface); of all but photos: compact.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to; the run's exports folder if not given."),
    ] = None,
    resolution: Annotated[
        int | None,
        typer.Option(
            min=16,
            max=4096,
            help="Of meshes and densities: cells along the box; 256, of a volume one a voxel.",
        ),
    ] = None,
    faces: Annotated[
        int | None, typer.Option(min=4, help="Of meshes: decimate to about so many faces.")
    ] = None,
    largest_only: Annotated[
        bool,
        typer.Option("--largest-only", help="Of meshes: only the largest piece."),
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Of photos: the logarithm of the density at surfaces, for each side of the inner "
            "cube; 2.5. Of a volume: what differs less from the background is left out."
        ),
    ] = None,
    level: Annotated[
        float | None, typer.Option(help="Of a volume's surface: the value on it.")
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(
            metavar=_BOX,
            help="Of photos: limits in scene units; the inner cube if not given (points: all).",
        ),
    ] = None,
    texture: Annotated[
        int | None,
        typer.Option(min=16, help="Of photos, obj and glb: a texture of about so many texels."),
    ] = None,
    points: Annotated[
        int | None, typer.Option(min=1, help="Of photos: points of a cloud; 1,000,000.")
    ] = None,
    opacity: Annotated[
        float | None, typer.Option(help="Of photos: least opacity of the rays of a cloud; 0.9.")
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> dict[str, Any]:
    """Write a run in a format that other programs read."""
    options = {
        "resolution": resolution,
        "faces": faces,
        "largest_only": largest_only or None,
        "threshold": threshold,
        "level": level,
        "box": None if box is None else parse_numbers(box, _BOX),
        "texture": texture,
        "points": points,
        "opacity": opacity,
    }
    opened = open_for(run, device, threads)
    with Console(quiet=quiet, as_json=as_json) as console:
        made = opened.export(format_name, output, progress=console.progress, **options)
    output = made.pop("output")
    console.table(made)
    console.say(f"export {output}")
    return {"output": output, "format": format_name, **made}
