"""Signed distance fields of meshes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ngp_warp.errors import ConfigError
from ngp_warp.primitive import Primitive, Report, report_nothing
from ngp_warp.primitives.sdf.config import SdfConfig

_MESH_FORMATS = ("obj", "ply", "stl", "glb")
_RENDER_OPTIONS = frozenset(
    {"width", "height", "camera", "camera_path", "up", "spp", "show", "frames", "fps"}
)


def _load(source: Path, config: SdfConfig, report: Report) -> Any:
    from ngp_warp.primitives.sdf.data import load

    return load(source, config, report)


def _estimate(data: Any, config: SdfConfig, device: str) -> tuple[SdfConfig, dict[str, int]]:
    from ngp_warp.primitives.sdf.task import estimate

    return estimate(data, config, device)


def _build(data: Any, config: SdfConfig, device: str) -> Any:
    from ngp_warp.primitives.sdf.task import SdfTask

    return SdfTask(data, config, device)


def _describe(data: Any) -> dict[str, Any]:
    return data.describe()


def _resumed(config: SdfConfig, described: dict[str, Any]) -> SdfConfig:
    """Keep the sign method that was chosen, whatever would be chosen today."""
    sign = described["sign"]
    if config.sign not in ("auto", sign):
        raise ConfigError(f"the run has --sign {sign}; to have another, fit the mesh anew")
    return replace(config, sign=sign)


def _render(run: Any, output: Path, **options: Any) -> None:
    from ngp_warp.primitives.sdf.output import render

    render(run, output, **options)


def _evaluate(run: Any, *, progress: Report = report_nothing) -> dict[str, Any]:
    from ngp_warp.primitives.sdf.data import load_again
    from ngp_warp.primitives.sdf.evaluate import evaluate_field

    data = load_again(run, progress)
    return evaluate_field(run.fitted, data, run.config, progress)[0]


def _query(run: Any, points: Any, gradient: bool) -> Any:
    from ngp_warp.primitives.sdf.query import query

    return query(run, points, gradient)


def _trace(run: Any, rays_o: Any, rays_d: Any) -> Any:
    from ngp_warp.primitives.sdf.query import trace

    return trace(run, rays_o, rays_d)


def _exporter(suffix: str) -> Callable[..., dict[str, Any]]:
    def export(run: Any, output: Path | None = None, **options: Any) -> dict[str, Any]:
        from ngp_warp.primitives.sdf.exports import export_run

        return export_run(run, output, suffix=suffix, **options)

    return export


def _export_compact(run: Any, output: Path | None = None, **options: Any) -> dict[str, Any]:
    from ngp_warp.compact import export_compact

    return export_compact(run, output, **options)


def _meshes(run: Any, **options: Any) -> Any:
    from ngp_warp.primitives.sdf.exports import meshes

    return meshes(run, **options)


PRIMITIVE = Primitive(
    name="sdf",
    command="fit-sdf",
    config=SdfConfig,
    load=_load,
    estimate=_estimate,
    build=_build,
    describe=_describe,
    resumed=_resumed,
    render=_render,
    render_options=_RENDER_OPTIONS,
    exporters={
        "compact": _export_compact,
        **{suffix: _exporter(suffix) for suffix in (*_MESH_FORMATS, "npz", "nvdb")},
    },
    export_options={
        **dict.fromkeys(_MESH_FORMATS, frozenset({"resolution", "faces", "largest_only"})),
        "npz": frozenset({"resolution"}),
        "nvdb": frozenset({"resolution"}),
    },
    evaluate=_evaluate,
    query=_query,
    trace=_trace,
    meshes=_meshes,
)
