"""The Python entry: fit the blocks of a picture by independent jobs."""

import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from ngp_warp import __version__
from ngp_warp.config import from_dict, override, to_dict
from ngp_warp.errors import CheckpointError, ConfigError
from ngp_warp.fitting import DEFAULT_SECONDS, nested_settings
from ngp_warp.job_settings import JobSettings
from ngp_warp.jobs import Jobs, Outcome
from ngp_warp.primitive import Progress, Report, check_same, report_nothing
from ngp_warp.primitives import get
from ngp_warp.primitives.image.blocks.evaluate import load_whole
from ngp_warp.primitives.image.blocks.layout import MARGIN, Layout, make_layout
from ngp_warp.primitives.image.blocks.mosaic import block_folder, is_finished
from ngp_warp.primitives.image.blocks.report import BlocksFailed, Watcher, measuring_watcher
from ngp_warp.primitives.image.blocks.work import MAY_CHANGE, Work
from ngp_warp.primitives.image.cache import default_cache_dir
from ngp_warp.primitives.image.config import ImageConfig
from ngp_warp.primitives.image.transfer import choose
from ngp_warp.run import Run, open_run
from ngp_warp.run_folder import check_out, list_checkpoints, new_folder, read_blocks, write_json
from ngp_warp.trainer import Interrupted

COMMAND = "fit-image-blocks"
_SUBFOLDERS = ("blocks", "jobs", "renders", "exports")  # checkpoints are the blocks'


def fit_image_blocks(
    source: str | Path | None = None,
    *,
    blocks: str | None = None,
    block_size: int | None = None,
    margin: int | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    device: str | None = None,
    threads: int | None = None,
    jobs: JobSettings | None = None,
    progress: Report | None = None,
    config: ImageConfig | None = None,
    **settings: Any,
) -> Run:
    """Fit a picture in blocks, each by a job of its own: ``ngp fit-image-blocks``.

    Called again with the same ``out`` or with ``resume``, only what is not finished is fitted;
    blocks that are half done go on from their checkpoints.

    Args:
        source: the picture; None with ``resume``: the run's own.
        blocks: "COLUMNSxROWS".
        block_size: instead of it: the longest side of a block, in pixels.
        margin: pixels around a block that are fitted too, and over which it fades into its
            neighbours; None: 16, or the resumed run's.
        seconds: training time of each block, 60 if neither it nor ``steps`` is given.
        steps: training steps of each block.
        out: the run's folder; None: outputs/<input>/fit-image-blocks/<time>.
        resume: the folder of a run to continue, with its settings.
        device: of the jobs, as in ``fit_image``.
        threads: CPU threads of each job.
        jobs: where they run.
        progress: called with an ``ngp_warp.Progress`` now and then.
        config: settings, as in ``fit_image``.
        settings: over ``config``, by name, as in ``fit_image``.

    Returns:
        The run, one image as any other.

    Raises:
        NgpError: as ``fit_image``; ``BlocksFailed`` where jobs failed.
        Interrupted: Ctrl-C or SIGTERM; says how to go on.
    """
    report = progress or report_nothing
    at_work = Jobs(jobs or JobSettings(), device, threads)
    if resume is not None and out is not None:
        raise ConfigError("give --resume or --out, not both: a resumed run keeps its folder")
    previous = _previous(resume, out)
    then = previous.header if previous else {}
    if previous is None and source is None:
        raise ConfigError("nothing to fit: give a file, or a run with --resume")
    config = _settings(config, {**settings, "seconds": seconds, "steps": steps}, then)
    if previous is not None and config.crop != previous.config.crop:
        raise _begun_with(previous, "crop", config.crop, previous.config.crop)
    path = Path(source) if source is not None else Path(then["source"])
    report(Progress(stage="load", message=f"reading {path}"))
    cut = {"blocks": blocks, "block_size": block_size, "margin": margin}
    header = _header(path, config, cut, then)
    if previous is not None:
        check_same(path, header["data"], then["data"])
        _check_settings(previous, header)
    with _folder(previous, out, path) as folder:
        write_json(folder / "config.json", header)
    repeat = f"ngp {COMMAND} --resume {shlex.quote(str(folder))}{at_work.settings.flags()}"
    try:
        _run_jobs(at_work, folder, header, report, repeat)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; what was running is saved; continue with {repeat}"
        ) from None
    return open_run(folder, device=device)


def _header(
    source: Path, config: ImageConfig, cut: dict[str, Any], then: dict[str, Any]
) -> dict[str, Any]:
    """Return what config.json holds; the image is not kept, for the jobs have their own."""
    image = load_whole(source, config)
    return {
        "version": __version__,
        "primitive": "image",
        "source": str(source.resolve()),
        "data": get("image").describe(image),
        "config": to_dict(choose(config, image)[1]),
        **_layout(image.info, **cut, then=then).to_dict(),
    }


