"""The Python entry: fit the blocks of a picture by independent jobs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ngp_warp import __version__
from ngp_warp.config import from_dict, override, to_dict
from ngp_warp.errors import CheckpointError, ConfigError
from ngp_warp.fitting import DEFAULT_SECONDS, nested_settings
from ngp_warp.job_settings import JobSettings, check_available
from ngp_warp.jobs import Jobs, Outcome
from ngp_warp.primitive import Progress, Report, check_same, report_nothing
from ngp_warp.primitives import get
from ngp_warp.primitives.image.blocks.evaluate import load_whole
from ngp_warp.primitives.image.blocks.layout import MARGIN, Layout, make_layout
from ngp_warp.primitives.image.blocks.mosaic import block_folder, is_finished
from ngp_warp.primitives.image.blocks.report import BlocksFailed, measuring_watcher, watcher
from ngp_warp.primitives.image.blocks.work import Work
from ngp_warp.primitives.image.cache import default_cache_dir
from ngp_warp.primitives.image.config import ImageConfig
from ngp_warp.primitives.image.transfer import choose
from ngp_warp.run import Run, open_run
from ngp_warp.run_folder import check_out, list_checkpoints, new_folder, read_blocks, write_json
from ngp_warp.trainer import Interrupted

COMMAND = "fit-image-blocks"
_MAY_CHANGE = ("cache_dir", "checkpoint_seconds")


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
    report, jobs = progress or report_nothing, jobs or JobSettings()
    check_available(jobs)
    if resume is not None and out is not None:
        raise ConfigError("give --resume or --out, not both: a resumed run keeps its folder")
    previous = _previous(resume, out)
    then = previous.header if previous else {}
    if previous is None and source is None:
        raise ConfigError("nothing to fit: give a file, or a run with --resume")
    config = _settings(config, {**settings, "seconds": seconds, "steps": steps}, then)
    path = Path(source) if source is not None else Path(then["source"])
    report(Progress(stage="load", message=f"reading {path}"))
    cut = {"blocks": blocks, "block_size": block_size, "margin": margin}
    header = _header(path, config, cut, then)
    if previous is not None:
        check_same(path, header["data"], then["data"])
        _check_settings(previous.path, header, then)
    folder = previous.path if previous else _make_folder(out, path)
    write_json(folder / "config.json", header)
    with _says_how_to_go_on(folder, jobs):
        at_work = Jobs(jobs, folder.resolve() / "jobs", device, threads)
        _run_jobs(at_work, folder, header, report, _repeat(folder, jobs))
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
    """Return the run that is continued, or None."""
    where = Path(resume) if resume is not None else Path(out) if out is not None else None
    if resume is not None:
        run = open_run(resume)
        if not run.in_blocks:
            raise CheckpointError(
                f"{resume} is not in blocks; continue with ngp fit-image --resume"
            )
        return run
    if where is not None and not list_checkpoints(where) and read_blocks(where):
        return open_run(where)
    check_out(where)
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


def _check_settings(run: Path, now: dict[str, Any], then: dict[str, Any]) -> None:
    """Raise ConfigError unless a run is continued with the settings that its blocks have."""
    for name in ("edges_x", "edges_y", "margin", "config"):
        for what, a, b in _differences(name, now[name], then[name]):
            raise ConfigError(
                f"{run} has blocks fitted with {what} {b}, not {a}; to have another, start a new "
                "run"
            )


def _differences(name: str, now: Any, then: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(now, dict) and isinstance(then, dict):
        for key in now:
            if key not in _MAY_CHANGE:
                yield from _differences(key, now[key], then.get(key))
    elif now != then:
        yield name, now, then


def _make_folder(out: str | Path | None, source: Path) -> Path:
    with new_folder(Path(out) if out is not None else None, source, COMMAND) as folder:
        (folder / "checkpoints").rmdir()  # those are the blocks'
        for name in ("blocks", "jobs"):
            (folder / name).mkdir(exist_ok=True)
    return folder


@contextmanager
def _says_how_to_go_on(folder: Path, jobs: JobSettings) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; what was running is saved; continue with {_repeat(folder, jobs)}"
        ) from None


def _repeat(folder: Path, jobs: JobSettings) -> str:
    return f"ngp {COMMAND} --resume {folder}{jobs.flags()}"


def _run_jobs(
    jobs: Jobs, folder: Path, header: dict[str, Any], report: Report, repeat: str
) -> None:
    """Fit what is not finished, and measure the whole.

    Raises:
        BlocksFailed: some jobs failed, or ended without being asked to.
    """
    cells = list(Layout.from_dict(header).cells())
    left = [at for at in cells if not is_finished(block_folder(folder, *at))]
    if left:
        (folder / "metrics.json").unlink(missing_ok=True)
        message = f"{len(left)} of {len(cells)} blocks to fit, jobs and their logs in {folder}/jobs"
        report(Progress(stage="blocks", message=message))
        works = [Work(folder.resolve(), at, jobs.place()) for at in left]
        ended = jobs.run_all(works, watcher(folder, left, len(cells), report))
        _check(ended, len(cells), repeat)
    if not (folder / "metrics.json").is_file():
        whole = Work(folder.resolve(), None, jobs.place())
        ended = jobs.run_all([whole], measuring_watcher(folder, report))
        _check(ended, len(cells), repeat)


def _check(ended: list[Outcome], total: int, repeat: str) -> None:
    failed = [
        {"name": o.work.name, "error": o.error or o.state, "log": str(o.log)}
        for o in sorted(ended, key=lambda o: o.work.name)
        if o.state != "done"
    ]
    if failed:
        raise BlocksFailed(failed, total, repeat)
