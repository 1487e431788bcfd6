"""``python -m benchmarks gigapixel``: memory and quality where the image does not fit in memory."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, thumbnail
from ngp_warp import launch
from ngp_warp.errors import DataError, NgpError
from ngp_warp.files import format_bytes
from ngp_warp.primitives.image.data import load_image

GOAL_BYTES = 4 << 30
"""Anonymous resident memory at most."""
GOAL_DB = 3.0
"""How much better than the enlarged thumbnail at least."""
_SAMPLE_SECONDS = 0.2


def run(
    image: Path,
    seconds: float,
    out: Path,
    *,
    crop: str,
    cache_dir: Path | None,
    fit_flags: Sequence[str] = (),
) -> dict[str, Any]:
    """Fit the image and decode a crop in processes of their own, watching their memory.

    What counts is the size of the values; of a run with ``encoding.quantization`` that of the whole
    compact export, from which the crop is decoded.

    Args:
        image: an 8-bit RGB image.
        seconds: training time.
        out: the run's folder.
        crop: "x,y,w,h".
        cache_dir: where the decoded pixels of an image larger than memory are kept.
        fit_flags: more flags of ``ngp fit-image``.

    Raises:
        NgpError: a command said what was wrong, or the system does not tell a process's memory.
    """
    # Pages of a mapped file are no anonymous memory, whoever maps it.
    pixels = load_image(image, cache_dir=cache_dir, max_bytes=0).pixels
    if pixels.dtype != np.uint8 or pixels.shape[2] != 3:
        raise DataError(f"{image} must be 8-bit RGB, it is {pixels.dtype} {pixels.shape}")
    threads = ["--threads", str(launch.num_threads())]
    cache = ["--cache-dir", str(cache_dir)] if cache_dir else []
    fit = ["fit-image", str(image), "--seconds", f"{seconds:g}", "--out", str(out)]
    metrics, fit_peak = watched([*fit, *threads, *cache, *fit_flags, "--json"])
    n_bytes, decoded = int(metrics["bytes"]), str(out)
    settings = json.loads((out / "config.json").read_text())["config"]
    if settings["encoding"]["quantization"]:
        exported, _ = watched(["export", str(out), "--format", "compact", "--json"])
        decoded = exported["output"]
        n_bytes = Path(decoded).stat().st_size
    picture = out / "renders" / "crop.png"
    render = ["render", decoded, "--crop", crop, "-o", str(picture)]
    _, render_peak = watched([*render, "--json"])
    raw = thumbnail.raw_thumbnail(pixels, n_bytes)
    rows = {"8-bit pixels": _row(pixels, raw, raw.nbytes)}
    rows["PNG"] = _row(pixels, *thumbnail.png_thumbnail(pixels, n_bytes))
    return {
        "image": image.name,
        "metrics": metrics,
        "bytes": n_bytes,
        "peak_anonymous_bytes": {"fit-image": fit_peak, "render --crop": render_peak},
        "thumbnails": rows,
        "crop": str(picture),
    }


def _row(pixels: np.ndarray, small: np.ndarray, n_bytes: int) -> dict[str, Any]:
    return {
        "width": small.shape[1],
        "height": small.shape[0],
        "bytes": n_bytes,
        "psnr": thumbnail.enlarged_psnr(pixels, small),
    }


def watched(arguments: Sequence[str]) -> tuple[dict[str, Any], int]:
    """Run ``ngp`` with ``--json`` and return its answer and its peak anonymous memory in bytes.

    Raises:
        NgpError: its error, or this system has no /proc/PID/status.
    """
    command = [sys.executable, "-m", "ngp_warp.cli.app", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, _anonymous_bytes(process.pid))
            time.sleep(_SAMPLE_SECONDS)
        assert process.stdout is not None
        answer = process.stdout.read()
    if not answer:
        raise NgpError(f"ngp {arguments[0]} ended with status {process.returncode}, see above")
    values = json.loads(answer)
    if process.returncode:
        raise NgpError(f"ngp {arguments[0]}: {values.get('error')}")
    return values, peak


def _anonymous_bytes(pid: int) -> int:
    """Return RssAnon of a process; 0 where it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError as error:
        if not Path("/proc/self/status").exists():
            raise NgpError(
                "the memory of a process is read from /proc, which is missing"
            ) from error
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def describe(results: dict[str, Any]) -> str:
    """Return the results as plain text."""
    metrics, raw = results["metrics"], results["thumbnails"]["8-bit pixels"]
    rows = [["", "PSNR, dB", "bytes", "size"]]
    size = f"{metrics['width']}x{metrics['height']}"
    rows.append(["the field", f"{metrics['psnr']:.2f}", format_bytes(results["bytes"]), size])
    for name, t in results["thumbnails"].items():
        cells = [f"{t['psnr']:.2f}", format_bytes(t["bytes"]), f"{t['width']}x{t['height']}"]
        if cells[2] == size:
            cells[0] = "exact"
        rows.append([f"thumbnail as {name}, enlarged", *cells])
    gain = metrics["psnr"] - raw["psnr"]
    memory = [["command", "peak anonymous memory", "goal"]]
    memory += [
        [name, f"{peak / 2**30:.2f} GiB", f"at most {GOAL_BYTES / 2**30:g} GiB"]
        for name, peak in results["peak_anonymous_bytes"].items()
    ]
    return (
        f"{results['image']}, {metrics['seconds']:.0f} s of training, over all pixels\n\n"
        f"{report.table(rows)}\n\nbetter than the thumbnail as 8-bit pixels by {gain:.2f} dB "
        f"(at least {GOAL_DB:g})\n\n{report.table(memory)}\n\ncrop {results['crop']}"
    )
