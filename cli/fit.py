"""The fit command of any primitive: its config's flags and the ones that all share."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ngp_warp import processes
from ngp_warp.cli.console import Console
from ngp_warp.cli.options import (
    DeviceOption,
    JsonOption,
    QuietOption,
    ThreadsOption,
    base_settings,
    config_from_flags,
    with_config_flags,
)
from ngp_warp.errors import ConfigError
from ngp_warp.primitive import Progress
from ngp_warp.primitives import get as get_primitive

SourceArgument = Annotated[
    Path | None,
    typer.Argument(metavar="SOURCE", help="What to fit. May be left out with --resume."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.json",
        help="Settings: a run's config.json, a part of one, or a network config of instant-ngp's.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="The run's folder; outputs/<input>/<task>/<time> if not given."
    ),
]
ResumeOption = Annotated[
    Path | None,
    typer.Option("--resume", metavar="RUN", help="Continue this run or checkpoint, bit for bit."),
]


def fit_command(primitive: str, summary: str) -> Callable[..., dict[str, Any]]:
    """Return the command that fits a primitive, with ``summary`` as its help."""
    cls = get_primitive(primitive).config

    def command(
        ctx: typer.Context,
        *,
        source: SourceArgument = None,
        flags: dict[str, Any],
        out: OutOption = None,
        resume: ResumeOption = None,
        config: ConfigOption = None,
        device: DeviceOption = "auto",
        threads: ThreadsOption = None,
        quiet: QuietOption = False,
        as_json: JsonOption = False,
    ) -> dict[str, Any]:
        if source is None and resume is None:
            raise ConfigError("nothing to fit: give a file, or a run with --resume")
        # of several processes the first one speaks
        with Console(quiet=quiet or not processes.speaks(), as_json=as_json) as console:
            settings = settings_given(primitive, flags, config, resume, console)
            from ngp_warp.fitting import fit

            run = fit(
                primitive,
                source,
                config=settings,
                out=out,
                resume=resume,
                device=None if device == "auto" else device,
                threads=threads,
                progress=console.progress,
            )
        return report_run(run, console)

    command.__doc__ = summary
    return with_config_flags(cls)(command)


def settings_given(
    primitive: str, flags: dict[str, Any], file: Path | None, resume: Path | None, console: Console
) -> Any:
    """Return the config that a fit is given: the flags over the file over the resumed run's.

    What there is to say of the file is printed. None where there is neither flag nor file: the
    settings then are the resumed run's or the defaults, as the fit itself finds them.

    Raises:
        ConfigError: a flag, a file or a run that does not hold settings of the primitive.
        CheckpointError: no run at ``resume``.
    """
    if not flags and file is None:
        return None
    cls = get_primitive(primitive).config
    below, notes = base_settings(cls, file, resume, primitive)
    settings = config_from_flags(cls, flags, below)
    for note in notes:
        console.progress(Progress(stage="load", message=note))
    return settings


def report_run(run: Any, console: Console) -> dict[str, Any]:
    """Print the metrics and where the pictures are; return them."""
    pictures = sorted(path for path in (run.path / "renders").glob("*") if path.is_file())
    console.table(run.metrics)
    console.say(f"run {run.path}")
    for path in pictures:
        console.say(f"picture {path}")
    return {**run.metrics, "run": run.path, "pictures": pictures}
