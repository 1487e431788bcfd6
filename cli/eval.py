"""`ngp eval`: measure a run against what it was fitted to."""

from typing import Any

from ngp_warp.cli.console import Console
from ngp_warp.cli.options import JsonOption, QuietOption, RunArgument


def command(
    run: RunArgument, quiet: QuietOption = False, as_json: JsonOption = False
) -> dict[str, Any]:
    """Measure a run against the original."""
    from ngp_warp.primitives import get as get_primitive
    from ngp_warp.run import open_run

    opened = open_run(run)
    with Console(quiet=quiet, as_json=as_json) as console:
        metrics = get_primitive(opened.primitive).evaluate(opened, progress=console.progress)
    console.answer(metrics)
    return metrics
