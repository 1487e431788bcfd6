"""Fit a primitive to an input: the way from a file to a run's folder."""

import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp import __version__, distributed, launch, memory
from ngp_warp.checkpoint import read_checkpoint
from ngp_warp.config import TrainingConfig, from_dict, override, to_dict
from ngp_warp.errors import CheckpointError, ConfigError, LostError, ResourceError
from ngp_warp.files import format_bytes
from ngp_warp.primitive import Primitive, Progress, Report, Task, check_same, report_nothing
from ngp_warp.primitives import get
from ngp_warp.run import Run, open_run
from ngp_warp.run_folder import check_out, new_folder, write_json
from ngp_warp.trainer import Interrupted, Trainer, TrainingState, restore

DEFAULT_SECONDS = 60.0


def fit(
    primitive: str,
    source: str | Path | None,
    *,
    config: Any = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    device: str | None = None,
    threads: int | None = None,
    progress: Report | None = None,
) -> Run:
    """Fit a primitive to an input, or continue a run.

    Where torchrun has started several processes, all must call this alike: they train together, the
    first one reports and writes, and all return its run.

    Args:
        primitive: "image", "sdf", "nerf" or "volume".
        source: the input; None with ``resume``: the run's own.
        config: the primitive's config; None: its defaults, or the resumed run's settings.
        out: the run's folder; None: outputs/<input>/<task>/<time>.
        resume: a run's folder or checkpoint; on a CPU it continues bit by bit.
        device: "auto", "cpu", "cuda" or "cuda:N"; of several processes each takes its own device.
        threads: CPU threads of this process; results do not depend on them.
        progress: called with a ``Progress`` now and then.

    Returns:
        The finished run.

    Raises:
        NgpError: the input, the settings or the outputs are at fault.
        Interrupted: Ctrl-C or SIGTERM, after saving.
    """
    with distributed.joined() as group:
        report = progress if progress and group.leads else report_nothing
        with group.together():
            if threads is not None:
                launch.set_num_threads(threads)
            device = group.choose_device(device)
        group.settle(device)
        with group.together():
            kind = get(primitive)
            previous = _resumed(primitive, resume, out)
            if config is None:
                config = previous.config if previous else kind.config()
            folder = Path(out) if out else None
            check_out(folder)
            path = _source(source, previous)
            if previous is not None:
                config = _kept(kind, config, previous.config)
                config = kind.resumed(config, previous.header["data"])
            report(Progress(stage="load", message=f"reading {path}"))
            data = kind.load(path, config, report)
        return _fit(kind, path, data, config, previous, folder, device, report)


def fit_with_settings(
    primitive: str,
    source: str | Path | None,
    *,
    settings: dict[str, Any],
    config: Any = None,
    resume: str | Path | None = None,
    **options: Any,
) -> Run:
    """Call ``fit`` with settings by name over a config.

    Args:
        primitive: its name.
        source: as in ``fit``.
        settings: fields of the primitive's config (the nested ones as a dict or a config) and of
            ``TrainingConfig``; those of None are left out.
        config: settings below; None: the resumed run's, or the defaults.
        resume: as in ``fit``.
        options: the rest of ``fit``.

    Raises:
        NgpError: as ``fit``.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if "seconds" in given and "steps" in given:
        raise ConfigError("give seconds or steps, not both")
    if given:
        cls = get(primitive).config
        if config is None:
            previous = _resumed(primitive, resume, options.get("out"))
            config = previous.config if previous else cls()
        config = from_dict(cls, override(to_dict(config), nested_settings(given)), "settings")
    return fit(primitive, source, config=config, resume=resume, **options)


def nested_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Return settings as plain JSON values, those of the training where they belong."""
    training = {f.name for f in fields(TrainingConfig)}
    above: dict[str, Any] = {}
    for name, value in given.items():
        plain = to_dict(value) if is_dataclass(value) else value
        plain = str(plain) if isinstance(plain, Path) else plain
        if name in training:
            above.setdefault("training", {})[name] = plain
        else:
            above[name] = {**above.get(name, {}), **plain} if isinstance(plain, dict) else plain
    return above


def _kept(kind: Primitive, config: Any, then: Any) -> Any:
    """Return a resumed run's config: of what it must keep, None is what it has.

    Raises:
        ConfigError: it would learn something else than it has.
    """
    for name in sorted(kind.fixed):
        given, kept = getattr(config, name), getattr(then, name)
        if given is not None and given != kept:
            raise ConfigError(
                f"the run has {name} {kept}, not {given}; to have another, start a new run"
            )
    return replace(config, **{name: getattr(then, name) for name in kind.fixed})


