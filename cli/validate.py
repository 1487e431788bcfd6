"""`ngp validate`: check a scene of photos before it is trained."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ngp_warp.cli.console import Console, Failed
from ngp_warp.cli.options import JsonOption, QuietOption


def command(
    scene: Annotated[
        Path,
        typer.Argument(
            metavar="SCENE", help="A folder, transforms.json, COLMAP model or poses_bounds.npy."
        ),
    ],
    format: Annotated[
        str | None,
        typer.Option(metavar="transforms|colmap|llff", help="What to read, if it holds several."),
    ] = None,
    aabb_scale: Annotated[
        int | None,
        typer.Option(help="Side of the box in inner cubes: a power of two from 1 to 128."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="out.png", help="Draw the cameras and the box."),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> dict[str, Any]:
    """Check a scene: all that is wrong, and how to mend it."""
    from ngp_warp.files import check_output
    from ngp_warp.primitives.nerf.scene.picture import draw_scene
    from ngp_warp.primitives.nerf.validate import summary_of, validate

    if output is not None:
        check_output(output, (".png",))
    with Console(quiet=quiet, as_json=as_json) as console:
        result = validate(scene, format=format, aabb_scale=aabb_scale, progress=console.progress)
        drawn = output is not None and result.scene is not None and result.frame is not None
        if output is not None and result.scene is not None and result.frame is not None:
            draw_scene(output, result.scene, result.frame)
    for line in (*result.notes, *(f"warning: {p.line}" for p in result.warnings)):
        console.say(line)
    values = summary_of(result)
    console.answer(values)
    values |= {"output": output if drawn else None, "notes": list(result.notes)}
    values["problems"] = [vars(problem) for problem in result.problems]
    if result.errors:
        for problem in result.errors:
            console.error(problem.line)
        what = f"{len(result.errors)} errors in {scene}"
        raise Failed({"error": what.replace("1 errors", "1 error"), **values})
    return values
