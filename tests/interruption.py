"""Ctrl-C after a given step, as a user's would come."""

import itertools
import signal
from typing import Any

import pytest

from ngp_warp import trainer


def interrupt_after(steps: int, patch: pytest.MonkeyPatch) -> None:
    """Send SIGINT to this process once a training run has done so many steps."""
    recorded = trainer.recorded_step

    def interrupted(stages: Any, device: str) -> Any:
        step, count = recorded(stages, device), itertools.count(1)

        def counted() -> None:
            step()
            if next(count) == steps:
                signal.raise_signal(signal.SIGINT)

        return counted

    patch.setattr(trainer, "recorded_step", interrupted)
