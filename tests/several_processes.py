"""Several real processes of a test: started by torchrun, or each by hand."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
N = 2


def environment(**more: str) -> dict[str, str]:
    paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def torchrun(*command: str, n: int = N, **more: str) -> "subprocess.Popen[str]":
    """Start processes of a module or a script."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    return subprocess.Popen(
        [*start, str(n), *command],
        env=environment(**more),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def by_hand(
    *args: str,
    folders: Sequence[Path] = (ROOT, ROOT),
    python: Sequence[str] = ("-m", "ngp_warp.cli"),
) -> "list[subprocess.Popen[str]]":
    """Start a process of `ngp` in each folder, without torchrun, which would end the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(len(folders))}
    return [
        subprocess.Popen(
            [sys.executable, *python, *args],
            env=environment(**place, RANK=str(rank), LOCAL_RANK=str(rank)),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, folder in enumerate(folders)
    ]


def until(done: Callable[[], Any], *running: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end
        assert all(process.poll() is None for process in running)
        time.sleep(0.01)
