"""CPU description from made-up /proc and /sys trees."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autosparse import hardware
from autosparse.hardware import cpu, doctor, identify
from autosparse.records import CpuProfile, GpuProfile, HardwareProfile, short_hash

CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C
stepping\t: 8
microcode\t: 0x2b000590
flags\t\t: fpu sse2 avx avx2 fma avx512f avx512_bf16 amx_tile amx_bf16 hypervisor

processor\t: 1
vendor_id\t: GenuineIntel
model name\t: something else
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    files = {
        "proc/cpuinfo": CPUINFO,
        "sys/devices/system/cpu/online": "0-3",
        "sys/devices/system/node/node0/cpulist": "0-1",
        "sys/devices/system/node/node1/cpulist": "2-3",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
    }
    for number in range(4):
        files[f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"] = (
            "0,2" if number in (0, 2) else "1,3"
        )
    caches = [
        ("1", "Data", "48K"),
        ("1", "Instruction", "32K"),
        ("2", "Unified", "2048K"),
        ("3", "Unified", "105M"),
    ]
    for index, (level, kind, size) in enumerate(caches):
        folder = f"sys/devices/system/cpu/cpu0/cache/index{index}"
        files |= {f"{folder}/level": level, f"{folder}/type": kind, f"{folder}/size": size}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def describe(root: Path, cpus: tuple[int, ...] = (0, 1, 2, 3), amx: bool = True) -> CpuProfile:
    return cpu.detect_cpu(root, cpus, lambda: amx)


@pytest.mark.smoke
def test_every_field_is_read(machine: Path) -> None:
    found = describe(machine)
    assert (found.model, found.vendor) == ("Intel(R) Xeon(R) Platinum 8481C", "GenuineIntel")
    assert (found.cores_logical, found.cores_physical, found.cores_usable, found.smt) == (4, 2, 2, True)
    assert (found.l1d_bytes, found.l2_bytes, found.l3_bytes) == (48 << 10, 2 << 20, 105 << 20)
    assert (found.numa_nodes, found.governor, found.turbo) == (2, "powersave", True)
    assert (found.microcode, found.is_virtual) == ("0x2b000590", True)
    assert found.simd_width_bits == 512
    assert "amx_bf16" in found.isa_usable


def test_refused_amx_is_had_but_not_usable(machine: Path) -> None:
    found = describe(machine, amx=False)
    assert "amx_bf16" in found.isa_cpu
    assert not [name for name in found.isa_usable if name.startswith("amx")]
    assert "avx512f" in found.isa_usable


def test_amx_is_asked_for_only_where_reported(machine: Path) -> None:
    (machine / "proc/cpuinfo").write_text(CPUINFO.replace("amx_tile amx_bf16", ""))

    def refuse() -> bool:
        raise AssertionError("asked without need")

    assert cpu.detect_cpu(machine, (0,), refuse).isa_usable


def test_one_of_each_core_is_no_smt(machine: Path) -> None:
    assert not describe(machine, (0, 1)).smt


@pytest.mark.parametrize(
    ("flags", "width"), [("sse2 avx2", 256), ("sse2", 128), ("asimd", 128), ("avx512f avx2", 512)]
)
def test_simd_width(flags: str, width: int, tmp_path: Path) -> None:
    assert cpu.simd_width_bits(tuple(flags.split()), tmp_path) == width


def test_scalable_vectors_report_their_length(tmp_path: Path) -> None:
    length = tmp_path / "proc/sys/abi/sve_default_vector_length"
    length.parent.mkdir(parents=True)
    length.write_text("32\n")
    assert cpu.simd_width_bits(("asimd", "sve"), tmp_path) == 256


def test_unreadable_caches_are_asked_of_py_cpuinfo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"l1_data_cache_size": 32768, "l2_cache_size": "1 MiB", "l3_cache_size": 6291456}
    monkeypatch.setattr(cpu, "_all_of_cpuinfo", lambda: known)
    assert cpu.cache_sizes(0, tmp_path) == (32768, 1 << 20, 6 << 20)


def identity(found: CpuProfile, step: str = "6.143.8") -> str:
    return identify(found, step)


def test_id_ignores_what_varies_from_day_to_day(machine: Path) -> None:
    found = describe(machine)
    today = replace(
        found,
        governor="performance",
        turbo=False,
        microcode="0x2b000639",
        affinity=(4, 5, 6, 7),
        quota_cores=2.0,
        f32_gflops_core=9.0,
    )
    assert identity(today) == identity(found)


@pytest.mark.smoke
@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"isa_usable": ("avx2",)},
        {"cores_usable": 1},
        {"l2_bytes": 1},
    ],
)
def test_id_follows_what_decides_a_latency(machine: Path, change: dict[str, object]) -> None:
    found = describe(machine)
    assert identity(replace(found, **change)) != identity(found)  # type: ignore[arg-type]


GPU = GpuProfile(
    index=0,
    name="NVIDIA H100",
    uuid="GPU-1",
    compute_capability="9.0",
    architecture="Hopper",
    multiprocessors=132,
    memory_bytes=80 << 30,
    max_sm_clock_mhz=1980,
    max_memory_clock_mhz=2619,
    power_cap_watts=700.0,
    mig=False,
    driver="550.54",
    sparse_tensor_cores=True,
)


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Lets the host be described anew, now and afterwards."""
    caches = (hardware.describe, hardware.former_ids)
    for each in caches:
        each.cache_clear()
    yield
    for each in caches:
        each.cache_clear()


