"""What a run on one H100 is to reach, and whether a result does."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import report


@dataclass(frozen=True)
class Target:
    """One figure of a result, and what it is to be.

    Attributes:
        name: what is measured.
        path: of the figure in the result, by keys; "*": the largest of all, which is not met while
            one of them has failed.
        most: it is to be below; None: no such bound.
        least: it is to be at least.
        unit: shown behind it.
        needs: keys beside the figure whose values must be true, or it is of something else.
        aim: beyond the bound, and only told.
    """

    name: str
    path: tuple[str, ...]
    most: float | None = None
    least: float | None = None
    unit: str = ""
    needs: tuple[str, ...] = ()
    aim: float | None = None

    @property
    def wanted(self) -> str:
        """The bound as text."""
        if self.most is not None:
            aim = "" if self.aim is None else f", aim {self.aim:g}"
            return f"below {self.most:g} {self.unit}".strip() + aim
        return f"at least {self.least:g} {self.unit}".strip()

    def met(self, value: float) -> bool:
        """Return whether a figure is within the bound."""
        return (self.most is None or value < self.most) and (
            self.least is None or value >= self.least
        )


def _quality(what: str, run: str, figure: str, least: float, unit: str) -> Target:
    path = ("parts", "quality", run)
    return Target(what, (*path, figure), None, least, unit, ("usual_input", "in_time"))


TARGETS = (
    Target("rows of the CPU's and the device's kernels that do not agree",
           ("parts", "agreement", "failed"), most=1),
    Target("such rows that were not run", ("parts", "agreement", "not_run"), most=1),
    Target("step, 3D, 2^18 points, L=16, F=2, T=2^19, 2x64",
           ("parts", "steps", "reference 3D", "ms"), 1.2, unit="ms", aim=0.7),
    Target("step of the image primitive", ("parts", "steps", "image", "ms"), 0.8, unit="ms",
           needs=("usual_input",)),
    _quality("chair, 5 s", "nerf 5 s", "psnr", 33.0, "dB"),
    _quality("chair, 60 s", "nerf 60 s", "psnr", 37.0, "dB"),
    _quality("armadillo, 5 s", "sdf 5 s", "iou", 0.99, "IoU"),
    _quality("scan of leaves, 35 megapixels, 3 s", "image 3 s", "psnr", 34.0, "dB"),
    Target("view of the chair, 800x800", ("parts", "render", "nerf", "ms"), 20.0, unit="ms",
           needs=("usual_input",)),
    Target("first step, no kernel compiled yet",
           ("parts", "cold_start", "*", "fresh", "trained_s"), 20.0, unit="s"),
    Target("first step, kernels compiled before",
           ("parts", "cold_start", "*", "warm", "trained_s"), 3.0, unit="s"),
    Target("training curves of the CPU and the device, apart",
           ("parts", "curves", "*", "most_apart"), 0.2, unit="dB"),
    Target("deterministic steps with other bits",
           ("parts", "deterministic", "*", "differing_arrays"), most=1),
)  # fmt: skip
"""On one NVIDIA H100."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def find(values: Any, path: Sequence[str]) -> Any:
    """Return what lies at a path; of "*" the largest of those that are numbers; None: nothing."""
    for index, key in enumerate(path):
        if not isinstance(values, Mapping):
            return None
        if key == "*":
            found = [find(inner, path[index + 1 :]) for inner in values.values()]
            return max((value for value in found if _is_number(value)), default=None)
        values = values.get(key)
    return values


def _lacks(values: Any, path: Sequence[str]) -> bool:
    """Return whether one of those that a "*" in a path stands for, or all of them, has no figure.

    What says that it was skipped is none of them.
    """
    if "*" not in path:
        return False
    at = path.index("*")
    inner = find(values, path[:at])
    if not isinstance(inner, Mapping):
        return True
    return any(
        not _is_number(find(one, path[at + 1 :]))
        for one in inner.values()
        if not isinstance(one, Mapping) or "skipped" not in one
    )


def verdicts(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each target with the figure and whether it is met; None: not measured.

    Figures of the small mode are of other sizes, and judge nothing but agreement.
    """
    found = []
    for target in TARGETS:
        value = find(results, target.path)
        met = None
        applies = all(find(results, (*target.path[:-1], key)) for key in target.needs)
        judged = not results.get("small") or not target.unit
        if isinstance(value, int | float) and applies and judged:
            met = target.met(float(value))
            if met and _lacks(results, target.path):
                met = None
        found.append({"name": target.name, "wanted": target.wanted, "value": value, "met": met,
                      "unit": target.unit})  # fmt: skip
    return found


VERDICTS = {True: "yes", False: "NO", None: "not judged"}


def shown(value: Any, unit: str) -> str:
    """Return a figure with its unit; "-": there is none."""
    return "-" if value is None else f"{value:.4g} {unit}".strip()


def describe(results: Mapping[str, Any]) -> str:
    """Return the verdicts as plain text."""
    rows = [["target", "wanted", "found", "met"]]
    for v in verdicts(results):
        rows.append([v["name"], v["wanted"], shown(v["value"], v["unit"]), VERDICTS[v["met"]]])
    return report.table(rows)
