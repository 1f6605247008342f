"""`volagent describe`: everything about one object, with its events. Secrets show sizes only."""

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import click

from volagent.cli.columns import format_pod_status, format_ready, format_source, format_volumes
from volagent.cli.connection import Api, object_path
from volagent.cli.errors import Refused, UsageError
from volagent.cli.get import fetch
from volagent.cli.kinds import describe_object, split_names
from volagent.cli.merge import LAST_APPLIED
from volagent.cli.options import namespace_option, talks_to_daemon
from volagent.cli.output import (
    NONE,
    Columns,
    clean,
    format_age,
    print_line,
    print_note,
    to_yaml,
)
from volagent.client.contract import EVENTS, Resource
from volagent.objects.meta import Document

LABEL_WIDTH = 18
_TEXT_SHOWN = 60


@click.command()
@click.argument("what", nargs=-1, metavar="KIND NAME... | KIND/NAME...")
@namespace_option
@talks_to_daemon
def describe(api: Api, what: tuple[str, ...], namespace: str) -> None:
    """Show an object in full, and what happened to it lately."""
    for number, (resource, name) in enumerate(split_names(what)):
        if not name:
            raise UsageError(f"name the {resource.kind.lower()} to describe")
        document = fetch(api, resource, name, namespace)
        if number:
            print_line()
        for line in describe_document(resource, document):
            print_line(line)
        _print_events(api, resource, document)


def describe_document(resource: Resource, document: Document) -> Iterator[str]:
    """The lines for one object, without its events. Pure."""
    metadata = document.get("metadata") or {}
    yield _pair("Name", metadata.get("name"))
    if resource.namespaced:
        yield _pair("Namespace", metadata.get("namespace"))
    created = metadata.get("creationTimestamp")
    yield _pair("Created", f"{created} ({format_age(created)} ago)" if created else NONE)
    if metadata.get("deletionTimestamp"):
        yield _pair("Deletion asked", f"{format_age(metadata['deletionTimestamp'])} ago")
    yield from _mapping("Labels", metadata.get("labels"))
    annotations = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if key != LAST_APPLIED
    }
    yield from _mapping("Annotations", annotations)
    if metadata.get("finalizers"):
        yield _pair("Finalizers", ", ".join(metadata["finalizers"]))
    match resource.kind:
        case "Pod":
            yield from _describe_pod(document)
        case "Secret":
            yield from _describe_sizes(document.get("data"), decode=True)
        case "ConfigMap":
            yield from _describe_sizes(document.get("data"), decode=False)
            yield from _describe_sizes(document.get("binaryData"), decode=True)
        case _:
            yield from _describe_rest(document)


def _describe_pod(pod: Document) -> Iterator[str]:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    yield _pair("UID", pod.get("metadata", {}).get("uid"))
    yield _pair("Node", spec.get("nodeName"))
    yield _pair("Status", format_pod_status(pod))
    yield _pair("Containers ready", format_ready(pod))
    yield _pair("Volumes", format_volumes(pod))
    if status.get("message"):
        yield _pair("Message", status["message"])
    states = {one.get("name"): one for one in status.get("containerStatuses") or ()}
    for container in spec.get("containers") or ():
        yield f"Container {clean(container.get('name'))}:"
        yield _pair("  Image", container.get("image"))
        state = states.get(container.get("name"))
        if state is not None:
            yield _pair("  State", _format_state(state.get("state") or {}))
            yield _pair("  Restarts", state.get("restartCount", 0))
        for mount in container.get("volumeMounts") or ():
            access = "ro" if mount.get("readOnly") else "rw"
            below = mount.get("subPath") or mount.get("subPathExpr")
            source = f"{mount.get('name')}/{below}" if below else mount.get("name")
            yield _pair("  Mount", f"{mount.get('mountPath')} from {source} ({access})")
        for device in container.get("volumeDevices") or ():
            yield _pair("  Device", f"{device.get('devicePath')} from {device.get('name')}")
    for volume in spec.get("volumes") or ():
        yield _pair(f"Volume {volume.get('name')}", format_source(volume))
    yield from _describe_conditions(status)


def _describe_conditions(status: Document) -> Iterator[str]:
    conditions = status.get("conditions") or ()
    if not conditions:
        return
    yield "Conditions:"
    rows = [
        (
            f"  {condition.get('type')}",
            str(condition.get("status")),
            format_age(condition.get("lastTransitionTime")),
            " ".join(filter(None, (condition.get("reason"), condition.get("message")))),
        )
        for condition in conditions
    ]
    yield from Columns(("  TYPE", "STATUS", "SINCE", "WHY")).format_rows(rows)


def _describe_rest(document: Document) -> Iterator[str]:
    """Any other kind: its own fields as YAML, which nobody has to learn."""
    skipped = ("apiVersion", "kind", "metadata")
    rest = {key: value for key, value in document.items() if key not in skipped and value}
    for line in to_yaml(rest).splitlines() if rest else ():
        yield clean(line[:1].upper() + line[1:])


def _describe_sizes(data: Any, *, decode: bool) -> Iterator[str]:
    for key, value in sorted((data or {}).items()):
        size = len(str(value).encode())
        if decode:
            try:
                size = len(base64.b64decode(value))
            except (binascii.Error, TypeError, ValueError):
                yield _pair(f"Key {key}", "not valid base64")
                continue
        yield _pair(f"Key {key}", f"{size} bytes")


def _print_events(api: Api, resource: Resource, document: Document) -> None:
    metadata = document["metadata"]
    namespace = metadata.get("namespace") or "default"
    selector = (
        f"involvedObject.kind={resource.kind},involvedObject.name={metadata['name']},"
        f"involvedObject.uid={metadata.get('uid', '')}"
    )
    try:
        answer = api.get(object_path(EVENTS, namespace), {"fieldSelector": selector})
    except Refused as refusal:
        about = describe_object(resource, namespace, metadata["name"])
        print_note(f"volagent: {refusal.during(f'get the events of {about}').message}")
        return
    events = answer.get("items") or ()
    if not events:
        print_line(_pair("Events", NONE))
        return
    print_line("Events:")
    rows = [
        (
            f"  {format_age(event.get('lastTimestamp') or event.get('eventTime'))}",
            str(event.get("count") or 1),
            str(event.get("type")),
            str(event.get("reason")),
            str(event.get("message") or event.get("note")),
        )
        for event in sorted(events, key=lambda one: str(one.get("lastTimestamp") or ""))
    ]
    for line in Columns(("  SEEN", "TIMES", "TYPE", "REASON", "MESSAGE")).format_rows(rows):
        print_line(line)


def _format_state(state: Document) -> str:
    for name, detail in state.items():
        known = [str(detail[key]) for key in ("reason", "message") if detail.get(key)]
        if name == "terminated":
            known.append(f"exit code {detail.get('exitCode')}")
        return f"{name} ({', '.join(known)})" if known else name
    return "unknown"


def _pair(label: str, value: Any) -> str:
    text = clean(value) if value not in (None, "") else NONE
    return f"{clean(label) + ':':<{LABEL_WIDTH}} {text}"


def _mapping(label: str, mapping: Any) -> Iterator[str]:
    for number, (key, value) in enumerate(sorted((mapping or {}).items())):
        text = str(value)
        text = (
            text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}… ({len(text)} characters)"
        )
        line = _pair(label, f"{key}={text}")
        yield line if not number else f"{'':<{LABEL_WIDTH}} {clean(key)}={clean(text)}"
