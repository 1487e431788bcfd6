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


def parse_box(text: str) -> tuple[float, ...]:
    """Return two corners from ``x0,y0,z0,x1,y1,z1``; a usage error where they are not."""
    try:
        corners = tuple(float(part) for part in text.split(","))
    except ValueError:
        corners = ()
    if len(corners) != 6:
        raise typer.BadParameter(f"{text!r} is not x0,y0,z0,x1,y1,z1: six numbers")
    return corners


def command(
    run: RunArgument,
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="Of a picture: dzi (a page to zoom in), png, tif, exr, npy, jpg; of a mesh: "
            "obj, ply, stl, glb, npz, nvdb; of both: compact; of photos: obj, ply, stl, glb, "
            "points (ply), nvdb, npz, npy (the density), occupancy (npz); of a volume: nvdb, vdb, "
            "npy, npz, nii, and obj, ply, stl, glb (a surface).",
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
            metavar="x0,y0,z0,x1,y1,z1",
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
        "box": None if box is None else parse_box(box),
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
