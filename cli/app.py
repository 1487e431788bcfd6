"""The command `ngp`: dispatch, errors and exit statuses.

Status 0: done; 2: what the user can mend, said in one line; 130: interrupted. Anything else is a
bug and keeps its traceback (1).
"""

import contextlib
import difflib
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from ngp_warp import __version__, peers, processes
from ngp_warp.cli.console import one_line
from ngp_warp.errors import ConfigError, LostError, NgpError, PeerError

# Typer gives it no public name.
UsageError: Any = typer.BadParameter.__base__

# Module and summary: `ngp --help` lists them without loading any.
COMMANDS = {
    "fit-image": ("ngp_warp.cli.fit_image", "Fit a neural field to a picture."),
    "fit-image-blocks": (
        "ngp_warp.cli.fit_image_blocks",
        "Fit a large picture in blocks, by jobs here or on Slurm.",
    ),
    "fit-sdf": ("ngp_warp.cli.fit_sdf", "Fit a signed distance field to a mesh."),
    "nerf": ("ngp_warp.cli.nerf", "Fit a radiance field to photos."),
    "fit-volume": ("ngp_warp.cli.fit_volume", "Fit a neural field to a volume."),
    "process-photos": (
        "ngp_warp.cli.process_photos",
        "Find where photos were taken from, and write a scene.",
    ),
    "render": ("ngp_warp.cli.render", "Make a picture or a film of a run."),
    "export": ("ngp_warp.cli.export", "Write a run in a format that other programs read."),
    "view": ("ngp_warp.cli.view", "Show a mesh's run beside the original."),
    "eval": ("ngp_warp.cli.eval", "Measure a run against the original."),
    "validate": ("ngp_warp.cli.validate", "Check a scene of photos before it is trained."),
    "import-snapshot": (
        "ngp_warp.cli.import_snapshot",
        "Make a run of a snapshot of instant-ngp (unproven).",
    ),
    "info": ("ngp_warp.cli.info", "Say what a run or a checkpoint holds."),
}

_TOGETHER = ("fit-image", "fit-sdf", "nerf", "fit-volume")
"""Those that several processes run together; of the others each would write the same files."""


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they run."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command's name and summary, enough for the list of commands."""
        if cmd_name not in COMMANDS:
            return None
        return _typer_command(cmd_name, lambda: None, COMMANDS[cmd_name][1])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command to run, loaded, and the arguments left for it."""
        name, *rest = args
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            ctx.fail(f"No such command: {name}" + (f" (did you mean {near[0]}?)" if near else ""))
        if name not in _TOGETHER and processes.several():
            raise ConfigError(
                f"ngp {name} is no work for several processes; start it without torchrun"
            )
        return name, load_command(name), rest


def load_command(name: str) -> Any:
    """Return the named command with all its parameters."""
    command = importlib.import_module(COMMANDS[name][0]).command
    return _typer_command(name, command, command.__doc__)


def _typer_command(name: str, function: Callable[..., Any], summary: str | None) -> Any:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, help=summary)(function)
    return typer.main.get_command(app)


# Plain help: rich's cuts long flags short on 80 columns, and takes 0.1 s to import.
app = typer.Typer(name="ngp", cls=LazyGroup, add_completion=False, rich_markup_mode=None)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"ngp {__version__}")
        raise typer.Exit


@app.callback()
def _ngp(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Instant neural graphics primitives on every CPU core and on CUDA."""


# Until the one process that says what was wrong has said it: torchrun ends the others at the first
# that fails. That one may have started later; where they work together, it knows at the same time.
_SILENT_SECONDS, _SILENT_SECONDS_TOGETHER = 5.0, 1.0
UNSAID: Any = object()
"""The result of a process that leaves it to another to say it."""


def main(args: Sequence[str] | None = None) -> int:
    """Run `ngp` with the given arguments, by default the process's; return its exit status.

    One of several processes ends here, at once: threads and devices may wait for one that is gone.
    """
    if args is not None or not processes.several():
        return _main(args)
    status = 1
    try:
        status = _main(args)
    except BaseException:
        # else the interpreter would wait for threads before it ends
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def _main(args: Sequence[str] | None) -> int:
    argv = list(sys.argv[1:] if args is None else args) or ["--help"]
    try:
        if "--json" in argv:
            with _stdout_for_json() as stdout:
                return _run_json(argv, stdout)
        status = _run(argv)[0]
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has gone. Python flushes stdout once more at exit: to nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141  # 128 + SIGPIPE, as a C program would
    return status


def _run(argv: list[str]) -> tuple[int, Any]:
    """Return the exit status, and the command's result or the error's line."""
    says, silent = processes.speaks(), _SILENT_SECONDS
    try:
        command = typer.main.get_command(app)
        with _terminable(), command.make_context("ngp", argv) as ctx:
            result = command.invoke(ctx)
            return 0, result if says else UNSAID
    except typer.Exit as done:
        return done.exit_code, getattr(done, "result", None)  # console.Failed has one
    except KeyboardInterrupt as stop:
        status, line, silent = 130, one_line(str(stop)) or "interrupted", 0.0
        # torchrun ends all when it sees that one is gone, and then that is what there is to say
        if processes.several() and (lost := peers.last_lost()):
            status, line, says = 2, one_line(str(lost)), lost.said_here
    except PeerError as error:
        status, line, silent = 2, one_line(str(error)), _SILENT_SECONDS_TOGETHER
        says = False
    except LostError as error:
        status, line, says = 2, one_line(str(error)), error.said_here
    except NgpError as error:
        status, line = 2, one_line(str(error))
        says = says or error.said_here
    except UsageError as error:
        ctx = getattr(error, "ctx", None)
        hint = f"; see {ctx.command_path} --help" if ctx else ""
        status, line = 2, one_line(error.format_message()).rstrip(".") + hint
    if not says:
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(silent)
        return status, UNSAID
    print(f"ngp: {'' if status == 130 else 'error: '}{line}", file=sys.stderr)  # noqa: T201
    return status, line


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, so that nothing half-written is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_json(argv: list[str], stdout: TextIO) -> int:
    status = 1
    result: Any = "internal error; its traceback is on stderr"
    try:
        status, result = _run(argv)
    finally:
        # Where _run raised, the JSON object goes out before the traceback.
        if status != 0 and result is not UNSAID and not isinstance(result, dict):
            result = {"error": result}
        if result is not UNSAID and result is not None:  # None: --help, already printed
            json.dump(_plain(result), stdout, allow_nan=False)
            stdout.write("\n")
            stdout.flush()
    return status


@contextlib.contextmanager
def _stdout_for_json() -> Iterator[TextIO]:
    """Yield stdout; everything else that prints, native code too, goes to stderr meanwhile."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with (
            os.fdopen(os.dup(saved), "w", encoding="utf-8") as stdout,
            contextlib.redirect_stdout(sys.stderr),
        ):
            yield stdout
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def _plain(value: Any) -> Any:
    """Return a value that JSON holds: NumPy's scalars as Python's, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


if __name__ == "__main__":
    sys.exit(main())
