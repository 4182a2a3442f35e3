"""Memory of this machine, or of the part of it that a container leaves to this process."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)
"""Files in which Linux says what a control group may take and what it takes, by version."""


def total() -> int:
    """Return the bytes that there are."""
    return min([psutil.virtual_memory().total, *(most for most, _ in _limits())])


def available() -> int:
    """Return the bytes that can still be taken."""
    return max(0, min([psutil.virtual_memory().available, *(m - used for m, used in _limits())]))


def _limits() -> list[tuple[int, int]]:
    """Return limit and use of the control group, where it has a limit."""
    found = []
    for most, used in _GROUPS:
        with suppress(OSError, ValueError):  # another system; "max" where there is no limit
            found.append((int(Path(most).read_text()), int(Path(used).read_text()) - _cached(used)))
    return found


def _cached(used: str) -> int:
    """Return what of a group's use are files that the system forgets when it needs the room."""
    with suppress(OSError, ValueError):
        for line in Path(used).with_name("memory.stat").read_text().splitlines():
            if line.startswith(("inactive_file ", "total_inactive_file ")):
                return int(line.split()[1])
    return 0
