"""Gigapixel images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ngp_warp.errors import ConfigError
from ngp_warp.primitive import Primitive, Report, check_same, report_nothing
from ngp_warp.primitives.image.config import ImageConfig, parse_box


def _load(source: Path, config: ImageConfig, report: Report) -> Any:
    from ngp_warp.primitives.image.data import load_image

    cache_dir = Path(config.cache_dir) if config.cache_dir else None
    return load_image(source, cache_dir=cache_dir, crop=parse_box(config.crop))


def _estimate(image: Any, config: ImageConfig, device: str) -> tuple[ImageConfig, dict[str, int]]:
    from ngp_warp.primitives.image.task import estimate

    return estimate(image, config, device)


def _build(image: Any, config: ImageConfig, device: str) -> Any:
    from ngp_warp.primitives.image.task import ImageTask

    return ImageTask(image, config, device)


def _describe(image: Any) -> dict[str, Any]:
    info = image.info
    return {
        "n_dims": 2,
        "n_outputs": info.channels,
        "width": info.width,
        "height": info.height,
        "channels": list(info.channel_names),
        "dtype": info.dtype,
        "tone_map": not image.unit_range,
        "digest": image.digest(),
    }


def _render(run: Any, output: Path, **options: Any) -> None:
    from ngp_warp.primitives.image.render import render

    render(run, output, **options)


def _fitted(run: Any) -> Any:
    from ngp_warp.decode import load_field
    from ngp_warp.primitives.image.blocks.mosaic import Mosaic

    return Mosaic(run) if run.in_blocks else load_field(run)


def _describe_blocks(run: Any) -> dict[str, Any]:
    from ngp_warp.primitives.image.blocks.report import describe

    return describe(run)


def _evaluate(run: Any, *, progress: Report = report_nothing) -> dict[str, Any]:
    from ngp_warp.primitives.image.evaluate import measure

    if run.in_blocks:
        from ngp_warp.primitives.image.blocks.evaluate import measure_blocks

        return measure_blocks(run, progress)[0]
    image = _load(run.source, run.config, progress)
    check_same(run.source, _describe(image), run.header["data"])
    return measure(run.fitted, image, run.config, progress)[0]


def _export_dzi(run: Any, output: Path | None = None, **options: Any) -> dict[str, Any]:
    from ngp_warp.primitives.image.export import export_dzi

    return {"output": export_dzi(run, output, **options)}


def _export_compact(run: Any, output: Path | None = None, **options: Any) -> dict[str, Any]:
    from ngp_warp.compact import export_compact

    if run.in_blocks:
        raise ConfigError(f"{run.path} is in blocks; export each of them: {run.path}/blocks/*")
    return export_compact(run, output, **options)


def _picture_exporter(suffix: str) -> Callable[..., dict[str, Any]]:
    def export(run: Any, output: Path | None = None, **options: Any) -> dict[str, Any]:
        from ngp_warp.primitives.image.export import export_picture

        return {"output": export_picture(run, output, suffix=suffix, **options)}

    return export


def _query(run: Any, points: Any, gradient: bool) -> Any:
    from ngp_warp.primitives.image.transfer import in_units

    field = run.fitted
    if run.in_blocks:
        return field.query(points, gradient=gradient)
    if gradient:
        return in_units(run.config, *field.value_and_gradient(points))
    return in_units(run.config, field.query(points), None)


PRIMITIVE = Primitive(
    name="image",
    command="fit-image",
    config=ImageConfig,
    load=_load,
    estimate=_estimate,
    build=_build,
    describe=_describe,
    describe_blocks=_describe_blocks,
    fitted=_fitted,
    fixed=frozenset({"crop"}),
    render=_render,
    render_options=frozenset({"width", "scale", "crop"}),
    exporters={
        "compact": _export_compact,
        "dzi": _export_dzi,
        **{suffix: _picture_exporter(suffix) for suffix in ("png", "tif", "exr", "jpg", "npy")},
    },
    evaluate=_evaluate,
    query=_query,
)
