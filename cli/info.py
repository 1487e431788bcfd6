"""`ngp info`: say what a run or a checkpoint holds."""

from typing import Any

from ngp_warp.cli.console import Console
from ngp_warp.cli.options import JsonOption, QuietOption, RunArgument


def command(
    run: RunArgument, quiet: QuietOption = False, as_json: JsonOption = False
) -> dict[str, Any]:
    """Say what a run or a checkpoint holds."""
    from ngp_warp.run import describe

    values = describe(run)
    Console(quiet=quiet, as_json=as_json).answer(values)
    return values
