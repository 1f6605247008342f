"""`volagent delete`: withdraw objects, and wait until nothing is left of them."""

import enum
import time
from dataclasses import dataclass, replace
from typing import Any

import click

from volagent.cli.connection import Api, object_path
from volagent.cli.errors import CommandError, Refused, UsageError
from volagent.cli.kinds import describe_object, split_names
from volagent.cli.manifests import read_manifests
from volagent.cli.options import namespace_option, parse_duration, talks_to_daemon
from volagent.cli.output import clean, print_line, print_note
from volagent.cli.wait import EXPLAIN_PATH
from volagent.client.contract import PODS, Resource
from volagent.objects.meta import Document

LOOK_AGAIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Doomed:
    """One object that is to go."""

    resource: Resource
    namespace: str
    name: str
    uid: str = ""

    def describe(self) -> str:
        """`pod default/web`."""
        return describe_object(self.resource, self.namespace, self.name)


class Answer(enum.Enum):
    """What became of a request to delete."""

    GONE = "deleted"
    GOING = "is being deleted"
    MISSING = "not found"


@dataclass(frozen=True, slots=True)
class Manner:
    """How to delete."""

    grace_s: int | None
    force: bool
    wait: bool
    timeout_s: float
    ignore_not_found: bool


@click.command()
@click.argument("what", nargs=-1, metavar="KIND NAME... | KIND/NAME...")
@click.option(
    "-f",
    "--filename",
    "sources",
    multiple=True,
    metavar="FILE|DIR|-",
    help="The objects of manifests, in reverse order",
)
@click.option(
    "--grace-period",
    "grace_s",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    help="How long containers may take to end",
)
@click.option(
    "--force", is_flag=True, help="Forget the object at once; the node still takes its volumes down"
)
@click.option("--wait/--no-wait", default=True, help="Stay until it is gone  [default: wait]")
@click.option(
    "--timeout",
    "timeout_s",
    type=parse_duration,
    default="5m",
    help="How long to wait  [default: 5m]",
)
@click.option("--ignore-not-found", is_flag=True, help="What is gone already is fine")
@namespace_option
@talks_to_daemon
def delete(
    api: Api, what: tuple[str, ...], sources: tuple[str, ...], namespace: str, **manner: Any
) -> None:
    """Withdraw objects; a pod's containers end and its volumes are taken down first."""
    _delete(api, _choose(what, sources, namespace), Manner(**manner))


def _delete(api: Api, doomed: list[Doomed], manner: Manner) -> None:
    deadline_s = time.monotonic() + manner.timeout_s
    query = {}
    if manner.force or manner.grace_s is not None:
        query["gracePeriodSeconds"] = str(manner.grace_s or 0)
    going: list[Doomed] = []
    missing: list[str] = []
    for one in doomed:
        asked, uid = _ask(api, one, query)
        if asked is Answer.MISSING:
            missing.append(one.describe())
        elif asked is Answer.GONE or not manner.wait:
            print_line(f"{one.describe()} {asked.value}")
        else:
            going.append(replace(one, uid=uid))
    for one in going:
        _wait_until_gone(api, one, deadline_s, manner.timeout_s)
        print_line(f"{one.describe()} {Answer.GONE.value}")
    if missing and not manner.ignore_not_found:
        raise CommandError(f"cannot delete {', '.join(missing)}: not found")


def _choose(what: tuple[str, ...], sources: tuple[str, ...], namespace: str) -> list[Doomed]:
    if bool(what) == bool(sources):
        raise UsageError("say either what to delete, or -f FILE")
    if sources:
        manifests = read_manifests(sources, namespace)
        return [
            Doomed(manifest.resource, manifest.namespace, manifest.name)
            for manifest in reversed(manifests)
        ]
    doomed = []
    for resource, name in split_names(what):
        if not name:
            raise UsageError(f"name the {resource.plural} to delete; there is no delete-all")
        doomed.append(Doomed(resource, namespace if resource.namespaced else "", name))
    return doomed


def _ask(api: Api, one: Doomed, query: dict[str, str]) -> tuple[Answer, str]:
    """Ask for the deletion: what was answered, and the uid of what is going."""
    path = object_path(one.resource, one.namespace, one.name)
    try:
        answer: Document = api.request("DELETE", path, query=query)
    except Refused as refusal:
        if refusal.code == 404:
            return Answer.MISSING, ""
        raise refusal.during(f"delete {one.describe()}") from refusal
    metadata = answer.get("metadata") or {}
    if answer.get("kind") == "Status" or not metadata.get("deletionTimestamp"):
        return Answer.GONE, ""
    return Answer.GOING, str(metadata.get("uid") or "")


def _wait_until_gone(api: Api, one: Doomed, deadline_s: float, timeout_s: float) -> None:
    """Follow one object until it, and not merely its name, is gone."""
    listing = object_path(one.resource, one.namespace)
    path = object_path(one.resource, one.namespace, one.name)
    told = ""
    while True:
        stored = _fetch(api, path)
        if stored is None or (one.uid and stored["metadata"].get("uid") != one.uid):
            return
        revision = stored["metadata"]["resourceVersion"]
        query = {"fieldSelector": f"metadata.name={one.name}", "resourceVersion": revision}
        watch = api.watch(listing, query)
        try:
            gone = False
            look_again_s = min(time.monotonic() + LOOK_AGAIN_S, deadline_s)
            while not gone and not watch.ended and time.monotonic() < look_again_s:
                event = watch.next(max(look_again_s - time.monotonic(), 0.0))
                gone = event is not None and event[0] == "DELETED"
        finally:
            watch.close()
        if gone:
            return
        blocker = _find_blocker(api, one, stored)
        if blocker and blocker != told:
            told = blocker
            print_note(f"{one.describe()}: {told}")
        if time.monotonic() >= deadline_s:
            raise CommandError(
                f"{one.describe()} is not gone after {timeout_s:.0f} s"
                + (f": {blocker}" if blocker else ""),
                hint="it goes on in the background: volagent get"
                f" {one.resource.kind.lower()} {one.name} -w",
            )


def _find_blocker(api: Api, one: Doomed, stored: Document) -> str:
    """Why it is still there."""
    if one.resource is PODS:
        try:
            path = EXPLAIN_PATH.format(namespace=one.namespace, name=one.name)
            return clean(api.get(path).get("summary") or "")
        except Refused:
            pass  # another node's pod, or gone by now: the object itself may still tell
    finalizers = stored["metadata"].get("finalizers") or ()
    return clean(f"waits for {', '.join(finalizers)}") if finalizers else ""


def _fetch(api: Api, path: str) -> Document | None:
    try:
        document: Document = api.get(path)
    except Refused as refusal:
        if refusal.code == 404:
            return None
        raise
    return document
