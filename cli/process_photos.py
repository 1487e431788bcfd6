"""`ngp process-photos`: find where photos were taken from, and write a scene."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ngp_warp.cli.console import Console
from ngp_warp.cli.options import DeviceOption, JsonOption, QuietOption, ThreadsOption


def command(
    photos: Annotated[
        Path, typer.Argument(metavar="PHOTOS", help="A folder of photos, or a video.")
    ],
    scene: Annotated[
        Path, typer.Argument(metavar="SCENE", help="The folder to make: what `ngp nerf` reads.")
    ],
    camera_model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="COLMAP's: OPENCV, PINHOLE, SIMPLE_RADIAL, RADIAL, FULL_OPENCV, "
            "OPENCV_FISHEYE, ...",
        ),
    ] = "OPENCV",
    matcher: Annotated[
        str,
        typer.Option(
            metavar="auto|exhaustive|sequential",
            help="Compare all pairs of photos, or neighbours by name; auto: neighbours of a "
            "video and of more than 150 photos.",
        ),
    ] = "auto",
    max_photos: Annotated[
        int | None, typer.Option(help="Use the sharpest of so many runs of neighbours.")
    ] = None,
    max_features: Annotated[int, typer.Option(help="Most features of a photo.")] = 4096,
    max_image_size: Annotated[
        int, typer.Option(help="Longer side at which features are looked for, in pixels.")
    ] = 1200,
    video_fps: Annotated[
        float, typer.Option(help="Frames of a video to take a second: the sharpest ones.")
    ] = 2.0,
    link: Annotated[
        bool, typer.Option("--link", help="Link to the photos instead of copying them.")
    ] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> dict[str, Any]:
    """Find where photos were taken from, and write a scene for `ngp nerf`."""
    from ngp_warp.primitives.nerf.sfm import SfmOptions, process_photos

    options = SfmOptions(
        camera_model=camera_model.upper(),  # type: ignore[arg-type]
        matcher=matcher,  # type: ignore[arg-type]
        max_photos=max_photos,
        max_features=max_features,
        max_image_size=max_image_size,
        video_fps=video_fps,
        link=link,
    )
    with Console(quiet=quiet, as_json=as_json) as console:
        result = process_photos(
            photos,
            scene,
            options=options,
            device=device,
            threads=threads,
            report=console.progress,
        )
    console.table({name: value for name, value in result.items() if value != []})
    return result
