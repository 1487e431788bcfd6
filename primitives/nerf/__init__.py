"""Radiance fields from photos (Mildenhall et al. 2020; Mueller et al. 2022, section 5.4)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ngp_warp.primitive import Primitive, Report, report_nothing
from ngp_warp.primitives.nerf.config import NerfConfig
from ngp_warp.primitives.nerf.options import EXPORT_OPTIONS, RENDER_OPTIONS


def _load(source: Path, config: NerfConfig, report: Report) -> Any:
    from ngp_warp.primitives.nerf.data import load

    return load(source, config, report)


def _estimate(data: Any, config: NerfConfig, device: str) -> tuple[NerfConfig, dict[str, int]]:
    from ngp_warp.primitives.nerf.task import estimate

    return estimate(data, config, device)


def _build(data: Any, config: NerfConfig, device: str) -> Any:
    from ngp_warp.primitives.nerf.task import NerfTask

    return NerfTask(data, config, device)


def _describe(data: Any) -> dict[str, Any]:
    return data.describe()


def _resumed(config: NerfConfig, described: dict[str, Any]) -> NerfConfig:
    from ngp_warp.primitives.nerf.model import resumed

    return resumed(config, described)


def _fitted(run: Any) -> Any:
    from ngp_warp.primitives.nerf.model import load_model

    return load_model(run)


def _render(run: Any, output: Path, **options: Any) -> None:
    from ngp_warp.primitives.nerf.output import render

    render(run, output, **options)


def _evaluate(run: Any, *, progress: Report = report_nothing) -> dict[str, Any]:
    from ngp_warp.primitives.nerf.finish import evaluate_again

    return evaluate_again(run, progress)


def _query(run: Any, points: Any, gradient: bool) -> Any:
    from ngp_warp.primitives.nerf.query import query

    return query(run, points, gradient)


def _render_rays(run: Any, rays_o: Any, rays_d: Any) -> Any:
    from ngp_warp.primitives.nerf.query import render_rays

    return render_rays(run, rays_o, rays_d)


def _exporter(name: str) -> Callable[..., dict[str, Any]]:
    def export(run: Any, output: Path | None = None, **options: Any) -> dict[str, Any]:
        from ngp_warp.primitives.nerf.exports import export_run

        return export_run(run, output, format_name=name, **options)

    return export


PRIMITIVE = Primitive(
    name="nerf",
    command="nerf",
    config=NerfConfig,
    load=_load,
    estimate=_estimate,
    build=_build,
    describe=_describe,
    resumed=_resumed,
    fitted=_fitted,
    render=_render,
    render_options=RENDER_OPTIONS,
    exporters={name: _exporter(name) for name in EXPORT_OPTIONS},
    export_options=EXPORT_OPTIONS,
    evaluate=_evaluate,
    query=_query,
    render_rays=_render_rays,
)
