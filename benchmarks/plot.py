"""A plain line plot, drawn with Pillow."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ngp_warp.files import atomic_path

_SIZE = (1200, 800)
_BOX = (110, 80, 1160, 700)  # left, top, right, bottom of the axes, in pixels
_COLORS = ("#0b6fb8", "#d1491b", "#3a8f3a", "#7a4fa3", "#b58900", "#444444")
_GRAY, _BLACK = "#cccccc", "#222222"
_N_TICKS = 6


def ticks(low: float, high: float) -> list[float]:
    """Return two or more round numbers at equal distances that span low to high."""
    raw = max(high - low, 1.0) / _N_TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(k * power for k in (1, 2, 5, 10) if k * power >= raw * (1 - 1e-9))
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [round(i * step, 9) for i in range(first, last + 1)]


def line_plot(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    path: Path,
    *,
    title: str,
    x_label: str,
    y_label: str,
    from_zero: bool = True,
) -> None:
    """Draw curves of (x, y) points to a PNG, x from 0 on if ``from_zero``.

    Raises:
        ResourceError: it cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    places = [x for points in curves.values() for x, _ in points]
    x_ticks = ticks(0.0 if from_zero else min(places), max(places))
    values = [y for points in curves.values() for _, y in points]
    y_ticks = ticks(min(values), max(values))
    left, top, right, bottom = _BOX

    def place(x: float, y: float) -> tuple[float, float]:
        u = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        v = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return left + u * (right - left), bottom - v * (bottom - top)

    image = Image.new("RGB", _SIZE, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(22)
    for y in y_ticks:
        at = place(x_ticks[0], y)[1]
        draw.line([(left, at), (right, at)], fill=_GRAY)
        draw.text((left - 12, at), f"{y:g}", fill=_BLACK, font=font, anchor="rm")
    for x in x_ticks:
        at = place(x, y_ticks[0])[0]
        draw.text((at, bottom + 12), f"{x:g}", fill=_BLACK, font=font, anchor="mt")
    draw.text((left, 20), title, fill=_BLACK, font=font)
    draw.text(((left + right) / 2, bottom + 55), x_label, fill=_BLACK, font=font, anchor="mt")
    draw.text((left, top - 10), y_label, fill=_BLACK, font=font, anchor="ls")
    for i, (name, points) in enumerate(curves.items()):
        color, at = _COLORS[i % len(_COLORS)], [place(*point) for point in points]
        draw.line(at, fill=color, width=3)
        for x, y in at:
            draw.ellipse([x - 6, y - 6, x + 6, y + 6], fill=color)
        corner = (right - 10, bottom - 30 * (len(curves) - i))
        draw.text(corner, name, fill=color, font=font, anchor="rt")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")
