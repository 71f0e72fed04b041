"""The free cores and memory of this machine, within the limits of control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_CGROUP, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the physical cores that affinity and cgroup quota allow, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(allowed, psutil.cpu_count(logical=False) or allowed)
    for folder in _cgroups("cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        quota, period = quota or _read(folder / "cpu.cfs_quota_us"), period or _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():
            cores = min(cores, int(quota) // max(1, int(period)))
    return max(1, cores)


def free_cores() -> int:
    """Return the usable cores that are idle now, at least 1."""
    busy = psutil.cpu_percent(interval=0.1) / 100 * (psutil.cpu_count() or 1)
    return max(1, usable_cores() - round(busy))


def cpu_features() -> frozenset[str]:
    """Return what an x86 CPU can do, by Linux's names such as avx512_vnni; nothing where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "flags":
                return frozenset(value.split())
    return frozenset()


def free_memory() -> int:
    """Return the bytes of memory that can still be taken: what the system calls available, within cgroup limits."""
    free = int(psutil.virtual_memory().available)
    for folder in _cgroups("memory"):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
        if limit.isdigit() and used.isdigit():
            # Cached files, above all a model file, count as used, but the system frees them when memory is wanted.
            state = dict(line.split(" ", 1) for line in _read(folder / "memory.stat").splitlines())
            idle = int(state.get("total_inactive_file") or state.get("inactive_file") or 0)
            free = min(free, int(limit) - int(used) + idle)
    return max(0, free)


def _cgroups(controller: str) -> Iterator[Path]:
    """Yield the folders of the cgroups (versions 1 and 2) of this process, inner ones first: each can set a limit.

    In a container the system may give a path outside it; the root folder is then the process's own cgroup.
    """
    for line in _read(_OWN_CGROUPS).splitlines() or ["0::/"]:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = _CGROUP / controller if controllers else _CGROUP
        own = base / path.lstrip("/")
        inside = (folder for folder in (own, *own.parents) if folder.is_relative_to(base))
        yield from (folder for folder in inside if folder.is_dir())


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
