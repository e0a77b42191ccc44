"""The manifests, as written and as rendered: against the schemas, and what pods rely on to measure."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from recipe_files import KUBERNETES, MANIFESTS, ROOT, documents

from autosparse.config import OTHER_VARIABLES, SearchConfig, variable
from autosparse.version import __version__

Object = dict[str, Any]
SCHEMA = json.loads((Path(__file__).parent / "kuberay.schema.json").read_text())
# The oldest release that was still maintained when these were written, and the newest known here.
VERSIONS = ("1.33", kubernetes_validate.latest_version())
SECONDS_A_WEEK = 7 * 86400

OBJECTS: list[Object] = [each for file in MANIFESTS for each in documents(file)]
BY_KIND = {each["kind"]: each for each in OBJECTS}
OVERLAYS = sorted(file.parent.name for file in KUBERNETES.rglob("kustomization.yaml"))


def is_of_ray(value: Object) -> bool:
    return str(value["apiVersion"]).startswith("ray.io/")


def templates(value: Any) -> Iterator[Object]:
    """Gives every template of a pod in an object."""
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}):
            yield value
        for each in value.values():
            yield from templates(each)
    elif isinstance(value, list):
        for each in value:
            yield from templates(each)


def ids(pods: list[tuple[str, Object]]) -> list[str]:
    return [name for name, _ in pods]


PODS = [
    (f"{each['kind']}-{pod['metadata']['labels']['app.kubernetes.io/component']}", pod)
    for each in OBJECTS
    for pod in templates(each)
]
MEASURING = [(name, pod) for name, pod in PODS if "autosparse.io/measures" in pod["metadata"]["labels"]]
each_pod = pytest.mark.parametrize("pod", [pod for _, pod in PODS], ids=ids(PODS))
each_measuring_pod = pytest.mark.parametrize("pod", [pod for _, pod in MEASURING], ids=ids(MEASURING))


def check(value: Object) -> None:
    """Refuses an object that its schema does not have, its templates of pods included."""
    if is_of_ray(value):
        jsonschema.Draft202012Validator(SCHEMA).validate(value)
    for version in VERSIONS:
        if not is_of_ray(value):
            kubernetes_validate.validate(value, version, strict=True)
        for pod in templates(value):
            whole = {"apiVersion": "v1", "kind": "Pod", **pod}
            kubernetes_validate.validate(whole, version, strict=True)


def rendered(overlay: str) -> list[Object]:
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            done = subprocess.run(
                [*command, str(KUBERNETES / overlay)], capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
            return [each for each in yaml.safe_load_all(done.stdout) if each]
    pytest.skip("neither kubectl nor kustomize is installed")


# ------------------------------------------------------------------------------------------ schemas


def test_there_are_the_objects_that_the_recipes_promise() -> None:
    assert sorted(each["kind"] for each in OBJECTS) == [
        "Deployment",
        "Namespace",
        "PersistentVolumeClaim",
        "PersistentVolumeClaim",
        "RayCronJob",
        "RayJob",
        "Service",
    ]
    assert len(PODS) == 1 + 2 * 4


@pytest.mark.parametrize(
    "value", OBJECTS, ids=[f"{e['kind']}-{e['metadata']['name']}" for e in OBJECTS]
)
def test_each_object_fits_its_schema(value: Object) -> None:
    check(value)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_overlay_renders_to_objects_that_fit(overlay: str) -> None:
    found = rendered(overlay)
    assert len({(e["kind"], e["metadata"]["name"]) for e in found}) == len(found)
    for each in found:
        check(each)
        assert each["metadata"].get("namespace", "autosparse") == "autosparse"
        if overlay in ("daemon", "search", "weekly") and each["kind"] != "Namespace":
            assert each["metadata"]["namespace"] == "autosparse"


def test_a_registry_is_named_in_one_place(tmp_path: Path) -> None:
    moved = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, moved)
    for overlay in ("daemon", "search", "weekly"):
        file = moved / overlay / "kustomization.yaml"
        text = file.read_text()
        assert text.count("newName: autosparse\n") == 1
        file.write_text(text.replace("newName: autosparse\n", "newName: registry.example/ours\n"))
        found = [
            container["image"]
            for each in rendered(str(moved / overlay))
            for pod in templates(each)
            for container in pod["spec"]["containers"]
        ]
        assert set(found) == {f"registry.example/ours:{__version__}"}


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", "spec.replica", 1),
        ("Deployment", "spec.replicas", "one"),
        ("Deployment", "spec.template.spec.securityContext.runAsNonroot", True),
        ("Service", "spec.ports", [{"port": "https"}]),
        ("RayJob", "spec.entryPoint", "autosparse"),
        ("RayJob", "spec.activeDeadlineSeconds", 0),
        ("RayJob", "spec.submissionMode", "SidecarMode"),
        ("RayJob", "spec.shutdownAfterJobFinishes", False),
        ("RayJob", "spec.rayClusterSpec.rayVersion", 2.6),
        ("RayJob", "spec.rayClusterSpec.authOptions.mode", "yes"),
        ("RayJob", "spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("RayJob", "spec.rayClusterSpec.headGroupSpec.template.spec.hostNam", "head"),
        ("RayJob", "spec.rayClusterSpec.workerGroupSpecs.0.rayStartParams.labels", "a=b"),
        ("RayJob", "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.img", "x"),
        ("RayJob", "metadata.name", "Search"),
        ("RayCronJob", "spec.concurrencyPolicy", "Forbid"),
        ("RayCronJob", "spec.schedule", "TZ=UTC 0 3 * * 0"),
        ("RayCronJob", "spec.schedule", "0 3 * *"),
        ("RayCronJob", "spec.timeZone", ""),
        ("RayCronJob", "spec.jobTemplate.spec", {}),
    ],
)
def test_what_does_not_fit_is_found(kind: str, path: str, value: Any) -> None:
    changed = copy.deepcopy(BY_KIND[kind])
    *folders, last = path.split(".")
    place: Any = changed
    for name in folders:
        place = place[int(name)] if isinstance(place, list) else place[name]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        check(changed)


# --------------------------------------------------------------------------------------------- pods


@each_pod
def test_pods_are_restricted(pod: Object) -> None:
    """What the profile `restricted`, which the namespace enforces, asks of them."""
    spec = pod["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    security = spec["securityContext"]
    assert security["runAsNonRoot"] and security["seccompProfile"] == {"type": "RuntimeDefault"}
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "persistentVolumeClaim", "secret"}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert not {"hostPort"} & {key for port in container.get("ports", []) for key in port}
    labels = BY_KIND["Namespace"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@each_pod
def test_pods_run_as_the_user_of_the_image(pod: Object) -> None:
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    user = re.search(r"^USER (\d+):(\d+)$", dockerfile, re.M)
    assert user
    security = pod["spec"]["securityContext"]
    assert [security["runAsUser"], security["runAsGroup"]] == [int(user[1]), int(user[2])]
    assert security["fsGroup"] == int(user[2])
    assert security["fsGroupChangePolicy"] == "OnRootMismatch"  # always: the token's file is opened


@each_pod
def test_no_variable_of_the_cluster_is_taken_for_a_setting(pod: Object) -> None:
    """A Service `autosparse` would set AUTOSPARSE_PORT, and variables of such names are settings."""
    assert pod["spec"]["enableServiceLinks"] is False
    assert pod["spec"]["automountServiceAccountToken"] is False
    known = {*OTHER_VARIABLES, *map(variable, SearchConfig.model_fields)}
    names = {env["name"] for each in pod["spec"]["containers"] for env in each.get("env", [])}
    assert {name for name in names if name.startswith("AUTOSPARSE_")} <= known


@each_pod
def test_mounts_have_their_volumes_and_temporary_files_a_place(pod: Object) -> None:
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    for container in pod["spec"]["containers"]:
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) <= volumes
        assert "/tmp" in mounts


@each_pod
def test_images_are_of_this_version(pod: Object) -> None:
    assert {each["image"] for each in pod["spec"]["containers"]} == {f"autosparse:{__version__}"}


@each_measuring_pod
def test_what_measures_has_whole_processors_of_its_own(pod: Object) -> None:
    for container in pod["spec"]["containers"]:
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        assert re.fullmatch(r"[1-9]\d*", resources["limits"]["cpu"])
        assert "memory" in resources["limits"]


@each_measuring_pod
def test_one_pod_measures_on_a_node(pod: Object) -> None:
    rules = pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    [rule] = rules
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    wanted = rule["labelSelector"]["matchLabels"]
    assert wanted and wanted.items() <= pod["metadata"]["labels"].items()


def test_claims_are_there_and_sqlite_is_on_one_pod() -> None:
    claims = {e["metadata"]["name"]: e for e in OBJECTS if e["kind"] == "PersistentVolumeClaim"}
    named = {
        volume["persistentVolumeClaim"]["claimName"]
        for _, pod in PODS
        for volume in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert named == set(claims)
    assert claims["autosparse-daemon"]["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert claims["autosparse-cluster"]["spec"]["accessModes"] == ["ReadWriteMany"]
    daemon = BY_KIND["Deployment"]["spec"]
    assert daemon["replicas"] == 1 and daemon["strategy"] == {"type": "Recreate"}


# -------------------------------------------------------------------------------------------- daemon


def test_the_service_finds_the_daemon_and_its_port() -> None:
    service, daemon = BY_KIND["Service"]["spec"], BY_KIND["Deployment"]["spec"]
    labels = daemon["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert daemon["selector"]["matchLabels"].items() <= labels.items()
    [container] = daemon["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert [port["targetPort"] for port in service["ports"]] == list(ports)
    assert f"--port={ports['https']}" in container["args"]


def test_probes_ask_by_a_name_that_the_daemon_answers_to() -> None:
    [container] = BY_KIND["Deployment"]["spec"]["template"]["spec"]["containers"]
    service = BY_KIND["Service"]["metadata"]["name"]
    name = f"{service}.{BY_KIND['Namespace']['metadata']['name']}.svc"
    assert f"--allowed-host={name}" in container["args"]
    paths = {}
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[kind]["httpGet"]
        paths[kind] = asked["path"]
        assert asked["scheme"] == "HTTPS" and asked["port"] == "https"
        assert asked["httpHeaders"] == [{"name": "Host", "value": name}]
    assert paths == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }


def test_the_daemon_is_reached_by_tls_alone() -> None:
    spec = BY_KIND["Deployment"]["spec"]["template"]["spec"]
    [container] = spec["containers"]
    flags = dict(word.removeprefix("--").split("=", 1) for word in container["args"][1:])
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    [secret] = [v["secret"]["secretName"] for v in spec["volumes"] if v["name"] == "tls"]
    assert flags["host"] == "0.0.0.0"
    assert flags["tls-cert"] == f"{mounts['tls']}/tls.crt"
    assert flags["tls-key"] == f"{mounts['tls']}/tls.key"
    assert flags["results"].startswith(f"{mounts['state']}/")
    assert f"create secret tls {secret} " in (ROOT / "deploy" / "README.md").read_text()


# ---------------------------------------------------------------------------------------------- Ray


def test_the_weekly_search_is_the_one_search() -> None:
    assert BY_KIND["RayCronJob"]["spec"]["jobTemplate"] == BY_KIND["RayJob"]["spec"]


def test_searches_of_two_weeks_do_not_meet() -> None:
    spec = BY_KIND["RayCronJob"]["spec"]
    assert re.fullmatch(r"\d+ \d+ \* \* \d", spec["schedule"])
    job = spec["jobTemplate"]
    longest = job["preRunningDeadlineSeconds"] + job["activeDeadlineSeconds"]
    assert longest + job["ttlSecondsAfterFinished"] < SECONDS_A_WEEK


def test_ray_is_that_of_the_image_and_asks_for_a_token() -> None:
    cluster = BY_KIND["RayJob"]["spec"]["rayClusterSpec"]
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned and cluster["rayVersion"] == pinned[1]
    assert cluster["authOptions"] == {"mode": "token"}


def test_the_search_measures_on_the_pod_that_is_for_it() -> None:
    spec = BY_KIND["RayJob"]["spec"]
    [name] = re.findall(r"--host node:(\S+)", spec["entrypoint"])
    groups = {group["groupName"]: group for group in spec["rayClusterSpec"]["workerGroupSpecs"]}
    measures = [group for group in groups.values() if group["template"]["spec"].get("hostname") == name]
    [group] = measures
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 1
    assert "autosparse.io/measures" in group["template"]["metadata"]["labels"]
    head = spec["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"] == {"num-cpus": "0"}
    assert "--address auto" in spec["entrypoint"]


def test_no_shell_changes_the_entrypoint() -> None:
    """KubeRay puts it into the script of the pod that submits it."""
    assert re.fullmatch(r"[\w ./:=-]+", BY_KIND["RayJob"]["spec"]["entrypoint"])
