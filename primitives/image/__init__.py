"""Gigapixel images."""

from pathlib import Path
from typing import Any

from ngp_warp.errors import DataError
from ngp_warp.primitive import Primitive, Report
from ngp_warp.primitives.image.config import ImageConfig


def _load(source: Path, config: ImageConfig, report: Report) -> Any:
    from ngp_warp.primitives.image.data import load_image

    cache_dir = Path(config.cache_dir) if config.cache_dir else None
    return load_image(source, cache_dir=cache_dir)


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
    }


def _render(run: Any, output: Path, **options: Any) -> None:
    from ngp_warp.primitives.image.render import render

    render(run, output, **options)


def _evaluate(run: Any, *, progress: Report) -> dict[str, Any]:
    from ngp_warp.decode import load_field
    from ngp_warp.primitives.image.evaluate import measure

    image = _load(run.source, run.config, progress)
    if _describe(image) != run.header["data"]:
        raise DataError(
            f"{run.source} is not what the run was fitted to: {_describe(image)} now, "
            f"{run.header['data']} then"
        )
    return measure(load_field(run), image, run.config, progress)[0]


def _export_dzi(run: Any, output: Path, *, progress: Report) -> None:
    from ngp_warp.primitives.image.export import export_dzi

    export_dzi(run, output, progress=progress)


PRIMITIVE = Primitive(
    name="image",
    command="fit-image",
    config=ImageConfig,
    load=_load,
    estimate=_estimate,
    build=_build,
    describe=_describe,
    render=_render,
    exporters={"dzi": _export_dzi},
    evaluate=_evaluate,
)
