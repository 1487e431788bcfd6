"""`ngp fit-image-blocks`: fit the blocks of a large picture by independent jobs."""

from typing import Annotated, Any

import typer

from ngp_warp.cli.console import Console, Failed
from ngp_warp.cli.fit import (
    ConfigOption,
    OutOption,
    ResumeOption,
    SourceArgument,
    report_run,
    settings_given,
)
from ngp_warp.cli.options import (
    DeviceOption,
    JsonOption,
    QuietOption,
    ThreadsOption,
    field_docs,
    with_config_flags,
)
from ngp_warp.job_settings import Executor, JobSettings
from ngp_warp.primitives import get as get_primitive

_CONFIG = get_primitive("image").config
_HELP = field_docs(JobSettings)


def _command(
    ctx: typer.Context,
    *,
    source: SourceArgument = None,
    flags: dict[str, Any],
    blocks: Annotated[
        str | None, typer.Option(metavar="COLUMNSxROWS", help="How many blocks: 4x4.")
    ] = None,
    block_size: Annotated[
        int | None, typer.Option(min=1, help="Instead: their longest side in pixels.")
    ] = None,
    margin: Annotated[
        int | None,
        typer.Option(
            min=0, help="Pixels around a block over which it fades into its neighbours; 16."
        ),
    ] = None,
    executor: Annotated[Executor, typer.Option(help=_HELP["executor"])] = "local",
    jobs: Annotated[int | None, typer.Option(min=1, help=_HELP["jobs"])] = None,
    slurm_partition: Annotated[str | None, typer.Option(help=_HELP["slurm_partition"])] = None,
    slurm_time: Annotated[
        int, typer.Option(min=1, help=_HELP["slurm_time"])
    ] = JobSettings.slurm_time,
    slurm_mem: Annotated[str | None, typer.Option(help=_HELP["slurm_mem"])] = None,
    slurm_gpus_per_node: Annotated[
        int | None, typer.Option(min=0, help=_HELP["slurm_gpus_per_node"])
    ] = None,
    slurm_cpus_per_task: Annotated[
        int | None, typer.Option(min=1, help=_HELP["slurm_cpus_per_task"])
    ] = None,
    slurm_setup: Annotated[
        list[str] | None, typer.Option(help=f"{_HELP['slurm_setup']} May be repeated.")
    ] = None,
    slurm_additional_parameters: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help=f"{_HELP['slurm_additional_parameters']} May be repeated."
        ),
    ] = None,
    out: OutOption = None,
    resume: ResumeOption = None,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> dict[str, Any]:
    """Fit a large picture in blocks, by jobs here or on a Slurm cluster."""
    where = JobSettings(
        executor=executor,
        jobs=jobs,
        slurm_partition=slurm_partition,
        slurm_time=slurm_time,
        slurm_mem=slurm_mem,
        slurm_gpus_per_node=slurm_gpus_per_node,
        slurm_cpus_per_task=slurm_cpus_per_task,
        slurm_setup=tuple(slurm_setup or ()),
        slurm_additional_parameters=tuple(slurm_additional_parameters or ()),
    )
    with Console(quiet=quiet, as_json=as_json) as console:
        settings = settings_given("image", flags, config, resume, console)
        from ngp_warp.primitives.image.blocks.fit import fit_image_blocks
        from ngp_warp.primitives.image.blocks.report import BlocksFailed, line_of, table

        try:
            run = fit_image_blocks(
                source,
                blocks=blocks,
                block_size=block_size,
                margin=margin,
                out=out,
                resume=resume,
                device=None if device == "auto" else device,
                threads=threads,
                jobs=where,
                progress=console.progress,
                config=settings,
            )
        except BlocksFailed as error:
            for failed in error.failed:
                console.error(line_of(failed))
            console.error(error.summary)
            raise Failed({"error": error.summary, "failed": error.failed}) from None
    for line in table(run.metrics):
        console.say(line)
    return report_run(run, console)


command = with_config_flags(_CONFIG)(_command)
