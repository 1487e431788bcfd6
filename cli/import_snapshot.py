"""`ngp import-snapshot`: a run from a snapshot of instant-ngp's."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ngp_warp.cli.console import Console
from ngp_warp.cli.fit import OutOption
from ngp_warp.cli.options import JsonOption, QuietOption

SnapshotArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="The snapshot, .ingp or .msgpack.")
]
ModeOption = Annotated[
    Literal["nerf", "sdf", "image", "volume"] | None,
    typer.Option("--mode", help="What it is of, where the file does not say."),
]
SourceOption = Annotated[
    Path | None,
    typer.Option("--source", metavar="PICTURE", help="Of an image: what was fitted, for its size."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what it holds, and write nothing.")
]


def command(
    file: SnapshotArgument,
    out: OutOption = None,
    mode: ModeOption = None,
    source: SourceOption = None,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> dict[str, Any]:
    """Make a run of a snapshot of instant-ngp (unproven)."""
    from ngp_warp.primitives.snapshot import import_snapshot

    with Console(quiet=quiet, as_json=as_json) as console:
        run, about = import_snapshot(
            file, out=out, mode=mode, source=source, write=not dry_run, progress=console.progress
        )
    if run is None:
        console.answer(about["contents"])
        return about
    console.table(about["contents"])
    console.say(f"run {run.path}")
    return {**about, "run": run.path}
