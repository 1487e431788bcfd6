"""``python -m benchmarks encodings``: what came before the hash grid, in equal time and size.

Every encoding trains for as long on the same problem: frequencies with a large network (Mildenhall
et al. 2020; Mueller et al. 2022, section 5), one dense grid, dense grids of several resolutions, an
octree (Takikawa et al. 2021) and hash grids with 2^14, 2^16 and 2^19 entries a level. The dense
grids and the octree come in the sizes of the last two hash grids.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.plot import line_plot
from ngp_warp.config import NetworkConfig, OptimizerConfig, TrainingConfig
from ngp_warp.encodings.composite import CONCATENATION, Composite
from ngp_warp.encodings.encoding import Encoding
from ngp_warp.encodings.identity import Identity
from ngp_warp.encodings.make import make_encoding
from ngp_warp.encodings.octree import OctreeEncoding
from ngp_warp.encodings.octree_cells import Octree

_LARGE = {"n_neurons": 128, "n_hidden_layers": 8}
"""Network of frequencies, which have no features of their own to train."""
_FREQUENCIES = {2: 12, 3: 10}
HASH_LOG2 = (14, 16, 19)
_LEVELS, _FEATURES, _COARSEST = 16, 2, 16
_DENSE_LEVELS, _SINGLE_FEATURES = 8, 16
_OCTREE_LEVELS, _OCTREE_FEATURES = 6, (8, 4, 2)


@dataclass(frozen=True)
class Fitted:
    """What came of one encoding."""

    n_params: int
    """Trained values."""
    n_steps: int
    value: float
    """Of the problem's metric."""


