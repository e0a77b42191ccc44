"""What nodes of a Ray cluster say of themselves by labels and resources, and who may work on which.

A node is started with its labels: `ray start --labels "$(autosparse profile --node-label)"`. A node may
be reserved for measuring, by its role or by a resource of its own, of which a measurement takes all:
`ray start --resources '{"autosparse_measure": 1}'`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autosparse.errors import ConfigError

HARDWARE_LABEL = "autosparse.io/hardware-id"
ROLE_LABEL = "autosparse.io/role"
MEASURE, TRAIN = ROLES = ("measure", "train")
RESOURCE = "autosparse_measure"
NODE_LABEL = "ray.io/node-id"


def node_label(hardware_id: str, role: str | None = None) -> str:
    """Gives what a node is started with, as `ray start --labels` takes it.

    Args:
        hardware_id: of the node.
        role: what alone it is for; None for all.
    """
    pairs = {HARDWARE_LABEL: hardware_id, **({} if role is None else {ROLE_LABEL: role})}
    return ",".join(f"{name}={value}" for name, value in pairs.items())


def roles_of(node: Mapping[str, Any]) -> tuple[str, ...]:
    """Gives what a node is for: measuring, training, or both.

    Args:
        node: as `ray.nodes` tells of it.

    Raises:
        ConfigError: its label names another role.
    """
    role = node.get("Labels", {}).get(ROLE_LABEL)
    if role is None:
        return (MEASURE,) if node.get("Resources", {}).get(RESOURCE) else ROLES
    if role not in ROLES:
        raise ConfigError(
            f"the label {ROLE_LABEL} of a node must be {' or '.join(ROLES)}, but node "
            f"{node['NodeManagerHostname']} has {role!r}; start it with one of them, or without"
        )
    return (role,)


def training_nodes(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Gives the living nodes that train: those with that role alone, else all that are not reserved."""
    alive = [node for node in nodes if node["Alive"] and node.get("Resources", {}).get("CPU", 0) > 0]
    alone = [node for node in alive if roles_of(node) == (TRAIN,)]
    return alone or [node for node in alive if TRAIN in roles_of(node)]


def training_selector(nodes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Gives the labels by which Ray keeps training off nodes that it does not belong on.

    Nodes are named that are left out: one that joins later may train at once. Where none trains now,
    training waits for one.
    """
    chosen = {node["NodeID"] for node in training_nodes(nodes)}
    others = sorted(node["NodeID"] for node in nodes if node["Alive"] and node["NodeID"] not in chosen)
    # Without blanks, which Ray takes for a part of the name.
    return {NODE_LABEL: f"!in({','.join(others)})"} if others else {}
