"""What a command says while it works and at its end: all of it on stderr, except its answer."""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from ngp_warp.primitive import Progress

SECONDS_BETWEEN_LINES = 5.0  # in a log file
SECONDS_BETWEEN_FRAMES = 0.25  # on a terminal: a drawing thread would take time from training

STAGES = {
    "load": "Loading",
    "features": "Finding features",
    "matching": "Matching",
    "mapping": "Placing photos",
    "compile": "Compiling",
    "train": "Training",
    "blocks": "Blocks",
    "evaluate": "Evaluating",
    "write": "Writing",
}
UNITS = {
    "psnr": "dB",
    "seconds": "s",
    "seconds_left": "s",
    "samples_per_second": "/s",
    "bytes": "B",
}


class Failed(typer.Exit):
    """Ends a command with status 2 after it has said why.

    Args:
        result: what --json prints, with a key "error".
    """

    def __init__(self, result: dict[str, Any]):
        super().__init__(2)
        self.result = result


class Console:
    """Progress, tables and paths of one command; a context manager that ends the progress bar.

    Attributes:
        progress: the function that a primitive reports to.
    """

    def __init__(
        self, *, quiet: bool = False, as_json: bool = False, clock: Callable = time.monotonic
    ):
        from rich.console import Console as RichConsole

        self.quiet = quiet
        self.as_json = as_json
        self._clock = clock
        self._err = RichConsole(stderr=True)
        self._bar: Bar | None = None
        self._stage = ""
        self._last = -math.inf

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.refresh()
            self._bar.stop()

    def progress(self, update: "Progress") -> None:
        """Show how far the work has come: a bar on a terminal, else a line now and then."""
        if self.quiet:
            return
        if update.message:
            self._print(printable(update.message))
        now = self._clock()
        if self._err.is_terminal:
            self._draw(update, now)
        elif not update.message and now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            self._print(progress_line(update))

    def say(self, line: str) -> None:
        """Print one line, unless quiet."""
        if not self.quiet:
            self._print(line)

    def error(self, line: str) -> None:
        """Print one of several errors, even if quiet."""
        self._print(f"ngp: error: {one_line(line)}")

    def table(self, values: dict[str, Any]) -> None:
        """Print names and values, unless quiet."""
        if not self.quiet:
            for line in _table(values):
                self._print(line)

    def answer(self, values: dict[str, Any]) -> None:
        """Print on stdout what the command was asked for; with --json the caller prints it."""
        if not self.as_json:
            for line in _table(values):
                typer.echo(line)

    def _print(self, line: str) -> None:
        # soft_wrap: a path stays in one piece
        self._err.print(line, markup=False, highlight=False, soft_wrap=True)

    def _draw(self, update: "Progress", now: float) -> None:
        if self._bar is None:
            self._bar = _progress_bar(self._err)
            self._bar.start()
        fields = {"completed": update.step, "total": update.total or None, "note": _note(update)}
        if update.stage != self._stage:
            self._stage, self._last = update.stage, -math.inf
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(STAGES.get(update.stage, update.stage), **fields)
        else:
            self._bar.update(self._bar.task_ids[0], **fields)
        if now - self._last >= SECONDS_BETWEEN_FRAMES:
            self._last = now
            self._bar.refresh()


def one_line(text: str) -> str:
    """Return the text without line breaks and control characters, which a file name may hold."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Return the text with its line breaks and control characters as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def progress_line(update: "Progress") -> str:
    """Return the state of the work in one plain line."""
    steps = f" {update.step}/{update.total}" if update.total else ""
    return f"{STAGES.get(update.stage, update.stage)}{steps} {_note(update)}".rstrip()


def format_value(name: str, value: Any) -> str:
    """Return a metric as a person reads it: ``42.13 dB``, ``1,048,576``."""
    unit = UNITS.get(name, "")
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = str(value)
    elif isinstance(value, int):
        text = f"{value:,}" if name not in ("width", "height", "seed") else str(value)
    elif name == "psnr":
        text = f"{value:.2f}"
    else:
        text = f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{text}{unit}" if unit.startswith("/") else f"{text} {unit}".rstrip()


def _note(update: "Progress") -> str:
    parts = []
    if update.samples_per_second is not None:
        parts.append(f"{update.samples_per_second / 1e6:.2f} M samples/s")
    if update.metric is not None:
        value = format_value(update.metric_name.lower(), float(update.metric))
        parts.append(f"{update.metric_name} {value}")
    if update.seconds_left is not None:
        minutes, seconds = divmod(math.ceil(update.seconds_left), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(parts)


def _progress_bar(console: Any) -> "Bar":
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        auto_refresh=False,
        transient=True,
    )


def _table(values: dict[str, Any]) -> list[str]:
    """Return a line for every value, nested ones as ``outer.inner``."""
    rows = _rows(values)
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:<{width}}  {text}" for name, text in rows]


def _rows(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _rows(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            continue  # for --json; people were told
        else:
            rows.append((printable(f"{prefix}{name}"), printable(format_value(name, value))))
    return rows
