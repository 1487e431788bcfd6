"""A process that trains one primitive from nothing: how long until its first step, and its memory.

``python -m benchmarks.gpu_start JOB`` is started by ``measure`` and prints one line of JSON.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import warp as wp

from benchmarks.gpu_inputs import PRIMITIVES, Input, make_config
from benchmarks.gpu_parts import run_jobs
from ngp_warp import launch
from ngp_warp.primitive import report_nothing
from ngp_warp.primitives import get
from ngp_warp.trainer import Trainer

_ROOT = Path(__file__).resolve().parent.parent
_STEPS = 100
_LIMIT_S = 60.0


def measure(
    name: str, source: Input, device: str, *, cache: Path | None, n_steps: int, small: bool
) -> dict[str, Any]:
    """Start a process and return what it says.

    Args:
        name: of the primitive.
        source: its input.
        device: "cpu" or a CUDA device.
        cache: folder of compiled kernels; None: the usual one.
        n_steps: of training.
        small: small settings.

    Returns:
        ``trained_s`` from the start of the process to the end of its last step, ``imports_s`` and
        ``load_s`` of it that imports and the input took, the modules in the cache, and the most
        memory on the device and on the host, in bytes.
    """
    job = {"name": name, "path": str(source.path), "device": device, "steps": n_steps}
    job |= {"small": small, "started": time.time()}
    environment = dict(os.environ)
    paths = [str(_ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    if cache is not None:
        environment["WARP_CACHE_PATH"] = str(cache)
        environment["CUDA_CACHE_PATH"] = str(cache / "driver")
    command = [sys.executable, "-m", "benchmarks.gpu_start", json.dumps(job)]
    done = subprocess.run(
        command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=_LIMIT_S,
        check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"status {done.returncode}: {done.stderr.strip()[-400:]}")
    result = json.loads(lines[-1])
    if cache is not None:
        result["modules"] = len({path.parent for path in cache.rglob("*.meta")})
    return result


def start_jobs(
    inputs: Mapping[str, Input], device: str, *, small: bool
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what starts each primitive with an empty cache of kernels and again with a full one.

    Inputs should be small: what is asked for is what the program itself takes.
    """

    def both(name: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            run = partial(
                measure, name, inputs[name], device, cache=Path(folder), n_steps=1, small=small
            )
            return run_jobs({"fresh": run, "warm": run}, _LIMIT_S)

    names = PRIMITIVES[:1] if small else PRIMITIVES
    return {name: partial(both, name) for name in names}


def memory_jobs(
    inputs: Mapping[str, Input], device: str, *, small: bool
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what measures the memory of training each primitive on its input, all side by side.

    Each is a process, whose memory is its own; together they also compile what others will need.
    """
    names = PRIMITIVES[:1] if small else PRIMITIVES
    steps = 2 if small else _STEPS
    pool = ThreadPoolExecutor(len(names))
    started = {
        name: pool.submit(
            measure, name, inputs[name], device, cache=None, n_steps=steps, small=small
        )
        for name in names
    }  # fmt: skip
    return {name: future.result for name, future in started.items()}


class _Started(Trainer):
    """Trains as ``ngp`` does, and notes when it would write its first checkpoint."""

    ended = 0.0

    def save(self, *, background: bool = False) -> None:
        self.ended = time.time()


def _run(job: dict[str, Any]) -> dict[str, Any]:
    """Load, build, record, train; return what ``measure`` returns."""
    device, kind = job["device"], get(job["name"])
    config = make_config(job["name"], small=job["small"], steps=job["steps"])
    begin = time.time()
    launch.init()
    data = kind.load(Path(job["path"]), config, report_nothing)
    loaded = time.time()
    config, _ = kind.estimate(data, config, device)
    task = kind.build(data, config, device)
    training = replace(config.training, checkpoint_seconds=1e6)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "checkpoints").mkdir()
        trainer = _Started(task, training, Path(folder), {}, report_nothing)
        trainer.train()
    # in kilobytes, but on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "steps": job["steps"],
        "input": Path(job["path"]).name,
        "trained_s": trainer.ended - job["started"],
        "imports_s": begin - job["started"],
        "load_s": loaded - begin,
        "host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "device_bytes": _device_bytes(device),
    }


def _device_bytes(device: str) -> int | None:
    """Return the most memory that Warp's pool has held on a CUDA device; None: not known."""
    if device == "cpu" or not wp.is_mempool_enabled(device):
        return None
    return int(wp.get_mempool_used_mem_high(device))


if __name__ == "__main__":
    print(json.dumps(_run(json.loads(sys.argv[1]))))
