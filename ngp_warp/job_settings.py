"""Where jobs run, and what is asked of Slurm for them."""

import shlex
import shutil
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from ngp_warp.config import check_choice, check_range
from ngp_warp.errors import ConfigError

Executor = Literal["local", "slurm"]


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """Where jobs run, and what Slurm is asked for; names as submitit's."""

    executor: Executor = "local"
    """Jobs on this machine, or on a Slurm cluster."""
    jobs: int | None = None
    """Jobs at a time; None: one for each GPU here (one on a CPU), on Slurm as many as it runs."""
    slurm_partition: str | None = None
    """Where to queue."""
    slurm_time: int = 240
    """Minutes that a job may take; a block that needs longer is queued again and goes on."""
    slurm_mem: str | None = None
    """Memory of a job: 64GB."""
    slurm_gpus_per_node: int | None = None
    """GPUs of a job; None: 1, or 0 with the device cpu."""
    slurm_cpus_per_task: int | None = None
    """CPU cores of a job."""
    slurm_setup: tuple[str, ...] = ()
    """Shell commands before a job, such as module load."""
    slurm_additional_parameters: tuple[str, ...] = ()
    """KEY=VALUE, any further options of sbatch: account=physics."""

    def __post_init__(self):
        check_choice("executor", self.executor, get_args(Executor))
        for name in ("jobs", "slurm_time", "slurm_cpus_per_task"):
            check_range(name, getattr(self, name), 1)
        check_range("slurm_gpus_per_node", self.slurm_gpus_per_node, 0)
        for item in self.slurm_additional_parameters:
            if not item.partition("=")[0] or "=" not in item:
                raise ConfigError(f"slurm_additional_parameters must be KEY=VALUE, got {item!r}")
        given = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        if self.executor == "local" and (slurm := [n for n in given if n.startswith("slurm")]):
            raise ConfigError(f"--{slurm[0].replace('_', '-')} is for --executor slurm")

    def flags(self) -> str:
        """Return the flags of ``ngp fit-image-blocks`` that give these settings."""
        parts = []
        for item in fields(self):
            value = getattr(self, item.name)
            if value != item.default:
                for one in value if isinstance(value, tuple) else (value,):
                    parts += ["--" + item.name.replace("_", "-"), str(one)]
        return "".join(f" {shlex.quote(part)}" for part in parts)


def check_available(settings: JobSettings) -> None:
    """Raise ConfigError unless submitit and, where it is asked for, Slurm are there."""
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise ConfigError(
            'jobs need submitit, which is not installed: pip install "ngp-warp[slurm]"'
        ) from None
    if settings.executor == "slurm" and not all(map(shutil.which, ("sbatch", "srun"))):
        raise ConfigError(
            "--executor slurm: there is no sbatch here; run this on a machine of a Slurm cluster, "
            "or with --executor local"
        )


def slurm_parameters(settings: JobSettings, device: str | None) -> dict[str, Any]:
    """Return the parameters of ``submitit.SlurmExecutor``."""
    gpus = settings.slurm_gpus_per_node
    if gpus is None:
        gpus = 0 if device == "cpu" else 1
    wanted = {
        "job_name": "ngp-blocks",
        "partition": settings.slurm_partition,
        "time": settings.slurm_time,
        "mem": settings.slurm_mem,
        "gpus_per_node": gpus or None,
        "cpus_per_task": settings.slurm_cpus_per_task,
        "setup": list(settings.slurm_setup) or None,
        "array_parallelism": settings.jobs,
    }
    more = dict(item.split("=", 1) for item in settings.slurm_additional_parameters)
    wanted["additional_parameters"] = more or None
    return {name: value for name, value in wanted.items() if value is not None}
