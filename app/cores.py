"""How many cores of the processor this process may use."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

GROUPS = Path("/proc/self/cgroup")
"""The control groups of this process, as lines of number:controllers:path."""

MOUNT = Path("/sys/fs/cgroup")


def cores() -> int:
    """Whole cores, one at least: those the process is bound to, or fewer where its time on them is limited.

    Containers and systemd's `CPUQuota` limit it by control groups, which Linux documents in admin-guide/cgroup-v2
    (`cpu.max`) and, for their first version, scheduler/sched-bwc (`cpu.cfs_quota_us`).
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([bound, *_limits()])))


def _limits() -> Iterator[float]:
    """In cores, of the groups of this process and of those around them; a container may see its own as the root."""
    with suppress(OSError):
        for line in GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            place = PurePosixPath(path.lstrip("/"))
            for group in (place, *place.parents):
                with suppress(OSError):
                    if not controllers:
                        quota, period = (MOUNT / group / "cpu.max").read_text().split()
                    elif "cpu" in controllers.split(","):
                        quota = (MOUNT / "cpu" / group / "cpu.cfs_quota_us").read_text()
                        period = (MOUNT / "cpu" / group / "cpu.cfs_period_us").read_text()
                    else:
                        break
                    if quota != "max" and int(quota) > 0:
                        yield int(quota) / int(period)
