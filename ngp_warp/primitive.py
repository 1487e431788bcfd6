"""What a primitive and the training loop tell their caller."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come; sent to the caller's ``progress`` function."""

    stage: str
    """One of "load", "compile", "train", "evaluate", "write"."""
    step: int = 0
    """Steps, tiles or files done in this stage."""
    total: int = 0
    """Steps, tiles or files in this stage; 0: not known."""
    metric_name: str = "PSNR"
    """Name of ``metric``."""
    metric: float | None = None
    """Newest value of the metric."""
    message: str | None = None
    """A line for the user."""
    seconds_left: float | None = None
    """Estimated time to the end of this stage."""
    samples_per_second: float | None = None
    """Training speed."""
