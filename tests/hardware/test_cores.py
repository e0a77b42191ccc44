"""Affinity, quota and topology, read from made-up /proc and /sys trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from autosparse.hardware import cores


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def with_siblings(root: Path, groups: dict[int, str]) -> Path:
    return write(
        root,
        {
            f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": text
            for cpu, text in groups.items()
        },
    )


V2 = {
    "proc/self/cgroup": "0::/user.slice/job.scope\n",
    "proc/self/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n",
}
V1 = {
    "proc/self/cgroup": "3:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n0::/\n",
    "proc/self/mounts": (
        "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
        "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"
        "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
    ),
}


def test_cpu_list_reads_runs_and_single_numbers() -> None:
    assert cores.parse_cpu_list("0-3,8,10-11") == (0, 1, 2, 3, 8, 10, 11)
    assert cores.parse_cpu_list("5") == (5,)


def test_no_control_group_means_no_quota(tmp_path: Path) -> None:
    assert cores.quota_cores(tmp_path) is None


def test_version_2_quota_is_read(tmp_path: Path) -> None:
    write(tmp_path, V2 | {"sys/fs/cgroup/user.slice/job.scope/cpu.max": "150000 100000\n"})
    assert cores.quota_cores(tmp_path) == pytest.approx(1.5)


def test_version_2_max_means_no_limit(tmp_path: Path) -> None:
    write(tmp_path, V2 | {"sys/fs/cgroup/user.slice/job.scope/cpu.max": "max 100000\n"})
    assert cores.quota_cores(tmp_path) is None


def test_tighter_ancestor_counts(tmp_path: Path) -> None:
    write(
        tmp_path,
        V2
        | {
            "sys/fs/cgroup/user.slice/job.scope/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/user.slice/cpu.max": "200000 100000\n",
        },
    )
    assert cores.quota_cores(tmp_path) == pytest.approx(2.0)


def test_version_1_quota_is_read_where_the_container_sees_only_its_own_root(tmp_path: Path) -> None:
    write(
        tmp_path,
        V1
        | {
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cores.quota_cores(tmp_path) == pytest.approx(3.0)


def test_version_1_minus_one_means_no_limit(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/cpu,cpuacct/docker/abc"
    write(tmp_path, V1 | {f"{folder}/cpu.cfs_quota_us": "-1", f"{folder}/cpu.cfs_period_us": "100000"})
    assert cores.quota_cores(tmp_path) is None


def test_memory_limit_takes_the_least_and_ignores_no_limit(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory"
    write(
        tmp_path,
        V1
        | {
            f"{folder}/memory.limit_in_bytes": "9223372036854771712",
            f"{folder}/docker/abc/memory.limit_in_bytes": "2147483648",
        },
    )
    assert cores.memory_limit_bytes(tmp_path) == 2 << 30


def test_siblings_count_as_one_core(tmp_path: Path) -> None:
    with_siblings(tmp_path, {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5"})
    assert cores.count_cores((0, 1, 4, 5), tmp_path) == 2
    assert cores.one_per_core((4, 0, 5, 1), tmp_path) == (0, 1)
    assert cores.one_per_core((4, 5), tmp_path) == (4, 5)


@pytest.mark.smoke
def test_usable_cores_is_the_lesser_of_cores_and_whole_quota(tmp_path: Path) -> None:
    with_siblings(tmp_path, {0: "0", 1: "1", 2: "2", 3: "3"})
    assert cores.usable_cores((0, 1, 2, 3), tmp_path) == 4
    write(tmp_path, V2 | {"sys/fs/cgroup/user.slice/job.scope/cpu.max": "250000 100000"})
    assert cores.usable_cores((0, 1, 2, 3), tmp_path) == 2


def test_a_quota_below_one_core_still_leaves_one(tmp_path: Path) -> None:
    write(tmp_path, V2 | {"sys/fs/cgroup/user.slice/job.scope/cpu.max": "50000 100000"})
    assert cores.usable_cores((0, 1), tmp_path) == 1
