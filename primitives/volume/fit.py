"""The Python entry: fit a neural field to a volume."""

from pathlib import Path
from typing import Any

from ngp_warp.fitting import fit_with_settings
from ngp_warp.primitive import Report
from ngp_warp.primitives.volume.config import VolumeConfig
from ngp_warp.run import Run


def fit_volume(
    source: str | Path | None = None,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    device: str | None = None,
    threads: int | None = None,
    progress: Report | None = None,
    config: VolumeConfig | None = None,
    **settings: Any,
) -> Run:
    """Fit a neural field to a volume, or continue a run: ``ngp fit-volume``.

    >>> run = fit_volume("smoke.vdb", grid="density", mode="radiance", albedo=0.99, sun="20,60")

    Args:
        source: nvdb, vdb, npy, npz, nii, tiff or raw numbers; None with ``resume``: the run's own.
        seconds: training time, 60 if neither it nor ``steps`` is given.
        steps: number of training steps.
        out: the run's folder; None: outputs/<input>/fit-volume/<time>.
        resume: a run's folder or checkpoint to continue, bit by bit on a CPU.
        device: "auto" (None), "cpu", "cuda" or "cuda:N".
        threads: CPU threads; the result does not depend on them.
        progress: called with an ``ngp_warp.Progress`` now and then.
        config: settings; None: the resumed run's, or what suits the volume and the device.
        settings: over ``config``, by name: fields of ``VolumeConfig`` (``mode``, ``grid``,
            ``albedo``, ``encoding``, ...; the nested ones as a dict or a config) and of
            ``TrainingConfig`` (``batch_size``, ``seed``, ...).

    Returns:
        The run: its ``path``, ``metrics``, ``query``, ``value_and_gradient``, ``render`` and
        ``export``.

    Raises:
        NgpError: the volume, the settings or the outputs are at fault.
        Interrupted: Ctrl-C or SIGTERM, after saving.
    """
    return fit_with_settings(
        "volume",
        source,
        settings={**settings, "seconds": seconds, "steps": steps},
        config=config,
        out=out,
        resume=resume,
        device=device,
        threads=threads,
        progress=progress,
    )
