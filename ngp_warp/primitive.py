"""What a primitive supplies, and what the training loop tells its caller."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ngp_warp.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from ngp_warp.field import Field
    from ngp_warp.launch import Launch


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come; sent to the caller's ``progress`` function."""

    stage: str
    """One of "load", "compile", "train", "evaluate", "write"."""
    step: int = 0
    """Steps, tiles or files done in this stage."""
    total: int = 0
    """Steps, tiles or files in this stage; 0: not known."""
    metric_name: str = "PSNR"
    """Name of ``metric``."""
    metric: float | None = None
    """Newest value of the metric."""
    message: str | None = None
    """A line for the user."""
    seconds_left: float | None = None
    """Estimated time to the end of this stage."""
    samples_per_second: float | None = None
    """Training speed."""


Report = Callable[[Progress], None]


def report_nothing(progress: Progress) -> None:
    """Take a progress report and do nothing with it."""


def check_same(source: Path, now: dict[str, Any], then: dict[str, Any]) -> None:
    """Raise unless an input is the one that a run was fitted to.

    Args:
        source: the input.
        now: what ``Primitive.describe`` says of it.
        then: what it said to the run.

    Raises:
        DataError: says what differs.
    """
    changed = [f"{k} {now[k]}, then {then.get(k)}" for k in now if now[k] != then.get(k)]
    if changed:
        raise DataError(
            f"{source} is not what the run was fitted to: {'; '.join(changed)}; give the original"
        )


class Task(Protocol):
    """A primitive at work on one input: what the training loop needs of it."""

    config: Any
    """The primitive's config with every None resolved."""
    field: "Field"
    metric_name: str
    """The figure that progress shows."""

    def stages(self) -> "list[list[Launch]]":
        """Record one training step: stages of launches that may run side by side."""
        ...

    def batch_metric(self) -> float:
        """Return the metric of the newest batch, before its update."""
        ...

    def finish(self, run: Path, curve: "np.ndarray", report: Report) -> dict[str, Any]:
        """Evaluate the field on the whole input, write the pictures to run/renders.

        Args:
            run: the run's folder.
            curve: float64 [n, 3]: step, seconds, batch metric.
            report: told of progress.

        Returns:
            The metrics.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Primitive:
    """One primitive, as a record of functions."""

    name: str
    """Its name in checkpoints: "image", ..."""
    command: str
    """The command that fits it."""
    config: type
    """Its config: a frozen dataclass with a member ``training: TrainingConfig``."""
    load: Callable[[Path, Any, Report], Any]
    """(source, config, report) -> data: reads the input; DataError where it cannot."""
    estimate: Callable[[Any, Any, str], tuple[Any, dict[str, int]]]
    """(data, config, device) -> (resolved config, {what: bytes}) before anything is allocated."""
    build: Callable[[Any, Any, str], Task]
    """(data, resolved config, device) -> the task."""
    describe: Callable[[Any], dict[str, Any]]
    """data -> what a checkpoint keeps of the input, to check it on resume and to decode."""
    render: Callable[..., None]
    """(run, output, *, width, scale, crop, progress): decode to a picture."""
    exporters: Mapping[str, Callable[..., Path]]
    """Format -> (run, output or None, *, progress) -> what was written; None: run/exports."""
    evaluate: Callable[..., dict[str, Any]]
    """(run, *, progress) -> metrics against the original."""
    in_units: Callable[..., Any]
    """(run, values [n, c], Jacobians [n, c, n_dims] or None) -> both in the input's units."""
    meshes: Callable[..., Any] | None = None
    """(run, *, resolution, progress) -> the original and the result, each vertices [n, 3] in input
    units and faces [m, 3], equal vertices merged; None: it is no mesh."""