def test_gpus_come_and_go_without_another_id_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    alone = hardware.describe()
    monkeypatch.setattr("autosparse.hardware.gpu.detect_gpus", lambda: ((GPU, GPU), ""))
    hardware.describe.cache_clear()
    hardware.former_ids.cache_clear()
    beside = hardware.describe()
    assert beside.gpus == (GPU, GPU)
    assert beside.hardware_id == alone.hardware_id
    # What an earlier version stored on the host with its GPUs is still this host's.
    lasting = {name: getattr(beside.cpu, name) for name in hardware._LASTING}
    [former] = hardware.former_ids()
    assert former == short_hash([lasting, cpu.stepping(), ["NVIDIA H100", "NVIDIA H100"]], 12)
    assert hardware.is_here(former) and hardware.is_here(alone.hardware_id)
    assert not hardware.is_here("0123456789ab")


def test_limits_measured_under_a_former_id_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    monkeypatch.setenv("AUTOSPARSE_HOME", str(tmp_path))
    monkeypatch.setattr("autosparse.hardware.gpu.detect_gpus", lambda: ((GPU,), ""))
    [former] = hardware.former_ids()
    limits = hardware.MachineLimits(f32_gflops_core=7.0, f32_gflops_all=14.0)
    hardware.save_limits(former, limits)
    assert hardware.detect().cpu.f32_gflops_core == 7.0
    hardware.save_limits(hardware.hardware_id(), replace(limits, f32_gflops_core=8.0))
    assert hardware.detect().cpu.f32_gflops_core == 8.0


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({"index": 3, "uuid": "GPU-4", "driver": "570.1", "power_cap_watts": 650.0}, True),
        ({"name": "NVIDIA A100"}, False),
        ({"memory_bytes": 40 << 30}, False),
        ({"mig": True}, False),
    ],
)
def test_a_gpu_has_an_id_of_its_own(changes: dict[str, Any], is_same: bool) -> None:
    assert (replace(GPU, **changes).device_id == GPU.device_id) is is_same


def test_id_follows_stepping(machine: Path) -> None:
    found = describe(machine)
    assert cpu.stepping(machine) == "6.143.8"
    assert identity(found, step="6.143.9") != identity(found)


def test_this_host_is_described_quickly_and_repeatably() -> None:
    started = time.perf_counter()
    first = hardware.detect()
    assert time.perf_counter() - started < 2.0
    assert first.hardware_id == hardware.hardware_id()
    assert len(first.hardware_id) == 12
    assert 1 <= first.cpu.cores_usable <= first.cpu.cores_logical
    assert HardwareProfile.from_json(first.to_json()) == first


def test_kept_limits_appear_in_the_profile() -> None:
    limits = hardware.MachineLimits(
        f32_gflops_core=100.0, f32_gflops_all=190.0, read_gbytes_per_s={"l1": 300.0, "dram": 12.0}
    )
    hardware.save_limits(hardware.hardware_id(), limits)
    found = hardware.detect().cpu
    assert (found.f32_gflops_core, found.f32_gflops_all, found.bf16_gflops_core) == (100.0, 190.0, None)
    assert found.read_gbytes_per_s == {"l1": 300.0, "dram": 12.0}


def test_damaged_limits_are_measured_anew(own_home: Path) -> None:
    folder = own_home / "limits"
    folder.mkdir()
    (folder / "abc.json").write_text('{"f32_gflops_core": 1')
    assert hardware.load_limits("abc") is None


def by_name(findings: tuple[doctor.Finding, ...]) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in findings}


def test_doctor_names_siblings_governor_turbo_and_hypervisor(machine: Path) -> None:
    found = by_name(
        (
            *doctor.check_siblings(machine, (0, 1, 2, 3)),
            *doctor.check_clocks(machine),
            *doctor.check_virtual(machine),
        )
    )
    assert found["smt"].severity == "warn"
    assert "taskset -c 0,1" in found["smt"].remedy
    assert "powersave" in found["governor"].message
    assert found["turbo"].severity == "warn"
    assert found["virtual machine"].severity == "warn"


def test_doctor_is_content_with_one_thread_per_core(machine: Path) -> None:
    assert by_name(tuple(doctor.check_siblings(machine, (0, 1))))["smt"].severity == "ok"


def test_doctor_names_a_quota_below_the_cores(machine: Path) -> None:
    for name, text in {
        "proc/self/cgroup": "0::/",
        "proc/self/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0",
        "sys/fs/cgroup/cpu.max": "150000 100000",
    }.items():
        (machine / name).parent.mkdir(parents=True, exist_ok=True)
        (machine / name).write_text(text)
    [finding] = doctor.check_quota(machine, (0, 1))
    assert finding.severity == "warn"
    assert "1.5" in finding.message


def test_doctor_names_busy_processors() -> None:
    count = len(hardware.affinity())
    [busy] = doctor.check_busy(lambda: [80.0] * 64)
    assert busy.severity == "warn"
    assert busy.message.count("80 %") == count
    [idle] = doctor.check_busy(lambda: [3.0] * 64)
    assert idle.severity == "ok"


def test_doctor_fails_on_a_missing_library_and_only_notes_an_optional_one() -> None:
    found = list(doctor.check_libraries(lambda module: module not in ("ray", "timm")))
    assert [(finding.name, finding.severity) for finding in found] == [
        ("ray", "fail"),
        ("optional libraries", "ok"),
    ]
    assert "timm" in found[1].message


def test_doctor_fails_on_an_unwritable_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSPARSE_HOME", "/proc/nowhere")
    [finding] = doctor.check_home()
    assert (finding.name, finding.severity) == ("home", "fail")


def test_doctor_looks_at_this_host_without_moving_it() -> None:
    before = os.sched_getaffinity(0)
    names = [finding.name for finding in hardware.examine()]
    assert os.sched_getaffinity(0) == before
    assert {"kernels", "home", "pinning", "quota", "smt", "load", "memory"} <= set(names)
