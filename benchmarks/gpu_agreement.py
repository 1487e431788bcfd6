"""The CPU against CUDA, kernel by kernel: the rows, what no row reaches, and how they are run.

Where there is no GPU, the CPU's own kernels are compared with those that serve CUDA, which run on a
CPU too; rows for which both are one code are computed and not compared.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import (
    gpu_rows_encodings,
    gpu_rows_fields,
    gpu_rows_networks,
    gpu_rows_photos,
    gpu_rows_solids,
    report,
)
from benchmarks.gpu_compare import Row, Side, run_row

NOT_COMPARED = {
    "ngp_warp.kernels.radiance_counts.latents_kernel": "only the CPU's fused step launches it",
}
"""Kernels that are compiled for CUDA and that no row launches, and why."""


def all_rows(small: bool) -> list[Row]:
    """Return every row, those of the usual training steps first."""
    return [
        *gpu_rows_encodings.rows(small),
        *gpu_rows_networks.rows(small),
        *gpu_rows_fields.rows(small),
        *gpu_rows_photos.rows(small),
        *gpu_rows_solids.rows(small),
    ]


def part_of(rows: Sequence[Row], number: int, of: int) -> list[Row]:
    """Return every ``of``-th row: expensive neighbours are dealt to different workers."""
    return list(rows[number::of])


def run(
    rows: Sequence[Row],
    device: str,
    seconds: float,
    begun: Callable[[str], None] = lambda name: None,
) -> Iterator[dict[str, Any]]:
    """Yield each row's result; one of a row that failed says how, and the others follow.

    Args:
        rows: what is compared.
        device: "cpu" or a CUDA device.
        seconds: after which no further row is begun.
        begun: called with a row's name before it is run: it may end the process.
    """
    end = time.perf_counter() + seconds
    reference, side = Side("cpu", False), Side(device, True)
    for row in rows:
        if time.perf_counter() > end:
            yield {"row": row.name, "ok": None, "not_run": True, "why": "no time was left"}
            continue
        begun(row.name)
        try:
            yield run_row(row, reference, side)
        except ModuleNotFoundError as error:
            yield {"row": row.name, "ok": None, "not_run": True, "why": str(error)}
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            yield {"row": row.name, "ok": False, "why": why[:500]}


def completed(found: Sequence[dict[str, Any]], small: bool) -> list[dict[str, Any]]:
    """Return the rows in their order, with those that a process did not come to."""
    by_name = {row["row"]: row for row in found}
    missing = {"ok": None, "not_run": True, "why": "no time was left"}
    names = [row.name for row in all_rows(small)]
    rows = [by_name.get(name, {"row": name, **missing}) for name in names]
    return rows + [row for name, row in by_name.items() if name not in names]


def lost(device: str) -> bool:
    """Return whether a CUDA device no longer answers, as after an illegal address."""
    if device == "cpu":
        return False
    import warp as wp

    try:
        array = wp.full(32, 2.0, dtype=float, device=device)
        return not bool(np.all(array.numpy() == 2.0))
    except Exception:
        return True


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the rows with their counts and the kernels that were reached."""
    oks = [row["ok"] for row in found]
    kernels = sorted({name for row in found for name in row.get("kernels", [])})
    return {
        "passed": oks.count(True),
        "failed": oks.count(False),
        "not_compared": oks.count(None),
        "not_run": sum(bool(row.get("not_run")) for row in found),
        "rows": [{k: v for k, v in row.items() if k != "kernels"} for row in found],
        "kernels": kernels,
        "kernels_not_compared": NOT_COMPARED,
    }


def describe(results: dict[str, Any]) -> str:
    """Return the rows as plain text: all that failed, and the worst error of the others."""
    table = [["row", "worst array", "error", "limit", ""]]
    for row in results["rows"]:
        arrays = row.get("arrays", {})
        name = max(arrays, key=lambda n: _excess(arrays[n]), default="")
        cells = ["", "", ""]
        if name:
            found = arrays[name]
            error = "" if found["error"] is None else f"{found['error']:.1e}"
            cells = [name, error, f"{found['limit']:.0e}"]
        verdict = {True: "ok", False: "FAILED", None: "-"}[row["ok"]]
        why = row.get("why") or arrays.get(name, {}).get("why", "")
        table.append([row["row"], *cells, f"{verdict} {why}".strip()])
    counts = (
        f"{results['passed']} rows agree, {results['failed']} do not, "
        f"{results['not_compared']} were not compared, {results['not_run']} of them not run"
    )
    return f"{counts}\n\n{report.table(table)}"


def _excess(array: dict[str, Any]) -> float:
    """Return an array's error as a multiple of its limit; failures without a number come first."""
    if array["error"] is None:
        return float("inf")
    if not array["limit"]:
        return float("inf") if array["error"] else 0.0
    return array["error"] / array["limit"]
