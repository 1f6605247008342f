"""`volagent explain` and `volagent mounts`: what the node knows about a pod's volumes."""

from collections.abc import Iterator

import click

from volagent.aio.clock import parse_time
from volagent.cli.connection import Api
from volagent.cli.errors import Refused
from volagent.cli.explain_claim import claim_named, fetch_explanation, format_claim
from volagent.cli.options import namespace_option, split_pod, talks_to_daemon
from volagent.cli.output import (
    Columns,
    clean,
    format_age,
    format_ms,
    paint,
    print_document,
    print_line,
)
from volagent.cli.wait import EXPLAIN_PATH
from volagent.objects.meta import Document

MOUNTS_PATH = "/apis/node.volagent.dev/v1/mounts/namespaces/{namespace}/pods/{name}"


@click.command()
@click.argument("pod", metavar="pod/NAME | pvc/NAME")
@click.option("-o", "--output", "form", type=click.Choice(["json", "yaml"]), help="How to print")
@namespace_option
@talks_to_daemon
def explain(api: Api, pod: str, form: str | None, namespace: str) -> None:
    """Say where each of a pod's volumes, or a claim, stands, why, and what to do about it."""
    claim = claim_named(pod)
    if claim:
        document = fetch_explanation(api, namespace, claim)
        lines = format_claim(document)
    else:
        namespace, name = split_pod(pod, namespace)
        document = _ask(api, EXPLAIN_PATH, namespace, name, "explain")
        lines = format_explanation(document)
    form = form or click.get_current_context().find_root().params.get("form")
    if form in ("json", "yaml"):
        print_document(document, form)
        return
    for line in lines:
        print_line(line)


@click.command()
@click.argument("pod", metavar="pod/NAME")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "json", "yaml"]),
    help="json: OCI mounts, ready for a runtime  [default: table]",
)
@namespace_option
@talks_to_daemon
def mounts(api: Api, pod: str, form: str | None, namespace: str) -> None:  # fmt: skip
    """Show what is handed to each container: its mounts and devices."""
    namespace, name = split_pod(pod, namespace)
    document = _ask(api, MOUNTS_PATH, namespace, name, "show the mounts of")
    form = form or click.get_current_context().find_root().params.get("form")
    if form in ("json", "yaml"):
        print_document(document, form)
        return
    for line in format_mounts(document):
        print_line(line)


def format_explanation(document: Document) -> Iterator[str]:
    """The lines of an explanation. Pure, but for colours on a terminal."""
    yield (
        f"pod {clean(document.get('pod'))} on {_node(document)},"
        f" {clean(document.get('phase'))}: {clean(document.get('summary'))}"
    )
    yield ""
    steps = document.get("steps") or ()
    rows = [_step_row(step) for step in steps]
    yield from Columns(("STEP", "VOLUME", "STATE", "TOOK", "EVIDENCE")).format_rows(rows)
    nodes = document.get("nodes") or ()
    if nodes:
        yield ""
        rows = [(str(each.get("node")), str(each.get("says"))) for each in nodes]
        yield from Columns(("NODE", "SAYS")).format_rows(rows)
    yield ""
    volumes = document.get("volumes") or ()
    rows = [
        (
            str(volume.get("name")),
            str(volume.get("state")),
            str(volume.get("driver") or "-"),
            str(volume.get("mounted") or "-"),
            str(volume.get("target") or "-"),
        )
        for volume in volumes
    ]
    if rows:
        titles = ("VOLUME", "STATE", "DRIVER", "MOUNTED", "TARGET")
        yield from Columns(titles).format_rows(rows)
    yield from _format_blockers(volumes, steps)
    timeline = document.get("timeline") or ()
    if timeline:
        yield ""
        rows = [
            (_clock(moment.get("at")), str(moment.get("volume") or "-"), str(moment.get("what")))
            for moment in timeline
        ]
        yield from Columns(("TIME (UTC)", "VOLUME", "WHAT HAPPENED")).format_rows(rows)


def format_mounts(document: Document) -> Iterator[str]:
    """The lines of a pod's mounts. Pure."""
    ready = "" if document.get("ready", True) else " (not all of its volumes are there yet)"
    yield f"pod {clean(document.get('pod'))}{ready}"
    for container in document.get("containers") or ():
        yield f"container {clean(container.get('name'))}"
        rows = [
            (
                f"  {mount.get('destination')}",
                str(mount.get("source")),
                ",".join(mount.get("options") or ()),
            )
            for mount in container.get("mounts") or ()
        ]
        rows += [
            (f"  {device.get('path')}", str(device.get("hostPath")), str(device.get("permissions")))
            for device in container.get("devices") or ()
        ]
        if rows:
            yield from Columns(("  IN THE CONTAINER", "ON THE HOST", "OPTIONS")).format_rows(rows)
        else:
            yield "  nothing"


def _node(document: Document) -> str:
    return f"node {clean(document['node'])}" if document.get("node") else "no node"


def _step_row(step: Document) -> tuple[str, ...]:
    evidence = step.get("evidence") or ""
    if step.get("state") in ("failed", "waiting"):
        evidence = step.get("error") or evidence
        if (step.get("attempts") or 1) > 1:
            evidence += f" ({step['attempts']} times)"
    return (
        str(step.get("step")),
        str(step.get("volume") or "-"),
        str(step.get("state")),
        format_ms(step.get("tookMs")) or "-",
        evidence,
    )


def _format_blockers(volumes: object, steps: object) -> Iterator[str]:
    """One paragraph per thing in the way; a step is told only when no volume tells it."""
    told: set[str] = set()
    for volume in volumes if isinstance(volumes, list) else ():
        if volume.get("blocker"):
            told.add(volume["blocker"])
            yield from _format_blocker(f'volume "{volume.get("name")}"', volume["blocker"], volume)
    for step in steps if isinstance(steps, list) else ():
        error = step.get("error")
        if step.get("state") in ("failed", "waiting") and error and error not in told:
            told.add(error)
            yield from _format_blocker(str(step.get("step")), error, step)


def _format_blocker(subject: str, error: str, about: Document) -> Iterator[str]:
    yield ""
    yield paint(f"{clean(subject)}: {clean(error)}", "failed")
    if about.get("remedy"):
        yield f"  what to do:  {clean(about['remedy'])}"
    if about.get("nextRetryAt"):
        yield f"  next retry:  {_until(about['nextRetryAt'])}"


def _until(moment: str) -> str:
    """`14:03:02.118 UTC`, with how far away that is when it lies in the past."""
    age = format_age(moment)
    return f"{_clock(moment)} UTC" + (f" ({age} ago)" if age not in ("0s", "<invalid>") else "")


def _clock(moment: object) -> str:
    try:
        return parse_time(str(moment)).strftime("%H:%M:%S.%f")[:-3]
    except ValueError:
        return clean(moment)


def _ask(api: Api, path: str, namespace: str, name: str, verb: str) -> Document:
    try:
        answer: Document = api.get(path.format(namespace=namespace, name=name))
    except Refused as refusal:
        raise refusal.during(f"{verb} pod {namespace}/{name}") from refusal
    return answer
