"""`volagent node`: take VMs out of use and back, say that one is off, let one go for good."""

import time
from collections.abc import Iterator
from typing import Any

import click

from volagent.cli.connection import MERGE_PATCH, Api, object_path
from volagent.cli.errors import CommandError, Refused
from volagent.cli.options import parse_duration, talks_to_daemon
from volagent.cli.output import clean, print_line, print_note
from volagent.client.contract import (
    CSI_NODES,
    LEASES,
    NODES,
    PERSISTENT_VOLUMES,
    PODS,
    VOLUME_ATTACHMENTS,
)
from volagent.objects.attachments import CONFIRMED_BOOT, OUT_OF_SERVICE, VOLUME
from volagent.objects.fencing import FAIL_OVER
from volagent.objects.meta import Document
from volagent.objects.node_affinity import is_only_on

LOOK_AGAIN_S = 0.5
LEASE_NAMESPACE = "kube-node-lease"


@click.group()
def node() -> None:
    """Look after the VMs of a cluster."""


@node.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@talks_to_daemon
def cordon(api: Api, names: tuple[str, ...]) -> None:
    """Let no further pods come to a node; those that are there stay."""
    for name in names:
        _set_unschedulable(api, name, True)
        print_line(f"node {name} is cordoned")


@node.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@talks_to_daemon
def uncordon(api: Api, names: tuple[str, ...]) -> None:
    """Let pods come to a node again."""
    for name in names:
        _set_unschedulable(api, name, False)
        print_line(f"node {name} is open for pods")


@node.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask")
@click.option("--timeout", "timeout_s", type=parse_duration, default="5m",
              help="How long to wait until it is empty  [default: 5m]")  # fmt: skip
