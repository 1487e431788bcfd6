"""How much memory is there to take, asked before anything large is allocated."""

import os
from pathlib import Path

# Where the system does not tell: little enough for any machine that runs this.
_FALLBACK_BYTES = 2 << 30
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Return the memory in bytes that can be taken without swapping, within a container's limit."""
    system = _system_bytes()
    container = _container_bytes()
    return system if container is None else min(system, container)


def _system_bytes() -> int:
    """Return the kernel's estimate, else half of the physical memory, else a fixed 2 GiB."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass  # not Linux
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return _FALLBACK_BYTES


def _container_bytes() -> int | None:
    """Return what a version 2 control group has left, or None where there is no limit."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        # Pages that hold files are counted as used, but are given back when asked for.
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return max(int(limit) - used + int(stat.get("inactive_file", 0)), 0)
    except (OSError, ValueError):
        return None  # no such group, or its limit is "max"
