"""The batch script: what it asks Slurm for, and a run on two nodes by a real `ray symmetric-run`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recipe_files import DEPLOY

SCRIPT = DEPLOY / "slurm" / "search.sbatch"
RIG = Path(__file__).parent / "slurm_rig.sh"
JOB = f"{os.getpid()}"

# What Slurm does with one task a node: it starts the command on both nodes, and ends when both have.
# That of Ray never ends on the second, as it may happen.
SRUN = r"""#!/bin/bash
echo "$*" >> "$RIG/srun.calls"
while [[ $1 == --* ]]; do shift; done
echo $$ > "$RIG/step"
last=true
if [[ $1 == ray ]]; then last="sleep 600"; fi
nsenter --target "$SECOND" --net --pid --mount -- \
    bash -c 'last=$1; cd "$2"; shift 2; "$@"; $last' - "$last" "$PWD" "$@" > "$RIG/second.log" 2>&1 &
worst=0
"$@" || worst=$?
wait $! || worst=$?
exit "$worst"
"""
SCANCEL = """#!/bin/bash
echo "$*" >> "$RIG/scancel.calls"
kill -TERM "$(< "$RIG/step")"
"""
# A search that says who is in its cluster, how it was called, and that the budget is out of reach.
SEARCH = """#!{python}
import json, os, sys, time
import ray
ray.init(address=sys.argv[sys.argv.index("--address") + 1], log_to_driver=False)
nodes = sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])
where = ray.remote(scheduling_strategy="SPREAD")(ray.util.get_node_ip_address)
ran = set()
until = time.monotonic() + 60
while len(ran) < len(nodes) and time.monotonic() < until:
    ran |= set(ray.get([where.remote() for _ in range(8)]))
found = dict(words=sys.argv[1:], nodes=nodes, ran=sorted(ran), mode=os.environ["RAY_AUTH_MODE"])
with open(os.environ["RIG"] + "/search.json", "w") as file:
    json.dump(found, file)
sys.exit(3)
"""


def tools(folder: Path) -> Path:
    """Makes a folder of programs, of Slurm's and of an environment that autosparse is installed in."""
    (folder / "bin").mkdir(parents=True)
    here = Path(sys.executable).parent
    texts = {
        "srun": SRUN,
        "scancel": SCANCEL,
        "autosparse": SEARCH.format(python=sys.executable),
        "ray": f'#!/bin/bash\nexec {here / "ray"} "$@"\n',
        "python": f'#!/bin/bash\nexec {sys.executable} "$@"\n',
    }
    for name, text in texts.items():
        file = folder / "bin" / name
        file.write_text(text)
        file.chmod(0o755)
    return folder


def settings() -> dict[str, str | None]:
    found = re.findall(r"^#SBATCH --([a-z-]+)(?:=(.+))?$", SCRIPT.read_text(), re.M)
    assert len(found) == SCRIPT.read_text().count("\n#SBATCH")
    return {name: value or None for name, value in found}


def may_make_namespaces() -> bool:
    for name in ("unshare", "nsenter", "ip", "pgrep"):
        if shutil.which(name) is None:
            return False
    tried = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--mount"]
    network = "ip link add name first type veth peer name second"
    return (
        subprocess.run([*tried, "sh", "-c", network], capture_output=True, timeout=60).returncode == 0
    )


def test_bash_takes_it() -> None:
    done = subprocess.run(["bash", "-n", str(SCRIPT)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_nodes_are_its_own_and_have_one_task_each() -> None:
    asked = settings()
    assert {"exclusive", "requeue", "no-kill"} <= set(asked)
    assert asked["ntasks-per-node"] == "1" and asked["mem"] == "0"
    lines = SCRIPT.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first:])  # Slurm would not read it


def test_without_an_environment_it_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(SCRIPT)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode != 0
    assert "export VENV=" in done.stderr


@pytest.mark.long
def test_two_nodes_form_a_cluster_search_and_end(tmp_path: Path) -> None:
    if not may_make_namespaces():
        pytest.skip(
            "namespaces of processes and networks cannot be made here; they take root and iproute2"
        )
    venv = tools(tmp_path / "venv")
    temporary = Path(f"/tmp/as-{JOB}")
    environment = {
        **{
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))
        },
        "PATH": f"{venv / 'bin'}:{os.environ['PATH']}",
        "VENV": str(venv),
        "RIG": str(tmp_path),
        "SCRIPT": str(SCRIPT),
        "SLURM_JOB_ID": JOB,
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_SUBMIT_DIR": str(tmp_path),
    }
    alone = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount"]
    try:
        done = subprocess.run(
            [*alone, "bash", str(RIG)],
            capture_output=True,
            text=True,
            timeout=240,
            cwd=tmp_path,
            env=environment,
        )
    finally:
        left = temporary.exists() and [file.name for file in temporary.iterdir()]
        shutil.rmtree(temporary, ignore_errors=True)
    told = done.stdout + done.stderr
    assert done.returncode == 3, told
    found = json.loads((tmp_path / "search.json").read_text())
    assert found["nodes"] == found["ran"] == ["10.77.0.1", "10.77.0.2"]
    assert found["mode"] == "token"
    results = ["--out", str(tmp_path / "results")]
    assert found["words"] == [
        *("search", "--address", "10.77.0.1:6379", *results),
        *("--model", "resnet18", "--seed", "3"),
    ]
    assert (tmp_path / "scancel.calls").read_text() == f"{JOB}.0\n"
    steps = (tmp_path / "srun.calls").read_text().splitlines()
    assert len(steps) == 2
    assert all(step.startswith("--nodes=2 --ntasks-per-node=1 ") for step in steps)
    assert left is False
