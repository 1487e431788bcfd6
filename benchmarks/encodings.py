"""``python -m benchmarks encodings``: what came before the hash grid, in equal time and size.

Every encoding trains for as long on the same batches: frequencies with a large network (Mildenhall
et al. 2020; Mueller et al. 2022, section 5), one dense grid, dense grids of several resolutions, an
octree (Takikawa et al. 2021) and hash grids with 2^14, 2^16 and 2^19 entries a level. The dense
grids and the octree come in the sizes of the last two hash grids.
"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.encoded_field import EncodedField, Stages
from benchmarks.plot import line_plot
from ngp_warp.config import Loss, NetworkConfig, OptimizerConfig
from ngp_warp.encodings.composite import CONCATENATION, Composite
from ngp_warp.encodings.encoding import Encoding
from ngp_warp.encodings.identity import Identity
from ngp_warp.encodings.make import make_encoding
from ngp_warp.encodings.octree import OctreeEncoding
from ngp_warp.encodings.octree_cells import Octree

_LARGE = NetworkConfig(n_neurons=128, n_hidden_layers=8)
"""Of frequencies, which have no features of their own to train."""
_SMALL = NetworkConfig()
_FREQUENCIES = {2: 12, 3: 10}
HASH_LOG2 = (14, 16, 19)
_LEVELS, _FEATURES, _COARSEST = 16, 2, 16
_DENSE_LEVELS, _SINGLE_FEATURES = 8, 16
_OCTREE_LEVELS = 6
_N_POINTS = 2**15


@dataclass(frozen=True)
class Problem:
    """What all encodings are trained on."""

    name: str
    metric: str
    n_dims: int
    n_outputs: int
    loss: Loss
    finest: int
    """Resolution of the finest level of a hash grid."""
    rates: tuple[float, float]
    """Learning rates of grids and of frequencies."""
    draw: Callable[..., Stages]
    """(step, x, target) -> stages that fill a batch of ``n_points``."""
    measure: Callable[[Callable[[np.ndarray], np.ndarray]], float]
    """values at points -> the metric."""
    interesting: np.ndarray
    """Points [n, n_dims] of the unit cube, the most interesting first: where an octree grows."""


@dataclass(frozen=True)
class Candidate:
    """One encoding of the comparison."""

    name: str
    make: Callable[[], Encoding]
    network: NetworkConfig = _SMALL
    frequencies: bool = False


def candidates(problem: Problem) -> list[Candidate]:
    """Return the encodings for a problem, dense grids and octrees as large as two hash grids."""
    d = problem.n_dims
    hashes = {log2: _hash(d, problem.finest, log2) for log2 in HASH_LOG2}
    found = [
        Candidate(
            f"frequencies, {_LARGE.n_hidden_layers}x{_LARGE.n_neurons}",
            lambda: make_encoding(
                d, {"otype": "Frequency", "n_frequencies": _FREQUENCIES[d]}, "cpu"
            ),
            _LARGE,
            frequencies=True,
        )
    ]
    for log2 in HASH_LOG2[1:]:
        size = make_encoding(d, hashes[log2], "cpu").n_params
        found += [
            Candidate(f"one dense grid, as 2^{log2}", _making(d, _single(d, size))),
            Candidate(f"dense grids, as 2^{log2}", _making(d, _dense(d, size))),
            Candidate(f"octree, as 2^{log2}", _octree(problem, size)),
        ]
    return found + [Candidate(f"hash, T = 2^{log2}", _making(d, c)) for log2, c in hashes.items()]


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


def _hash(n_dims: int, finest: int, log2: int) -> dict[str, Any]:
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
    """Return what makes an octree about the most interesting points, of at most that size."""
    points = problem.interesting

    def make() -> Encoding:
        best = None
        for last in range(_OCTREE_LEVELS, math.ceil(math.log2(problem.finest)) + 1):
            first = last - _OCTREE_LEVELS + 1
            for share in (1.0, 0.5, 0.25, 0.12, 0.06, 0.03):
                some = points[: max(round(share * len(points)), 1)]
                tree = Octree.from_points(some, first, last)
                encoding = OctreeEncoding(tree, "cpu", n_features=_FEATURES)
                if encoding.n_params <= n_params:
                    if best is None or encoding.n_params > best.n_params:
                        best = encoding
                    break
        if best is None:
            raise ValueError("no octree is so small")
        # where there are no cells a point is known by its coordinates, as in NGLOD
        place = Identity(problem.n_dims, "cpu")
        return Composite(problem.n_dims, [(best, 0), (place, 0)], CONCATENATION)

    return make


def run(problems: list[Problem], seconds: float) -> dict[str, Any]:
    """Train all encodings on all problems, one after another, as long each.

    Args:
        problems: what to train on.
        seconds: of training.
    """
    results: dict[str, Any] = {"problems": {}}
    for problem in problems:
        rows = []
        for candidate in candidates(problem):
            rate = problem.rates[1 if candidate.frequencies else 0]
            field = EncodedField(
                candidate.make(),
                candidate.network,
                problem.n_outputs,
                OptimizerConfig(learning_rate=rate),
            )
            steps = field.train(problem.draw, _N_POINTS, problem.loss, seconds)
            rows.append(
                {
                    "encoding": candidate.name,
                    "parameters": field.n_params,
                    "steps": steps,
                    problem.metric: round(problem.measure(field.query), 4),
                }
            )
        found = {"metric": problem.metric, "seconds": seconds, "rows": rows}
        results["problems"][problem.name] = found
    return results


def run_scene(scene: Path, seconds: float, **settings: Any) -> dict[str, Any]:
    """Fit a scene with each encoding that radiance fields have; the original NeRF has frequencies.

    Args:
        scene: what ``ngp nerf`` takes.
        seconds: of training.
        settings: of ``fit_nerf``, for all.
    """
    from ngp_warp import fit_nerf

    sizes = {f"hash, T = 2^{log2}": {"log2_hashmap_size": log2} for log2 in HASH_LOG2}
    grids: dict[str, dict[str, Any]] = {
        "one dense grid": {"grid_type": "dense", "n_levels": 2, "n_features_per_level": 8}
        | {"base_resolution": 64, "finest_resolution": 64},
        "dense grids": {"grid_type": "dense", "n_levels": 8, "n_features_per_level": 2}
        | {"base_resolution": 16, "finest_resolution": 128},
        **{name: {"n_levels": 8, "n_features_per_level": 4, **own} for name, own in sizes.items()},
    }
    runs: dict[str, dict[str, Any]] = {"frequencies (the original NeRF)": {"method": "vanilla"}}
    runs |= {name: {"encoding": own} for name, own in grids.items()}
    rows = []
    for name, own in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            metrics = fit_nerf(
                scene, seconds=seconds, out=Path(folder) / "run", device="cpu", **settings, **own
            ).metrics
        row = {"encoding": name, "parameters": metrics["parameters"], "steps": metrics["steps"]}
        rows.append({**row, "PSNR": round(metrics["psnr"], 2)})
    return {"metric": "PSNR", "seconds": seconds, "rows": rows}


def plot(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw each problem's metric over log2 of the parameters; return the files."""
    made = []
    for name, found in results["problems"].items():
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
    for name, found in results["problems"].items():
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