def _previous(resume: str | Path | None, out: str | Path | None) -> Run | None:
    """Return the run that is continued, or None.

    Raises:
        CheckpointError: there is none at ``resume``, or not one in blocks.
        ConfigError: ``out`` holds a run of another kind, or blocks without the run's config.json,
            which would pass for this run's.
        ResourceError: ``out`` is a file.
    """
    if resume is not None:
        run = open_run(resume)
        if not run.in_blocks:
            command = get(run.primitive).command
            raise CheckpointError(
                f"{resume} is not in blocks; continue with ngp {command} --resume"
            )
        return run
    where = Path(out) if out is not None else None
    if where is not None and not list_checkpoints(where) and read_blocks(where):
        return open_run(where)
    check_out(where)
    if where is not None and any(where.glob("blocks/*/config.json")):
        raise ConfigError(
            f"{where} holds blocks of a run whose config.json is gone or broken; give another --out"
        )
    return None


def _settings(
    config: ImageConfig | None, settings: dict[str, Any], then: dict[str, Any]
) -> ImageConfig:
    """Return the settings of all blocks, with a length and the cache's own folder."""
    given = {name: value for name, value in settings.items() if value is not None}
    if "seconds" in given and "steps" in given:
        raise ConfigError("give seconds or steps, not both")
    below = to_dict(config) if config is not None else then.get("config", {})
    above = override(below, nested_settings(given))
    config = from_dict(ImageConfig, above, "settings")
    if config.training.steps is None and config.training.seconds is None:
        config = replace(config, training=replace(config.training, seconds=DEFAULT_SECONDS))
    cache = Path(config.cache_dir) if config.cache_dir else default_cache_dir()
    return replace(config, cache_dir=str(cache.absolute()))


def _layout(
    info: Any, blocks: str | None, block_size: int | None, margin: int | None, then: dict[str, Any]
) -> Layout:
    """Return the layout that is asked for; of a run continued its own, unless another is given."""
    if then and blocks is None and block_size is None:
        kept = Layout.from_dict(then)
        return kept if margin is None else replace(kept, margin=margin)
    margin = int(then.get("margin", MARGIN)) if margin is None else margin
    return make_layout(info.width, info.height, blocks=blocks, block_size=block_size, margin=margin)


def _check_settings(run: Run, now: dict[str, Any]) -> None:
    """Raise ConfigError where a run has blocks that were begun with other settings than ``now``."""
    then, new = Layout.from_dict(run.header), Layout.from_dict(now)
    if not any(list_checkpoints(block_folder(run.path, *at)) for at in then.cells()):
        return
    found = _differences("config", now["config"], to_dict(run.config))
    if (then.edges_x, then.edges_y) != (new.edges_x, new.edges_y):
        found = chain([("blocks", new, then)], found)
    for what, a, b in chain(found, _differences("margin", new.margin, then.margin)):
        raise _begun_with(run, what, a, b)


def _begun_with(run: Run, what: str, now: Any, then: Any) -> ConfigError:
    return ConfigError(
        f"{run.path} was begun with {what} {then}, not {now}; to have another, start a new run"
    )


def _differences(name: str, now: Any, then: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, new and old value of settings that differ and may not."""
    if isinstance(now, dict) and isinstance(then, dict):
        for key in now:
            if key not in MAY_CHANGE:
                yield from _differences(key, now[key], then.get(key))
    elif now != then:
        yield name, now, then


def _folder(
    previous: Run | None, out: str | Path | None, source: Path
) -> AbstractContextManager[Path]:
    """Return the run's folder; a new one is taken back where the block raises."""
    if previous is not None:
        return nullcontext(previous.path)
    return new_folder(Path(out) if out is not None else None, source, COMMAND, _SUBFOLDERS)


def _run_jobs(
    jobs: Jobs, folder: Path, header: dict[str, Any], report: Report, repeat: str
) -> None:
    """Fit what is not finished, and measure the whole.

    Raises:
        BlocksFailed: some jobs failed, or ended without being asked to.
    """
    cells = list(Layout.from_dict(header).cells())
    left = [at for at in cells if not is_finished(block_folder(folder, *at))]
    run = folder.resolve()
    if left:
        (folder / "metrics.json").unlink(missing_ok=True)
        message = f"{len(left)} of {len(cells)} blocks to fit, jobs and their logs in {folder}/jobs"
        report(Progress(stage="blocks", message=message))
        works = [Work(run, at, jobs.place(len(left))) for at in left]
        ended = jobs.run_all(run / "jobs", works, Watcher(folder, left, len(cells), report))
        _check(ended, len(cells), repeat)
    if not (folder / "metrics.json").is_file():
        whole = Work(run, None, jobs.place(1))
        ended = jobs.run_all(run / "jobs", [whole], measuring_watcher(folder, report))
        _check(ended, len(cells), repeat)


def _check(ended: list[Outcome], total: int, repeat: str) -> None:
    """Raise BlocksFailed, which names the jobs, unless all are done."""
    failed = [
        {"name": o.work.name, "error": o.error or o.state, "log": str(o.log)}
        for o in sorted(ended, key=lambda o: o.work.name)
        if o.state != "done"
    ]
    if failed:
        raise BlocksFailed(failed, total, repeat)
