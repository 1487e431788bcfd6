"""Where this process stands among those that were started together: torchrun's environment."""

import datetime
import math
import os
from dataclasses import dataclass

from ngp_warp.errors import ConfigError

TIMEOUT_VARIABLE, TIMEOUT = "NGP_PROCESS_TIMEOUT", 600.0
"""Seconds that a process waits for the others' part of a step."""


@dataclass(frozen=True)
class Place:
    """Where a process stands among those that were started together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def place() -> Place:
    """Return this process's place, as torchrun's environment says it.

    Raises:
        ConfigError: the environment contradicts itself.
    """
    size = _number("WORLD_SIZE", 1)
    if size <= 1:
        return Place()
    rank = _number("RANK", -1)
    if not 0 <= rank < size:
        raise ConfigError(f"WORLD_SIZE is {size}, so RANK must be 0 to {size - 1}, got {rank}")
    return Place(rank, size, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", size))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if text and not text.isdecimal():
        raise ConfigError(f"{name} must be a whole number, got {text!r}")
    return int(text) if text else default


def several() -> bool:
    """Whether this process is one of several, whatever else the environment says."""
    return os.environ.get("WORLD_SIZE", "") not in ("", "1")


def speaks() -> bool:
    """Whether this process says what all of them would: there is no other, or it is the first.

    Where the environment contradicts itself, nobody knows which one is, and each says it.
    """
    try:
        return place().rank == 0
    except ConfigError:
        return True


def launcher() -> int | None:
    """Return the process that ends all others when one fails: torchrun's; None: there is none."""
    return os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None


def store_lasts() -> bool:
    """Whether torch's store is in torchrun's process; else it ends with the first of these."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def timeout() -> datetime.timedelta:
    """Return how long a process waits for the others' part of a step.

    Raises:
        ConfigError: the environment says something else than seconds.
    """
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        seconds = float(text) if text else TIMEOUT
        if not 0 < seconds < math.inf:
            raise ValueError
        return datetime.timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{TIMEOUT_VARIABLE} must be seconds, more than 0, got {text!r}"
        ) from None
