"""Photos of a scene to memory: each decoded once, into one array that is allocated once.

8-bit photos stay 8-bit. One photo with more makes all of them float16, and one of linear light
(EXR, Radiance HDR, float TIFF or NPY) makes all of them linear. Opacity is straight: colours are
not multiplied by it, also those of EXR files, which are stored multiplied. A file with several
pictures (animations, pages) counts as its first.
"""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ngp_warp import memory
from ngp_warp.config import check_range
from ngp_warp.errors import DataError, ResourceError
from ngp_warp.files import format_bytes
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.nerf.downscale import MIN_SIDE, reduced_size, scale_lens
from ngp_warp.primitives.nerf.maps import check_depth, check_mask, read_depth, read_mask
from ngp_warp.primitives.nerf.photo_files import (
    PhotoFile,
    Size,
    decoders,
    find_reduced,
    open_all,
    reduced_sizes,
    unmuted,
)
from ngp_warp.primitives.nerf.pixels import Conversion, convert
from ngp_warp.primitives.nerf.types import Photos, View
from ngp_warp.rays.lenses import Lens

_MOST_DOWNSCALE = 64


@dataclass(frozen=True)
class _Plan:
    """What is going to be decoded, and what it takes."""

    views: tuple[View, ...]
    downscale: float
    threads: int
    files: list[PhotoFile]
    sizes: list[Size]
    """In memory."""
    masks: list[PhotoFile | None]
    depths: list[PhotoFile | None]
    reduced: bool
    """Whether the files are the reduced copies of a data set."""

    @property
    def n_pixels(self) -> int:
        return sum(width * height for width, height in self.sizes)

    @property
    def deep(self) -> bool:
        return any(file.source.dtype != "uint8" for file in self.files)

    @property
    def linear(self) -> bool:
        return any(file.source.hdr for file in self.files)

    def bytes(self) -> dict[str, int]:
        needed = {"photos": self.n_pixels * (8 if self.deep else 4)}
        if any(self.masks):
            needed["masks"] = self.n_pixels
        if any(self.depths):
            needed["depth maps"] = 4 * self.n_pixels
        # Each thread holds one photo as it is stored, and some bands of floats.
        files = [file for file in (*self.files, *self.masks, *self.depths) if file is not None]
        most = max(file.working_bytes for file in files)
        needed["decoding"] = min(self.threads, len(files)) * (most + (1 << 26))
        return needed


def estimate_bytes(
    views: Sequence[View], downscale: float | None = None, *, threads: int | None = None
) -> dict[str, int]:
    """Return what ``load_photos`` will take, from the files' headers alone.

    Args:
        views: what to load.
        downscale: as of ``load_photos``; None: 1.
        threads: that decode; None: every core.

    Returns:
        Bytes of "photos", "masks" and "depth maps", which stay, and of "decoding", which does not.

    Raises:
        DataError: a file is missing, broken, or of a size that the scene does not say.
    """
    check_range("--downscale", downscale, 1.0)
    with decoders():
        return _plan(tuple(views), downscale or 1.0, _threads(threads)).bytes()


def load_photos(
    views: Sequence[View],
    *,
    downscale: float | None = None,
    depth_unit: float = 1.0,
    threads: int | None = None,
    report: Report = report_nothing,
    available_bytes: int | None = None,
) -> tuple[Photos, list[Lens]]:
    """Decode the photos, masks and depth maps of views.

    Args:
        views: what to load, in the order of the result.
        downscale: at least 1; the photos' sides are divided by it. A folder ``images_N`` beside
            the photos' ``images`` is used where it has all of them. None: 1, or as much as it
            takes to fit.
        depth_unit: scene units of one unit of the depth maps.
        threads: that decode; None: every core.
        report: told of progress, and of what was decided.
        available_bytes: the most to take; None: what the system has.

    Returns:
        The photos, and each view's lens in pixels of its photo in memory.

    Raises:
        DataError: a file is missing, broken, or of a size that the scene does not say; the first
            in the order of the views.
        ConfigError: a downscale below 1, or one that leaves nothing.
        ResourceError: too little memory.
    """
    check_range("--downscale", downscale, 1.0)
    if not views:
        raise DataError("no photos to load: the scene has no views of this kind")
    available = memory.available_bytes() if available_bytes is None else available_bytes
    say = unmuted(report)
    with decoders():
        plan = _fitting_plan(tuple(views), downscale, _threads(threads), available, say)
        photos = _decode(plan, depth_unit, say)
    return photos, [scale_lens(v.lens, s) for v, s in zip(views, plan.sizes, strict=True)]


def _threads(threads: int | None) -> int:
    return threads or os.cpu_count() or 1


