"""The Python entry: fit a radiance field to photos."""

from pathlib import Path
from typing import Any

from ngp_warp.fitting import fit_with_settings
from ngp_warp.primitive import Report
from ngp_warp.primitives.nerf.config import NerfConfig
from ngp_warp.run import Run


def fit_nerf(
    source: str | Path | None = None,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    device: str | None = None,
    threads: int | None = None,
    progress: Report | None = None,
    config: NerfConfig | None = None,
    **settings: Any,
) -> Run:
    """Fit a radiance field to photos of a scene, or continue a run: ``ngp nerf``.

    >>> run = fit_nerf("fox/", seconds=300, downscale=4, train_poses=True)

    Args:
        source: the scene's folder or file; None with ``resume``: the run's own.
        seconds: training time, 60 if neither it nor ``steps`` is given.
        steps: number of training steps.
        out: the run's folder; None: outputs/<scene>/nerf/<time>.
        resume: a run's folder or checkpoint to continue, bit by bit on a CPU.
        device: "auto" (None), "cpu", "cuda" or "cuda:N".
        threads: CPU threads; the result does not depend on them.
        progress: called with an ``ngp_warp.Progress`` now and then.
        config: settings; None: the resumed run's, or what suits the scene and the device.
        settings: over ``config``, by name: fields of ``NerfConfig`` (``downscale``, ``exposure``,
            ``encoding``, ...; the nested ones as a dict or a config) and of ``TrainingConfig``
            (``batch_size``, ``seed``, ...).

    Returns:
        The run: its ``path``, ``metrics``, ``query``, ``render_rays``, ``render`` and ``export``,
        all in the scene's own units and axes.

    Raises:
        NgpError: the scene, the settings or the outputs are at fault.
        Interrupted: Ctrl-C or SIGTERM, after saving.
    """
    return fit_with_settings(
        "nerf",
        source,
        settings={**settings, "seconds": seconds, "steps": steps},
        config=config,
        out=out,
        resume=resume,
        device=device,
        threads=threads,
        progress=progress,
    )
