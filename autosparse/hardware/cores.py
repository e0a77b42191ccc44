"""Which processors this process may use: affinity, cgroup quota, and which of them share a core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from autosparse.errors import UsageError

ROOT = Path("/")

# Taken when this module is first imported: a pinned program narrows the affinity of the thread that
# made it, and what the process may use is not what one of its threads is bound to just now.
_AFFINITY = tuple(sorted(os.sched_getaffinity(0)))


def affinity() -> tuple[int, ...]:
    """Gives the logical processors this process was allowed when it started, ascending."""
    return _AFFINITY


def read_text(path: Path) -> str | None:
    """Gives a small file's stripped text, or None where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Reads a kernel list such as ``0-3,8`` as ``(0, 1, 2, 3, 8)``."""
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return tuple(sorted(numbers))


def online_cpus(root: Path = ROOT) -> tuple[int, ...]:
    """Gives the logical processors of the host, ascending; what Python counts where /sys is silent."""
    text = read_text(root / "sys/devices/system/cpu/online")
    return parse_cpu_list(text) if text else tuple(range(os.cpu_count() or 1))


def core_of(cpu: int, root: Path = ROOT) -> tuple[int, ...]:
    """Gives the logical processors that share a core with `cpu`, itself included, ascending."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    for name in ("thread_siblings_list", "core_cpus_list"):
        text = read_text(topology / name)
        if text:
            return parse_cpu_list(text)
    return (cpu,)


def count_cores(cpus: tuple[int, ...], root: Path = ROOT) -> int:
    """Counts the distinct cores behind some logical processors."""
    return len({core_of(cpu, root) for cpu in cpus})


def one_per_core(cpus: tuple[int, ...], root: Path = ROOT) -> tuple[int, ...]:
    """Gives one logical processor of each core, the lowest, ascending: where to pin workers."""
    first: dict[tuple[int, ...], int] = {}
    for cpu in sorted(cpus):
        first.setdefault(core_of(cpu, root), cpu)
    return tuple(sorted(first.values()))


def cgroup_folders(controller: str, root: Path = ROOT) -> Iterator[Path]:
    """Yields the control-group folders that bind this process for one controller, innermost first.

    Both hierarchies are followed, version 2 and version 1, and in each every ancestor, because a limit
    anywhere above counts. A path that is not visible from here (another namespace) is passed over.
    """
    paths = _cgroup_paths(controller, root)
    for kind, mount in _cgroup_mounts(controller, root):
        inner = paths.get(kind)
        if inner is None:
            continue
        folder = Path(inner.lstrip("/"))
        for part in (folder, *folder.parents):
            candidate = root / mount.lstrip("/") / part
            if candidate.is_dir():
                yield candidate


def _cgroup_paths(controller: str, root: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        fields = line.split(":", 2)
        if len(fields) != 3:
            continue
        if fields[1] == "":
            found["cgroup2"] = fields[2]
        elif controller in fields[1].split(","):
            found["cgroup"] = fields[2]
    return found


def _cgroup_mounts(controller: str, root: Path) -> Iterator[tuple[str, str]]:
    for line in (read_text(root / "proc/self/mounts") or "").splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        if fields[2] == "cgroup2" or (fields[2] == "cgroup" and controller in fields[3].split(",")):
            yield fields[2], fields[1]


def quota_cores(root: Path = ROOT) -> float | None:
    """Gives the tightest CPU quota in cores, or None when nothing limits it."""
    quotas = [quota for folder in cgroup_folders("cpu", root) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _quota(folder: Path) -> float | None:
    both = read_text(folder / "cpu.max")
    if both is not None:
        amount, _, period = both.partition(" ")
    else:
        amount = read_text(folder / "cpu.cfs_quota_us") or ""
        period = read_text(folder / "cpu.cfs_period_us") or ""
    if amount.isdigit() and period.isdigit() and int(period) > 0:  # "max" and "-1" mean no limit
        return int(amount) / int(period)
    return None


def memory_limit_bytes(root: Path = ROOT) -> int | None:
    """Gives the tightest memory limit of the control groups, or None when nothing limits it."""
    limits = []
    for folder in cgroup_folders("memory", root):
        text = read_text(folder / "memory.max") or read_text(folder / "memory.limit_in_bytes")
        if (
            text and text.isdigit() and int(text) < 1 << 60
        ):  # version 1 writes "no limit" as 2^63 - 4096
            limits.append(int(text))
    return min(limits, default=None)


def usable_cores(cpus: tuple[int, ...] | None = None, root: Path = ROOT) -> int:
    """Gives how many whole cores this process may keep busy, at least one.

    Args:
        cpus: logical processors it may run on; by default those it was started with.
        root: where /proc and /sys are.
    """
    cores = count_cores(affinity() if cpus is None else cpus, root)
    quota = quota_cores(root)
    return max(1, cores if quota is None else min(cores, int(quota + 1e-9)))


def checked_threads(threads: int | None) -> int:
    """Gives a number of worker threads; None stands for every usable core.

    Raises:
        UsageError: more than the processors of this process, or no whole number from 1 on.
    """
    if threads is None:
        return usable_cores()
    most = len(affinity())
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= most:
        raise UsageError(
            f"threads must be a whole number from 1 to {most}, the processors of this process, "
            f"but got {threads!r}"
        )
    return threads