def _plan(views: tuple[View, ...], downscale: float, threads: int) -> _Plan:
    """Read all headers."""
    full = [(view.lens.width, view.lens.height) for view in views]
    reduced = find_reduced(views, downscale)
    if reduced is None:
        sizes = [reduced_size(size, downscale) for size in full]
        files = open_all([view.image for view in views], [[size] for size in full], threads)
    else:
        expected = [reduced_sizes(size, downscale) for size in full]
        files = open_all(reduced, expected, threads)
        sizes = [file.size for file in files]
    allowed = [[size, *file] for size, file in zip(full, [[s] for s in sizes], strict=True)]
    masks = _maps([view.mask for view in views], allowed, threads, check_mask)
    depths = _maps([view.depth for view in views], allowed, threads, check_depth)
    return _Plan(views, downscale, threads, files, sizes, masks, depths, reduced is not None)


def _maps(
    paths: Sequence[Path | None],
    sizes: Sequence[Sequence[Size]],
    threads: int,
    check: Callable[[PhotoFile], None],
) -> list[PhotoFile | None]:
    """Return the opened masks or depth maps; None where a view has none."""
    given = [(path, size) for path, size in zip(paths, sizes, strict=True) if path is not None]
    opened = open_all([path for path, _ in given], [size for _, size in given], threads)
    for file in opened:
        check(file)
    files = iter(opened)
    return [None if path is None else next(files) for path in paths]


def _fitting_plan(
    views: tuple[View, ...], downscale: float | None, threads: int, available: int, say: Report
) -> _Plan:
    """Return the plan of the given downscale, or of the least that fits.

    Raises:
        ResourceError: it does not fit.
    """
    plan = _plan(views, downscale or 1.0, threads)
    needed = first = sum(plan.bytes().values())
    least = math.ceil(plan.downscale)
    smallest = min(min(view.lens.width, view.lens.height) for view in views)
    most = min(_MOST_DOWNSCALE, smallest // MIN_SIDE)
    while needed > available and least < most:
        # Decoding does not shrink with it: the quotient is where to begin.
        least = max(least + 1, min(most, int(math.sqrt(needed / available) * least)))
        smaller = _plan(views, least, threads)
        needed = sum(smaller.bytes().values())
        if downscale is None:
            plan = smaller
    what = f"{len(views)} photos take {format_bytes(first)} of memory and "
    what += f"{format_bytes(available)} are available"
    if needed > available:
        raise ResourceError(f"{what}: not even --downscale {least} fits; give fewer or smaller")
    if downscale is not None and first > available:
        raise ResourceError(f"{what}: give --downscale {least}")
    if plan.downscale > 1 and downscale is None:
        text = f"{what}: reduced {least} times (--downscale {least})"
        say(Progress(stage="load", total=len(views), message=text))
    if plan.reduced:
        folder = plan.files[0].path.parent
        text = f"the reduced photos of {folder} are used as they are"
        say(Progress(stage="load", total=len(views), message=text))
    return plan


def _decode(plan: _Plan, depth_unit: float, say: Report) -> Photos:
    """Decode everything into arrays that are allocated here."""
    counts = [width * height for width, height in plan.sizes]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    linear = plan.linear
    if linear and not all(file.source.hdr for file in plan.files):
        text = "some photos are of linear light: the sRGB ones are made linear too"
        say(Progress(stage="load", total=len(counts), message=text))
    try:
        pixels = np.empty((plan.n_pixels, 4), np.float16 if plan.deep else np.uint8)
        masks = np.empty(plan.n_pixels, np.uint8) if any(plan.masks) else None
        depths = np.empty(plan.n_pixels, np.float32) if any(plan.depths) else None
    except MemoryError as error:
        raise ResourceError("not enough memory for the photos: give --downscale") from error

    def work(i: int) -> bool:
        file, (width, height) = plan.files[i], plan.sizes[i]
        own = slice(offsets[i], offsets[i + 1])
        mask, depth = plan.masks[i], plan.depths[i]
        if masks is not None:
            masks[own] = 255 if mask is None else read_mask(mask, plan.sizes[i]).ravel()
        if depths is not None:
            depths[own] = (
                0 if depth is None else read_depth(depth, plan.sizes[i], depth_unit).ravel()
            )
        how = Conversion(linear and not file.source.hdr, file.source.format == "exr")
        return convert(file, pixels[own].reshape(height, width, 4), how)

    transparent = _in_order(work, len(counts), plan.threads, say)
    return Photos(
        downscale=plan.downscale,
        pixels=pixels,
        offsets=offsets,
        sizes=np.array(plan.sizes, np.int32),
        masks=masks,
        depths=depths,
        has_alpha=any(transparent),
        color_space="linear" if linear else "srgb",
    )


def _in_order(work: Callable[[int], bool], n: int, threads: int, say: Report) -> list[bool]:
    """Return work(0..n-1) of a pool of threads; the first that raises ends all."""
    results = []
    pool = ThreadPoolExecutor(threads, thread_name_prefix="photos")
    try:
        futures = [pool.submit(work, i) for i in range(n)]
        for i, future in enumerate(futures):
            results.append(future.result())
            say(Progress(stage="load", step=i + 1, total=n))
    finally:
        pool.shutdown(cancel_futures=True)
    return results
