"""How good a radiance field is, on views held back from it; and the pictures that show it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.nerf import pictures
from ngp_warp.primitives.nerf.colors import Color, from_srgb, to_srgb
from ngp_warp.primitives.nerf.metrics import compare
from ngp_warp.primitives.nerf.passes import Buffers
from ngp_warp.primitives.nerf.subject import Subject
from ngp_warp.primitives.nerf.types import Photos

WHITE: Color = (1.0, 1.0, 1.0)
_DEPTHS = 24
"""Depths that are kept for the contact sheet."""

Pair = tuple[np.ndarray, np.ndarray]
"""Picture and truth, float32 [h, w, 3], sRGB."""


@dataclass(frozen=True)
class ViewScore:
    """How near one view comes to its photo."""

    index: int
    """Of the view, in the order of the scene."""
    name: str
    psnr: float | None
    ssim: float | None
    width: int
    height: int


@dataclass(frozen=True)
class Evaluation:
    """Of several views."""

    metrics: dict[str, Any]
    scores: list[ViewScore]
    depths: list[tuple[str, np.ndarray]]
    """Names and depths of some views, reduced."""
    again: Callable[[int], Pair]
    """Number in ``scores`` -> the view's picture and truth, made once more."""


def background_of(photos: Photos, background: Color | None) -> Color | None:
    """Return what views are compared over: white where photos have an opacity, unless told."""
    if background is not None or not photos.has_alpha:
        return background
    return WHITE


def truth_of(photos: Photos, number: int, background: Color | None) -> np.ndarray:
    """Return a photo over a background, float32 [h, w, 3], sRGB 0..1.

    Args:
        photos: in memory.
        number: of the photo.
        background: sRGB; None: its colours as they are. Blended in the photos' colour space.
    """
    width, height = (int(n) for n in photos.sizes[number])
    rows = photos.pixels[int(photos.offsets[number]) : int(photos.offsets[number + 1])]
    values = rows.astype(np.float32).reshape(height, width, 4)
    if rows.dtype == np.uint8:
        values /= np.float32(255)
    color, opacity = values[..., :3], values[..., 3:]
    if background is not None:
        behind = from_srgb(background, photos.color_space)
        color = color * opacity + behind * (1 - opacity)
    return to_srgb(color, photos.color_space)


def mask_of(photos: Photos, number: int) -> np.ndarray | None:
    """Return bool [h, w]: pixels of a photo that count; None: all."""
    if photos.masks is None:
        return None
    width, height = (int(n) for n in photos.sizes[number])
    part = photos.masks[int(photos.offsets[number]) : int(photos.offsets[number + 1])]
    return part.reshape(height, width) > 0


def evaluate_views(
    subject: Subject,
    numbers: Sequence[int],
    photos: Photos,
    *,
    background: Color | None = None,
    progress: Report = report_nothing,
) -> Evaluation:
    """Render views and compare them with their photos, at the photos' size in memory.

    Both are rounded to 8 bits of sRGB before. Pixels that a mask leaves out do not count.

    Args:
        subject: the field and its scene.
        numbers: of the views.
        photos: of these views, in this order.
        background: what both are over, sRGB; None: white where photos have an opacity, else nothing
            (the field is then over its environment, or over black).
        progress: told of the views done.
    """
    background = background_of(photos, background)
    renderer = subject.renderer(background)
    space = subject.field.settings.color_space

    def made(number: int) -> tuple[Buffers, Pair]:
        width, height = (int(n) for n in photos.sizes[number])
        shot = subject.shot(numbers[number], (width, height))
        buffers = renderer.buffers(shot)
        return buffers, (to_srgb(buffers.color, space), truth_of(photos, number, background))

    scores, depths = [], []
    kept = set(np.unique(np.linspace(0, len(numbers) - 1, _DEPTHS).astype(int)).tolist())
    for number, index in enumerate(numbers):
        buffers, (result, truth) = made(number)
        psnr, ssim = compare(result, truth, mask_of(photos, number))
        name, (height, width) = subject.views[index].name, truth.shape[:2]
        scores.append(ViewScore(index, name, psnr, ssim, width, height))
        if number in kept:
            depths.append((name, pictures.reduced(buffers)))
        step = number + 1
        progress(Progress(stage="evaluate", step=step, total=len(numbers), metric=psnr))
    return Evaluation(summary(scores, background), scores, depths, lambda n: made(n)[1])


def summary(scores: Sequence[ViewScore], background: Color | None) -> dict[str, Any]:
    """Return what metrics.json says of views, plain JSON values.

    ``psnr`` and ``ssim`` are means over the views; width and height None where views differ.
    """
    sizes = {(score.width, score.height) for score in scores}
    width, height = sizes.pop() if len(sizes) == 1 else (None, None)
    return {
        "psnr": _mean([score.psnr for score in scores], 3),
        "ssim": _mean([score.ssim for score in scores], 5),
        "n_views": len(scores),
        "width": width,
        "height": height,
        "background": None if background is None else list(background),
        "color_space": "srgb, 8 bit",
        "views": [
            {
                "name": score.name,
                "psnr": _rounded(score.psnr, 3),
                "ssim": _rounded(score.ssim, 5),
            }
            for score in scores
        ],
    }


def write_pictures(
    folder: Path, evaluation: Evaluation, curve: np.ndarray, progress: Report = report_nothing
) -> None:
    """Write best.png, median.png, worst.png, depth.png and learning_curve.png.

    Args:
        folder: the run's renders.
        evaluation: of at least one view.
        curve: float64 [n, 3]: step, seconds, PSNR of the batch.
        progress: told that it is at work.

    Raises:
        ResourceError: the folder cannot be written, or the disk is full.
    """
    from ngp_warp.primitives.pictures import save_png, write_learning_curve

    progress(Progress(stage="write", message="drawing pictures"))
    scored = [i for i, score in enumerate(evaluation.scores) if score.psnr is not None]
    ranked = sorted(scored, key=lambda i: evaluation.scores[i].psnr or 0.0)
    if ranked:
        chosen = {"best": ranked[-1], "median": ranked[len(ranked) // 2], "worst": ranked[0]}
        pairs = {number: evaluation.again(number) for number in set(chosen.values())}
        top = pictures.error_scale([result - truth for result, truth in pairs.values()])
        for name, number in chosen.items():
            score, (result, truth) = evaluation.scores[number], pairs[number]
            title = pictures.caption(score.name, score.psnr, score.ssim)
            save_png(folder / f"{name}.png", pictures.comparison(truth, result, title, top))
    if evaluation.depths:
        save_png(folder / "depth.png", pictures.depth_sheet(evaluation.depths))
    psnr = evaluation.metrics["psnr"]
    end = None if psnr is None else (psnr, f"{len(scored)} views, at the end")
    write_learning_curve(
        folder / "learning_curve.png", curve, "PSNR in dB", "each batch, before its update", end
    )


def _mean(values: Sequence[float | None], digits: int) -> float | None:
    known = [value for value in values if value is not None]
    return _rounded(math.fsum(known) / len(known) if known else None, digits)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
