"""One of several processes of a test: fits what a JSON file lists, and keeps all it has trained.

    python distributed_worker.py JOBS.json

JOBS.json is a list of {"primitive", "source", "out" or "resume", "settings", "evaluate",
"interrupt"}. Each process writes <name of the run>.<rank>.npz beside the file: what a checkpoint
holds; and to groups.<rank> how many groups of processes it has made. The last process interrupts
itself after as many steps as "interrupt" says. NGP_BREAK names what a test breaks, to see that it
would notice.
"""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed
from interruption import interrupt_after

from ngp_warp import exchange, fitting, trainer
from ngp_warp.decode import state_arrays


def keep_arrays(path: Path) -> None:
    """Write what each run has trained, before its average takes its place."""
    train = trainer.Trainer.train

    def kept(self: trainer.Trainer) -> Any:
        state = train(self)
        arrays = {k: a.numpy() for k, a in state_arrays(self.task.field).items()}
        np.savez(path, step=state.step, n_steps=state.n_steps, **arrays)
        return state

    trainer.Trainer.train = kept  # type: ignore[method-assign]


def count_groups() -> list[Any]:
    """Return the groups of processes that will be made, each of which has threads of its own."""
    made, make = [], torch.distributed.new_group

    def new_group(*args: Any, **options: Any) -> Any:
        made.append(make(*args, **options))
        return made[-1]

    torch.distributed.new_group = new_group
    return made


def main() -> None:
    jobs = Path(sys.argv[1])
    train, finish = trainer.Trainer.train, fitting._finish
    if os.environ.get("NGP_BREAK") == "sum":
        exchange.sum_gradients = lambda *_: []  # type: ignore[assignment]
    if os.environ.get("NGP_BREAK"):
        trainer.Trainer._digest = lambda self: 0  # type: ignore[method-assign]
    rank = os.environ.get("RANK", "0")
    groups = count_groups()
    for job in json.loads(jobs.read_text()):
        name = Path(job.get("out") or job["resume"]).name
        trainer.Trainer.train = train  # type: ignore[method-assign]
        keep_arrays(jobs.parent / f"{name}.{rank}.npz")
        fitting._finish = finish if job.get("evaluate") else _no_finish
        settings, out = job.get("settings", {}), job.get("out")
        options: dict[str, Any] = {"out": out} if out else {"resume": job["resume"]}
        arguments = [job["primitive"], job.get("source")]
        options |= {"settings": settings, "device": "cpu"}
        with pytest.MonkeyPatch.context() as patch:
            steps = job.get("interrupt")
            if steps and rank != "0":
                interrupt_after(steps, patch)
            with pytest.raises(trainer.Interrupted) if steps else nullcontext():
                fitting.fit_with_settings(*arguments, **options)
    (jobs.parent / f"groups.{rank}").write_text(str(len(groups)))
    sys.stdout.flush()
    # as the command ends, see cli/app.py
    os._exit(0)


def _no_finish(task: Any, state: Any, folder: Path, device: str, report: Any) -> Any:
    """Leave out the pictures, which take longer than the training."""
    return fitting.open_run(folder, device=device)


if __name__ == "__main__":
    main()