@dataclass(frozen=True)
class Problem:
    """What all encodings are trained on."""

    name: str
    metric: str
    n_dims: int
    finest: int
    """Resolution of the finest level of a hash grid."""
    rates: tuple[float, float]
    """Learning rates of grids and of frequencies."""
    fit: Callable[[Encoding, NetworkConfig, OptimizerConfig, TrainingConfig], Fitted]
    """Trains an encoding and a network for so many seconds or steps, and measures them."""
    places: np.ndarray
    """Points [n, n_dims] of the unit cube: an octree has cells there, and nowhere else."""
    places_resolution: int
    """Cells along an axis, among which the places leave no gaps."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """Of encodings that have features to train."""


@dataclass(frozen=True)
class Candidate:
    """One encoding of the comparison."""

    name: str
    make: Callable[[], Encoding]
    network: NetworkConfig
    frequencies: bool = False


def candidates(problem: Problem) -> list[Candidate]:
    """Return the encodings for a problem, dense grids and octrees as large as two hash grids."""
    d = problem.n_dims
    hashes = {log2: _hash(problem.finest, log2) for log2 in HASH_LOG2}
    large = replace(problem.network, **_LARGE)
    frequencies = {"otype": "Frequency", "n_frequencies": _FREQUENCIES[d]}
    name = f"frequencies, {large.n_hidden_layers}x{large.n_neurons}"
    found = [Candidate(name, _making(d, frequencies), large, frequencies=True)]
    makers: dict[str, Callable[[], Encoding]] = {}
    for log2 in HASH_LOG2[1:]:
        size = make_encoding(d, hashes[log2], "cpu").n_params
        makers[f"one dense grid, as 2^{log2}"] = _making(d, _single(d, size))
        makers[f"dense grids, as 2^{log2}"] = _making(d, _dense(d, size))
        makers[f"octree, as 2^{log2}"] = _octree(problem, size)
    makers |= {f"hash, T = 2^{log2}": _making(d, c) for log2, c in hashes.items()}
    return found + [Candidate(name, make, problem.network) for name, make in makers.items()]


def _making(n_dims: int, config: dict[str, Any]) -> Callable[[], Encoding]:
    return lambda: make_encoding(n_dims, config, "cpu")


def _grid(kind: str, n_levels: int, n_features: int, base: int, finest: int) -> dict[str, Any]:
    scale = (finest / base) ** (1 / (n_levels - 1)) if n_levels > 1 else 1.0
    return {
        "otype": "Grid",
        "type": kind,
        "n_levels": n_levels,
        "n_features_per_level": n_features,
        "base_resolution": base,
        "per_level_scale": scale,
    }


def _hash(finest: int, log2: int) -> dict[str, Any]:
    config = _grid("Hash", _LEVELS, _FEATURES, _COARSEST, finest)
    return {**config, "log2_hashmap_size": log2}


def _single(n_dims: int, n_params: int) -> dict[str, Any]:
    """Return one grid of about as many parameters."""
    # 8 at most in our grids: two levels of one resolution have 16, as the paper's single grid
    resolution = round((n_params / _SINGLE_FEATURES) ** (1 / n_dims))
    return {**_grid("Dense", 2, _SINGLE_FEATURES // 2, resolution, resolution)}


def _dense(n_dims: int, n_params: int) -> dict[str, Any]:
    """Return dense grids of several resolutions with about as many parameters."""

    def size(finest: int) -> int:
        config = _grid("Dense", _DENSE_LEVELS, _FEATURES, _COARSEST, finest)
        return make_encoding(n_dims, config, "cpu").n_params

    low, high = _COARSEST + 1, 2**14
    while high - low > 1:
        middle = (low + high) // 2
        counted = _FEATURES * sum(
            round(_COARSEST * (middle / _COARSEST) ** (i / (_DENSE_LEVELS - 1))) ** n_dims
            for i in range(_DENSE_LEVELS)
        )
        low, high = (middle, high) if counted <= n_params else (low, middle)
    while low > _COARSEST + 1 and size(low) > n_params:
        low -= 1
    return _grid("Dense", _DENSE_LEVELS, _FEATURES, _COARSEST, low)


def _octree(problem: Problem, n_params: int) -> Callable[[], Encoding]:
    """Return what makes an octree of all places, of at most that size.

    The deepest one that there is room for, with as many features as there is room for.
    """

    def make() -> Encoding:
        deepest = math.ceil(math.log2(problem.places_resolution))
        for last in range(deepest, _OCTREE_LEVELS - 2, -1):
            tree = Octree.from_points(problem.places, last - _OCTREE_LEVELS + 1, last)
            for n_features in _OCTREE_FEATURES:
                found = OctreeEncoding(tree, "cpu", n_features=n_features)
                if found.n_params <= n_params:
                    # where there are no cells a point is known by its coordinates, as in NGLOD
                    place = Identity(problem.n_dims, "cpu")
                    return Composite(problem.n_dims, [(found, 0), (place, 0)], CONCATENATION)
        raise ValueError("no octree is so small")

    return make


def run(problems: list[Problem], seconds: float) -> dict[str, Any]:
    """Train all encodings on all problems, one after another, as long each.

    Args:
        problems: what to train on.
        seconds: of training.

    Returns:
        By the problems' names: metric, seconds and rows.
    """
    results = {}
    for problem in problems:
        rows = []
        for candidate in candidates(problem):
            optimizer = OptimizerConfig(learning_rate=problem.rates[candidate.frequencies])
            length = TrainingConfig(seconds=seconds)
            fitted = problem.fit(candidate.make(), candidate.network, optimizer, length)
            row = {"encoding": candidate.name, "parameters": fitted.n_params}
            rows.append({**row, "steps": fitted.n_steps, problem.metric: round(fitted.value, 4)})
        results[problem.name] = {"metric": problem.metric, "seconds": seconds, "rows": rows}
    return results


def plot(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw each problem's metric over log2 of the parameters; return the files."""
    made = []
    for name, found in results.items():
        groups: dict[str, list[tuple[float, float]]] = {}
        for row in found["rows"]:
            kind = row["encoding"].split(",")[0].split(" (")[0]
            point = (math.log2(row["parameters"]), row[found["metric"]])
            groups.setdefault(kind, []).append(point)
        path = folder / f"encodings_{name.replace(' ', '_')}.png"
        line_plot(
            {kind: sorted(points) for kind, points in groups.items()},
            path,
            title=f"{name}, {found['seconds']:g} s each",
            x_label="log2 of the trained values",
            y_label=found["metric"],
            from_zero=False,
        )
        made.append(path)
    return made


def describe(results: dict[str, Any]) -> str:
    """Return the results as tables in plain text, which Markdown reads too."""
    parts = []
    for name, found in results.items():
        rows = [["encoding", "parameters", "steps", found["metric"]]]
        rows += [
            [
                row["encoding"],
                f"{row['parameters']:,}",
                f"{row['steps']:,}",
                f"{row[found['metric']]:.4g}",
            ]
            for row in found["rows"]
        ]
        parts.append(f"{name}, {found['seconds']:g} s each\n\n{report.table(rows)}")
    return "\n\n".join(parts)
