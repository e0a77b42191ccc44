"""The service: what systemd says of it, and the settings that measurements and restarts rely on."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path, PurePosixPath

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recipe_files import DEPLOY

from autosparse.errors import ExitCode
from autosparse.measuring.lock import lock_file

SERVICE = DEPLOY / "systemd" / "autosparse.service"
Sections = dict[str, dict[str, list[str]]]


def sections() -> Sections:
    """Gives the values of every key; a key may stand there several times."""
    found: Sections = {}
    section: dict[str, list[str]] = {}
    for line in SERVICE.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = found.setdefault(header[1], defaultdict(list))
            continue
        key, separator, value = line.partition("=")
        assert separator, line
        section[key].append(value)
    return found


@pytest.fixture(scope="module")
def service() -> dict[str, list[str]]:
    return sections()["Service"]


def verified(folder: Path, text: str) -> str:
    """Gives what systemd has against a unit; the command that it starts is one that is there."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = folder / SERVICE.name
    unit.write_text(text.replace("/opt/autosparse/bin/autosparse", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


def test_systemd_has_nothing_against_it(tmp_path: Path) -> None:
    assert verified(tmp_path, SERVICE.read_text()) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "named"),
    [
        ("KillMode=mixed", "KillModus=mixed", "KillModus"),
        ("Restart=on-failure", "Restart=sometimes", "sometimes"),
        ("SystemCallFilter=@system-service", "SystemCallFilter=@services", "@services"),
        ("/opt/autosparse/bin/autosparse", "/nowhere/autosparse", "/nowhere/autosparse"),
    ],
)
def test_systemd_finds_what_is_wrong(tmp_path: Path, right: str, wrong: str, named: str) -> None:
    text = SERVICE.read_text()
    assert right in text
    assert named in verified(tmp_path, text.replace(right, wrong))


def test_only_the_right_ends_start_it_again(service: dict[str, list[str]]) -> None:
    assert service["Restart"] == ["on-failure"]
    hopeless = {int(code) for code in service["RestartPreventExitStatus"][0].split()}
    assert hopeless == {int(ExitCode.USAGE), int(ExitCode.MISSING)}


def test_jobs_end_in_order_and_alone(service: dict[str, list[str]]) -> None:
    assert service["KillMode"] == ["mixed"]
    assert service["OOMPolicy"] == ["continue"]
    assert int(service["TimeoutStopSec"][0]) >= 30


def test_all_users_of_the_machine_see_one_measuring_lock(
    service: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUTOSPARSE_MEASURING_LOCK", raising=False)
    writable = service["ReadWritePaths"][0].split()
    assert str(lock_file().parent) in writable
    assert service["PrivateTmp"] == ["no"]
    assert "DynamicUser" not in service  # it implies PrivateTmp


def test_nothing_hides_what_else_runs_nor_gpus(service: dict[str, list[str]]) -> None:
    assert not {"ProtectProc", "ProcSubset", "PrivateDevices", "PrivatePIDs"} & set(service)


def test_it_writes_below_its_state_folder_alone(service: dict[str, list[str]]) -> None:
    state = PurePosixPath("/var/lib") / service["StateDirectory"][0]
    assert service["ProtectSystem"] == ["strict"]
    assert service["ReadWritePaths"] == ["/tmp"]
    variables = dict(each.split("=", 1) for each in service["Environment"])
    assert PurePosixPath(variables["AUTOSPARSE_HOME"]).is_relative_to(state)
    words = service["ExecStart"][0].split()
    assert PurePosixPath(words[words.index("--results") + 1]).is_relative_to(state)
    assert service["WorkingDirectory"] == [str(state)]


def test_it_has_no_privileges(service: dict[str, list[str]]) -> None:
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == [""]
    assert service["UMask"] == ["0077"]


def test_user_and_settings_are_those_that_are_shipped(service: dict[str, list[str]]) -> None:
    user = re.search(r"^u (\S+) - .* (\S+) \S+$", SERVICE.with_suffix(".sysusers").read_text(), re.M)
    assert user and service["User"] == service["Group"] == [user[1]]
    assert service["WorkingDirectory"] == [user[2]]
    assert service["EnvironmentFile"] == ["-/etc/autosparse/autosparse.env"]
    assert re.search(r"^SERVE_FLAGS=$", SERVICE.with_suffix(".env").read_text(), re.M)
    assert service["ExecStart"][0].endswith(" $SERVE_FLAGS")
