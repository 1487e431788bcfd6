"""What a primitive supplies, and what the training loop tells its caller."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ngp_warp.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    import warp as wp

    from ngp_warp.launch import Launch
    from ngp_warp.optimizer import Adam, Parameters


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come; sent to the caller's ``progress`` function."""

    stage: str
    """One of "load", "compile", "train", "evaluate", "write"; of an image in blocks also "blocks",
    of structure from motion "features", "matching", "mapping"."""
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

_LONGEST_CHANGE = 120
"""Characters of what differs between two inputs."""


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
    changed = [_change(k, now[k], then.get(k)) for k in now if now[k] != then.get(k)]
    if changed:
        raise DataError(
            f"{source} is not what the run was fitted to: {'; '.join(changed)}; give the original"
        )


def _change(name: str, now: Any, then: Any) -> str:
    """Say what differs; of lists of cameras only that they do."""
    both = f"{name} {now}, then {then}"
    return both if len(both) < _LONGEST_CHANGE else f"{name} (other values than then)"


def check_options(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise unless all options that were given are known.

    Args:
        given: names as in Python.
        known: names as in Python.
        what: named in the error: what the options are for.

    Raises:
        ConfigError: names the first that is not known, and those that are.
    """
    known = sorted(known)
    for name in given:
        if name not in known:
            flags = ", ".join(_flag(k) for k in known) or "no options"
            raise ConfigError(f"{_flag(name)} is not for {what}, which takes {flags}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


class Trainable(Protocol):
    """What is trained: a ``Field``, or several parts with one optimizer's clock."""

    device: str

    @property
    def optimizer(self) -> "Adam":
        """Whose step is the run's."""
        ...

    @property
    def n_params(self) -> int:
        """Number of trained values."""
        ...

    def parameters(self) -> "dict[str, Parameters]":
        """Return the trained arrays by name."""
        ...

    def extra_state(self) -> "dict[str, wp.array]":
        """Return the other arrays that a resumed run needs, by name."""
        ...

    def use_average(self) -> None:
        """Replace the parameters by their moving average, where there is one."""
        ...


class Task(Protocol):
    """A primitive at work on one input: what the training loop needs of it."""

    config: Any
    """The primitive's config with every None resolved."""
    field: Any
    """A ``Trainable``."""
    metric_name: str
    """The figure that progress shows."""
    warm_up_share: float
    """Share of --seconds after which a step takes as long as all later ones."""
    fill_seconds: float
    """Training time that ``stages`` took, beside what was compiled: to fill pools of samples."""

    def stages(self) -> "list[list[Launch]]":
        """Record one training step: stages of launches that may run side by side."""
        ...

    def batch_metric(self) -> float:
        """Return the metric of the newest batch, before its update."""
        ...

    def samples(self, n_steps: int) -> int:
        """Return the samples that the run's first ``n_steps`` steps, the last ones, have used."""
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
    """(run, output, *, progress, **options): make a picture or a film."""
    render_options: frozenset[str]
    """Names of the options that ``render`` knows."""
    exporters: Mapping[str, Callable[..., dict[str, Any]]]
    """Format -> (run, output or None, *, progress, **options) -> "output", the path of what was
    written, and what there is to say of it; None: in the run's exports."""
    fitted: Callable[[Any], Any] | None = None
    """run -> what was trained, ready for evaluation; None: a ``Field``."""
    evaluate: Callable[..., dict[str, Any]]
    """(run, *, progress) -> metrics against the original."""
    describe_blocks: Callable[[Any], dict[str, Any]] | None = None
    """run in blocks -> what ``ngp_warp.run.describe`` says of it; None: it is never in blocks."""
    resumed: Callable[[Any, dict[str, Any]], Any] = lambda config, described: config
    """(config, what ``describe`` said) -> the config of a run that is resumed; ConfigError where it
    cannot be."""
    fixed: frozenset[str] = frozenset()
    """Fields of the config that a resumed run must keep: what it learns follows from them."""
    query: Callable[..., Any]
    """(run, points [n, n_dims], gradient) -> values [n, c] and, where asked for, Jacobians
    [n, c, n_dims], else None; all in the input's units."""
    export_options: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Format -> names of the options that its exporter knows, where there are any."""
    render_rays: Callable[..., Any] | None = None
    """(run, rays_o [n, 3], rays_d [n, 3]) -> a ``ngp_warp.radiance.field.Rendered`` in the input's
    units; None: it has no colours along rays."""
    trace: Callable[..., Any] | None = None
    """(run, rays_o [n, 3], rays_d [n, 3]) -> a ``ngp_warp.rays.sphere_trace.Trace`` in the input's
    units; None: it has no surface."""
    meshes: Callable[..., Any] | None = None
    """(run, *, resolution, progress) -> the original and the result, each vertices [n, 3] in input
    units and faces [m, 3], equal vertices merged; None: it is no mesh."""
