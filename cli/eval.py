"""`ngp eval`: measure a run against what it was fitted to."""

from typing import Any

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
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> dict[str, Any]:
    """Measure a run against the original."""
    from ngp_warp.primitives import get as get_primitive

    opened = open_for(run, device, threads)
    with Console(quiet=quiet, as_json=as_json) as console:
        metrics = get_primitive(opened.primitive).evaluate(opened, progress=console.progress)
    console.answer(metrics)
    return metrics