def _fit(
    kind: Primitive,
    source: Path,
    data: Any,
    config: Any,
    previous: Run | None,
    out: Path | None,
    device: str,
    report: Report,
) -> Run:
    group = distributed.current()
    with group.together():
        config, need = kind.estimate(data, _with_length(config, previous), device)
        _check_memory(need, device, report)
        static = {
            "version": __version__,
            "primitive": kind.name,
            "source": str(source.resolve()),
            "processes": group.size,
            "data": kind.describe(data),
            "config": to_dict(config),
        }
        start = time.perf_counter()
        task = kind.build(data, config, device)
        # making tables is training time
        state = TrainingState(seconds=time.perf_counter() - start)
        if previous is not None:
            check_same(source, static["data"], previous.header["data"])
            if (then := previous.header.get("processes", 1)) != group.size:
                text = f"the run had {then} processes and has {group.size}: other random numbers"
                report(Progress(stage="load", message=text))
            state = restore(task, *read_checkpoint(previous.checkpoint))
    with ExitStack() as stack:
        folder = None
        with group.together():
            if group.leads:
                folder = stack.enter_context(_folder(previous, out, source, kind))
                if previous is None:
                    write_json(folder / "config.json", static)
        folder = group.share(folder)
        assert folder is not None
        run = _train(Trainer(task, config.training, folder, static, report, state))
        return replace(run, device=device)


def _train(trainer: Trainer) -> Run:
    """Train and measure; of several processes the first one measures, and all get its run."""
    group, run = trainer.group, None
    state = trainer.train()
    try:
        with group.together():
            if group.leads:
                # Not before: a resumed run that fails must stay as it was.
                write_json(trainer.folder / "config.json", trainer.header)
                run = _finish(trainer.task, state, trainer.folder, trainer.device, trainer.report)
        run = group.share(run)
    except LostError as lost:
        # Where there is a run, all is done, and the one that is gone was only waiting.
        if run is None:
            trainer.saver.advise(lost)
            raise
    assert run is not None
    return run


def _folder(
    previous: Run | None, out: Path | None, source: Path, kind: Primitive
) -> AbstractContextManager[Path]:
    return nullcontext(previous.path) if previous else new_folder(out, source, kind.command)


def _finish(task: Task, state: TrainingState, folder: Path, device: str, report: Report) -> Run:
    """Evaluate a trained task, write its pictures and metrics."""
    task.field.use_average()
    try:
        metrics = task.finish(folder, np.array(state.curve, np.float64).reshape(-1, 3), report)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted, trained but not measured; continue with --resume {folder}"
        ) from None
    metrics = {
        **metrics,
        "steps": state.step,
        "seconds": round(state.seconds, 3),
        "samples_per_second": round(task.samples(state.step) / state.seconds),
        "parameters": task.field.n_params,
        "device": device,
        "threads": launch.num_threads(),
        "processes": distributed.current().size,
    }
    write_json(folder / "metrics.json", metrics)
    return open_run(folder, device=device)


def _resumed(primitive: str, resume: str | Path | None, out: str | Path | None) -> Run | None:
    if resume is None:
        return None
    if out is not None:
        raise ConfigError("give --resume or --out, not both: a resumed run keeps its folder")
    run = open_run(resume)
    if run.primitive != primitive:
        raise CheckpointError(f"{resume} is a run of {run.primitive!r}, not of {primitive!r}")
    if run.in_blocks:
        raise CheckpointError(
            f"{resume} is a run in blocks; continue with ngp fit-image-blocks --resume {resume}"
        )
    if run.header.get("imported"):
        raise CheckpointError(
            f"{resume} is an imported snapshot, which cannot be trained on; fit the input anew"
        )
    if run.header.get("compact"):
        raise CheckpointError(f"{resume} is a compact export; resume the run that it was made from")
    return run


def _source(source: str | Path | None, previous: Run | None) -> Path:
    if source is not None:
        return Path(source)
    if previous is None:
        raise ConfigError("nothing to fit: give a file, or a run with --resume")
    return previous.source


def _with_length(config: Any, previous: Run | None) -> Any:
    """Return the config with a length: of its own, of the run resumed, or the default."""
    training = config.training
    if training.steps is None and training.seconds is None:
        training = replace(training, seconds=DEFAULT_SECONDS)
    if previous is not None and previous.header["n_steps"]:
        old = from_dict(type(training), previous.header["config"]["training"])
        if training.steps == old.steps and training.seconds == old.seconds:
            # the same length again: the number of steps that was decided then
            return replace(config, training=training)
        done = previous.header["step"]
        if training.steps is not None and training.steps < done:
            raise ConfigError(f"the run resumed has {done} steps already; give more --steps")
        if training.steps is None:
            raise ConfigError(
                f"the run resumed has {previous.header['n_steps']} steps; to train it longer give "
                "--steps, not --seconds"
            )
    return replace(config, training=training)


def _check_memory(need: dict[str, int], device: str, report: Report) -> None:
    """Say what will be allocated, and refuse what cannot fit."""
    total = sum(need.values())
    available = memory.available_bytes() if device == "cpu" else launch.free_memory(device)
    parts = ", ".join(f"{what} {format_bytes(n)}" for what, n in need.items())
    report(Progress(stage="load", message=f"memory: {format_bytes(total)} ({parts})"))
    if total > available:
        raise ResourceError(
            f"this needs {format_bytes(total)} of memory on {device} ({parts}), "
            f"{format_bytes(available)} are free; lower --encoding.log2-hashmap-size, "
            "--network.n-neurons or --batch-size"
        )
