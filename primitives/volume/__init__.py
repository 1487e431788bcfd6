"""Volumes: grids of values, and media that scatter light."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ngp_warp.primitive import Primitive, Report, report_nothing
from ngp_warp.primitives.volume.config import VolumeConfig
from ngp_warp.primitives.volume.options import EXPORT_OPTIONS, RENDER_OPTIONS


def _load(source: Path, config: VolumeConfig, report: Report) -> Any:
    from ngp_warp.primitives.volume.describe import load

    return load(source, config, report)


def _estimate(volume: Any, config: VolumeConfig, device: str) -> tuple[Any, dict[str, int]]:
    from ngp_warp.primitives.volume.task import estimate

    return estimate(volume, config, device)


def _build(volume: Any, config: VolumeConfig, device: str) -> Any:
    if config.mode == "radiance":
        from ngp_warp.primitives.volume.radiance_task import RadianceTask

        return RadianceTask(volume, config, device)
    from ngp_warp.primitives.volume.task import DensityTask

    return DensityTask(volume, config, device)


def _describe(volume: Any) -> dict[str, Any]:
    from ngp_warp.primitives.volume.describe import describe

    return describe(volume)


def _fitted(run: Any) -> Any:
    if run.config.mode == "radiance":
        from ngp_warp.primitives.volume.radiance_field import load_radiance_field

        return load_radiance_field(run)
    from ngp_warp.decode import load_field

    return load_field(run)


def _render(run: Any, output: Path, **options: Any) -> None:
    from ngp_warp.primitives.volume.output import render

    render(run, output, **options)


def _evaluate(run: Any, *, progress: Report = report_nothing) -> dict[str, Any]:
    from ngp_warp.primitives.volume.subject import Subject

    volume = Subject.of(run).original(progress)
    if run.config.mode == "radiance":
        from ngp_warp.primitives.volume.radiance_evaluate import measure
        from ngp_warp.primitives.volume.radiance_task import make_medium

        medium = make_medium(volume, run.config, run.fitted.device)
        return measure(run.fitted, medium, run.config, progress)[0]
    from ngp_warp.primitives.volume.evaluate import evaluate_field

    return evaluate_field(run.fitted, volume, progress)[0]


def _query(run: Any, points: Any, gradient: bool) -> Any:
    from ngp_warp.primitives.volume.query import query

    return query(run, points, gradient)


def _exporter(format_name: str) -> Callable[..., dict[str, Any]]:
    def export(run: Any, output: Path | None = None, **options: Any) -> dict[str, Any]:
        from ngp_warp.primitives.volume.export import export_run

        return export_run(run, output, format_name=format_name, **options)

    return export


def _export_compact(run: Any, output: Path | None = None, **options: Any) -> dict[str, Any]:
    from ngp_warp.compact import export_compact

    return export_compact(run, output, **options)


PRIMITIVE = Primitive(
    name="volume",
    command="fit-volume",
    config=VolumeConfig,
    load=_load,
    estimate=_estimate,
    build=_build,
    describe=_describe,
    fitted=_fitted,
    fixed=frozenset({"mode", "grid", "albedo", "density_scale", "sun", "up"}),
    render=_render,
    render_options=RENDER_OPTIONS,
    exporters={
        "compact": _export_compact,
        **{name: _exporter(name) for name in EXPORT_OPTIONS},
    },
    export_options=EXPORT_OPTIONS,
    evaluate=_evaluate,
    query=_query,
)