@talks_to_daemon
def drain(api: Api, name: str, yes: bool, timeout_s: float) -> None:
    """Cordon a node, withdraw its pods and wait until no disk is attached to it.

    Pods are deleted: who declared them declares them again, without a node or for another one.
    """
    _set_unschedulable(api, name, True)
    print_note(f"node {name} is cordoned")
    pods = _pods_on(api, name)
    if pods and not yes:
        print_note("\n".join(("these pods will be deleted:", *(f"  {_full(p)}" for p in pods))))
        _confirm("Delete them?", "no pod was deleted; the node stays cordoned")
    for pod in pods:
        _delete(api, object_path(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"]))
    deadline_s = time.monotonic() + timeout_s
    while left := [*map(_full, _pods_on(api, name)), *_disks_on(api, name)]:
        if time.monotonic() > deadline_s:
            shown = ", ".join(left[:5])
            raise CommandError(
                f"not empty after {timeout_s:.0f} s: {shown}",
                hint=f"volagent explain pod/NAME says why; is the agent of {name} running?",
            )
        time.sleep(LOOK_AGAIN_S)
    print_line(f"node {name} is drained")


@node.command("confirm-off")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask")
@talks_to_daemon
def confirm_off(api: Api, name: str, yes: bool) -> None:
    """Say that a VM is off: its pods leave it, and its disks may go to other nodes.

    Pods that a scheduler placed are declared again; others are forgotten.

    This is the proof that nothing else gives. A machine that is said to be off and writes on will
    destroy what is on its disks.
    """
    document = _find(api, object_path(NODES, name=name))
    if document is not None and _is_ready(document):
        raise CommandError(
            f"node {name} is not off: its agent was heard of moments ago",
            hint="cut its power first; or empty it in order: volagent node drain " + name,
        )
    for line in _describe_loss_of(api, name):
        print_note(line)
    if not yes:
        _confirm(f"Is {name} off, and sure to stay off until it boots anew?", "nothing was changed")
    boot = _boot_of(document)
    taint = {"key": OUT_OF_SERVICE, "effect": "NoExecute"}
    metadata: Document = {"annotations": {CONFIRMED_BOOT: boot}}
    if document is None:
        # Somebody deleted the Node; what it had is still its own until this is said.
        new = {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, **metadata},
            "spec": {"taints": [taint], "unschedulable": True},
        }  # fmt: skip
        _ask(api, "POST", object_path(NODES), new, f"confirm that {name} is off")
    else:
        taints = document.get("spec", {}).get("taints") or []
        others = [each for each in taints if each["key"] != OUT_OF_SERVICE]
        metadata["resourceVersion"] = document["metadata"]["resourceVersion"]
        change = {"metadata": metadata, "spec": {"taints": [*others, taint]}}
        path = object_path(NODES, name=name)
        _ask(api, "PATCH", path, change, f"confirm that {name} is off")
    print_line(f"node {name} is out of service; it is in service again when it boots anew")


@node.command("fail-over")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask")
@talks_to_daemon
def fail_over(api: Api, names: tuple[str, ...], yes: bool) -> None:
    """Have the disks of lost nodes taken although many nodes are lost at once.

    When that is so, the servers' own network may be what fails, and nothing is taken from any node.
    This ends that for these nodes. It is no proof: each disk still needs one that its node cannot
    write any more.
    """
    for name in names:
        document = _find(api, object_path(NODES, name=name))
        if document is None:
            raise CommandError(f"node {name} not found")
        if _is_ready(document):
            raise CommandError(
                f"node {name} is not lost: its agent was heard of moments ago",
                hint=f"empty it in order: volagent node drain {name}",
            )
    if not yes:
        _confirm(f"Are {', '.join(names)} really lost, and not the network?", "nothing was changed")
    for name in names:
        boot = _boot_of(_find(api, object_path(NODES, name=name)))
        change = {"metadata": {"annotations": {FAIL_OVER: boot}}}
        _ask(api, "PATCH", object_path(NODES, name=name), change, f"have {name} failed over")
        print_line(f"the disks of node {name} are taken as soon as each is proved free")


@node.command()
@click.argument("name")
@click.option("--accept-loss", is_flag=True,
              help="Give up the volumes that are on this node only, without asking")  # fmt: skip
@talks_to_daemon
def retire(api: Api, name: str, accept_loss: bool) -> None:
    """Let a node go for good, with the volumes that are on it only.

    It must be off (confirm-off) or drained. Its own volumes are forgotten, their claims are Lost;
    whatever is on the machine's disks stays there.
    """
    document = _find(api, object_path(NODES, name=name))
    if document is None:
        raise CommandError(f"node {name} not found")
    _check_empty(api, name, document)
    volumes = [
        volume
        for volume in api.get(object_path(PERSISTENT_VOLUMES))["items"]
        if is_only_on(volume["spec"].get("nodeAffinity"), name)
    ]
    for volume in volumes:
        reference = volume["spec"].get("claimRef") or {}
        whose = f"{reference.get('namespace')}/{reference.get('name')}" if reference else "nobody"
        print_note(f"  volume {volume['metadata']['name']} of {whose} is on {name} only")
    if volumes and not accept_loss:
        text = f"Give up {len(volumes)} volume(s), and the data on them?"
        _confirm(text, "nothing was changed")
    for volume in volumes:
        _forget_volume(api, volume["metadata"]["name"])
    for path in (
        object_path(LEASES, LEASE_NAMESPACE, name),
        object_path(CSI_NODES, name=name),
        object_path(NODES, name=name),
    ):
        _delete(api, path)
    print_line(f"node {name} is retired, and {len(volumes)} volume(s) with it")


def _check_empty(api: Api, name: str, document: Document) -> None:
    """Raises `CommandError` while something of the node is in use."""
    left = [*map(_full, _pods_on(api, name)), *_disks_on(api, name)]
    off = any(t["key"] == OUT_OF_SERVICE for t in document.get("spec", {}).get("taints") or ())
    if left:
        remedy = f"volagent node drain {name}; if it is gone: volagent node confirm-off {name}"
        raise CommandError(f"node {name} is not empty: {', '.join(left[:5])}", hint=remedy)
    if _is_ready(document) and not document["spec"].get("unschedulable"):
        raise CommandError(
            f"node {name} is in service", hint=f"drain it first: volagent node drain {name}"
        )
    if not _is_ready(document) and not off:
        raise CommandError(
            f"nobody knows whether node {name} is off",
            hint=f"look, then say so: volagent node confirm-off {name}",
        )


def _forget_volume(api: Api, name: str) -> None:
    """Remove a volume's object without its backend, which is gone."""
    path = object_path(PERSISTENT_VOLUMES, name=name)
    _ask(api, "PATCH", path, {"metadata": {"finalizers": None}}, f"forget volume {name}")
    _delete(api, path)
    # Whoever protects volumes may have put his finalizer on it again.
    if _find(api, path) is not None:
        _ask(api, "PATCH", path, {"metadata": {"finalizers": None}}, f"forget volume {name}")


def _describe_loss_of(api: Api, name: str) -> Iterator[str]:
    pods, disks = _pods_on(api, name), _disks_on(api, name)
    yield f"node {name} has {len(pods)} pod(s) and {len(disks)} attached disk(s)"
    for pod in pods:
        yield f"  {_full(pod)} will leave it, declared again if a scheduler placed it"
    for disk in disks:
        yield f"  {disk} may go to another node"


def _pods_on(api: Api, name: str) -> list[Document]:
    found: list[Document] = api.get(object_path(PODS), {"fieldSelector": f"spec.nodeName={name}"})[
        "items"
    ]
    return found


def _disks_on(api: Api, name: str) -> list[str]:
    return [
        f"disk {(each['metadata'].get('annotations') or {}).get(VOLUME, each['metadata']['name'])}"
        for each in api.get(object_path(VOLUME_ATTACHMENTS))["items"]
        if each["spec"]["nodeName"] == name
    ]


def _full(pod: Document) -> str:
    return f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _set_unschedulable(api: Api, name: str, value: bool) -> None:
    change = {"spec": {"unschedulable": value or None}}
    verb = "cordon" if value else "uncordon"
    _ask(api, "PATCH", object_path(NODES, name=name), change, f"{verb} {name}")


def _is_ready(document: Document) -> bool:
    conditions = document.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _boot_of(document: Document | None) -> str:
    status = (document or {}).get("status") or {}
    return str((status.get("nodeInfo") or {}).get("bootID") or "unknown")


def _find(api: Api, path: str) -> Document | None:
    try:
        found: Document = api.get(path)
    except Refused as refusal:
        if refusal.code == 404:
            return None
        raise
    return found


def _delete(api: Api, path: str) -> None:
    try:
        api.request("DELETE", path)
    except Refused as refusal:
        if refusal.code != 404:
            raise


def _ask(api: Api, method: str, path: str, body: Document, what: str) -> Any:
    content_type = MERGE_PATCH if method == "PATCH" else "application/json"
    try:
        return api.request(method, path, body=body, content_type=content_type)
    except Refused as refusal:
        raise refusal.during(what) from refusal


def _confirm(question: str, otherwise: str) -> None:
    if not click.confirm(clean(question), err=True):
        raise CommandError(otherwise)
