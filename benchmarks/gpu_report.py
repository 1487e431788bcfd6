"""A result of the GPU benchmark as Markdown, for docs/gpu.md."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import gpu_limits
from benchmarks.gpu_targets import VERDICTS, shown, verdicts

_MB = 2**20


def markdown(results: Mapping[str, Any]) -> str:
    """Return where it was measured, the targets, and a table of each part."""
    versions = ", ".join(f"{k} {v}" for k, v in results.get("versions", {}).items())
    head = [
        results["device_name"],
        f"driver {results.get('driver') or 'unknown'}; {versions}; {results.get('date', '')}",
    ]
    if results.get("commit"):
        head.append(f"commit {results['commit']}")
    text = ", ".join(head)
    if not results.get("finished", True):
        text += ". **It was ended before it had finished.**"
    if results.get("small"):
        text += ". **Small mode: these figures say that it runs, and nothing about speed.**"
    judged = [
        (v["name"], v["wanted"], shown(v["value"], v["unit"]), VERDICTS[v["met"]])
        for v in verdicts(results)
    ]
    lines = [text, "", *_table(("", "wanted", "found", "met"), judged)]
    for name, (columns, rows) in _TABLES.items():
        found = (results.get("parts", {}).get(name) or {}).items()
        jobs = {key: job for key, job in found if isinstance(job, Mapping)}
        cells = [cell for key, job in jobs.items() for cell in _cells(key, job, rows)]
        if cells:
            lines += ["", *_table(columns, cells)]
    return "\n".join([*lines, *_sentences(results)]) + "\n"


def _cells(key: str, job: Mapping[str, Any], rows: Any) -> list[Sequence[str]]:
    """Return a job's rows of a table, or one that says how it failed."""
    if "error" in job:
        return [(key, str(job["error"])[:100].replace("|", "/"))]
    return list(rows(key, job))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for row in rows:
        yield f"| {' | '.join([*row, *[''] * (len(columns) - len(row))])} |"


def _sentences(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is no table: limits, and counts of the comparison."""
    parts = results.get("parts", {})
    if limits := parts.get("limits"):
        yield from ("", "Limits of the device:", "```", gpu_limits.describe(limits), "```")
    agreement = parts.get("agreement") or {}
    if "passed" in agreement:
        yield ""
        yield (f"{agreement['passed']} comparisons agree, {agreement['failed']} do not, "
               f"{agreement['not_compared']} were not made.")  # fmt: skip


def _step(name: str, s: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    graph = "yes" if s["graph"] else "no"
    yield name, f"{s['ms']:.3f}", f"{s['host_ms']:.3f}", f"{s['launches']}", graph


def _deterministic(name: str, d: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    ms = d.get("ms")
    times = ["", "", ""]
    if ms is not None:
        times = [f"{ms['usual']:.3f}", f"{ms['deterministic']:.3f}", f"{d['ratio']:.2f}"]
    yield name, *times, str(d["differing_arrays"])


def _quality(name: str, q: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    value = f"{q['psnr']:.2f} dB" if q.get("psnr") is not None else shown(q.get("iou"), "IoU")
    yield name, q["input"], value, f"{q['steps']}", f"{q['seconds']:.1f}"


def _picture(name: str, p: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    yield name, f"{p['width']}x{p['height']}", f"{p['ms']:.1f}"


def _start(name: str, c: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    fresh, warm = c.get("fresh", {}), c.get("warm", {})
    yield name, *(shown(start.get("trained_s"), "s") for start in (fresh, warm))


def _curve(name: str, c: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    if "skipped" not in c:
        yield name, f"{c['cpu'][-1]:.2f}", f"{c['device'][-1]:.2f}", f"{c['most_apart']:.3f}"


def _memory(name: str, m: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    device = m["device_bytes"]
    cells = ["-" if device is None else f"{device / _MB:.0f}", f"{m['host_bytes'] / _MB:.0f}"]
    yield name, m.get("input", ""), *cells


_TABLES: dict[str, tuple[Sequence[str], Any]] = {
    "steps": (("step", "ms", "host ms", "launches", "one graph"), _step),
    "deterministic": (
        ("`--deterministic`", "usual, ms", "deterministic, ms", "ratio", "arrays with other bits"),
        _deterministic,
    ),
    "quality": (("trained", "on", "quality", "steps", "seconds"), _quality),
    "render": (("picture", "size", "ms"), _picture),
    "cold_start": (("start to first step", "nothing compiled", "compiled before"), _start),
    "curves": (("training curve's end, dB", "CPU", "device", "apart"), _curve),
    "memory": (("memory of training", "on", "device, MiB", "host, MiB"), _memory),
}
