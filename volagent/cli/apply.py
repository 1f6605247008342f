"""`volagent apply`: make the daemon's objects say what manifests say.

Each object is created, or patched with what differs; what is the same already is left alone, and
the word printed for it (`created`, `configured`, `unchanged`) is what really happened to it. One
refused object does not keep its siblings from being applied.
"""

from dataclasses import dataclass

import click

from volagent.cli.connection import MERGE_PATCH, Api, object_path
from volagent.cli.errors import CommandError, Refused, Unreachable
from volagent.cli.manifests import Manifest, read_manifests
from volagent.cli.merge import annotate, normalise, plan_patch, read_last_applied
from volagent.cli.options import namespace_option, parse_duration, talks_to_daemon
from volagent.cli.output import clean, print_line, print_note, print_table
from volagent.client.contract import PODS
from volagent.objects.meta import Document

PLAN_PATH = "/apis/node.volagent.dev/v1/plan"
MOST_RACES = 5
"""How often an object may change under an apply before it is given up."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What happened to one manifest."""

    manifest: Manifest
    verb: str
    document: Document


@click.command()
@click.option(
    "-f",
    "--filename",
    "sources",
    multiple=True,
    metavar="FILE|DIR|-",
    help="YAML or JSON; repeatable; - is standard input",
)
@click.option("--wait", is_flag=True, help="Stay until every volume of every pod is ready")
@click.option(
    "--timeout",
    "timeout_s",
    type=parse_duration,
    default="2m",
    help="How long to wait  [default: 2m]",
)
@click.option(
    "--dry-run",
    type=click.Choice(["client", "server", "node"]),
    help="Only check: here, at the daemon, or down to each step on this node",
)
@namespace_option
@talks_to_daemon
def apply(
    api: Api,
    sources: tuple[str, ...],
    wait: bool,
    timeout_s: float,
    dry_run: str | None,
    namespace: str,
) -> None:  # fmt: skip
    """Declare the objects of manifests, or change them to what the manifests say."""
    manifests = read_manifests(sources, namespace)
    if dry_run == "client":
        for manifest in manifests:
            print_line(f"{manifest.describe()} is readable (dry run)")
        return
    if dry_run == "node":
        _plan(api, manifests)
        return
    applied, failures = _apply_all(api, manifests, on_server_only=dry_run == "server")
    if failures:
        for failure in failures[:-1]:
            print_note(f"volagent: {failure.message}")
            if failure.hint:
                print_note(f"hint: {failure.hint}")
        raise failures[-1]
    pods = [
        (one.manifest.namespace, one.manifest.name)
        for one in applied
        if one.manifest.resource is PODS
    ]
    if wait and pods and not dry_run:
        from volagent.cli.wait import wait_for_pods  # draws with rich, which takes a while to load

        wait_for_pods(api, pods, timeout_s=timeout_s)


def _apply_all(
    api: Api, manifests: list[Manifest], *, on_server_only: bool
) -> tuple[list[Applied], list[CommandError]]:
    applied: list[Applied] = []
    failures: list[CommandError] = []
    note = " (dry run)" if on_server_only else ""
    for manifest in manifests:
        try:
            done = apply_manifest(api, manifest, dry_run=on_server_only)
        except Refused as refusal:
            failures.append(refusal.during(f"apply {manifest.describe()} ({manifest.origin})"))
            continue
        except Unreachable:
            raise
        except CommandError as error:
            failures.append(error)
            continue
        applied.append(done)
        print_line(f"{manifest.describe()} {done.verb}{note}")
    return applied, failures


def apply_manifest(api: Api, manifest: Manifest, *, dry_run: bool) -> Applied:
    """Create or patch one object. Raises `Refused`, `CommandError`."""
    wanted = normalise(manifest.document)
    path = object_path(manifest.resource, manifest.namespace, manifest.name)
    query = {"dryRun": "All"} if dry_run else {}
    query["fieldManager"] = "volagent"
    for _ in range(MOST_RACES):
        stored = _fetch(api, path)
        if stored is None:
            made = _create(api, manifest, wanted, query)
            if made is not None:
                return Applied(manifest, "created", made)
            continue
        patch = plan_patch(read_last_applied(stored), annotate(wanted), stored)
        if not patch:
            return Applied(manifest, "unchanged", stored)
        metadata = stored["metadata"]
        if metadata.get("deletionTimestamp"):
            raise CommandError(
                f"cannot apply {manifest.describe()}: it is being deleted",
                hint=f"apply again when it is gone; wait for that with: volagent delete"
                f" {manifest.resource.kind.lower()} {manifest.name} -n {manifest.namespace}",
            )
        patch.setdefault("metadata", {})["resourceVersion"] = metadata["resourceVersion"]
        try:
            new = api.request("PATCH", path, query=query, body=patch, content_type=MERGE_PATCH)
        except Refused as refusal:
            if refusal.code == 409:
                continue  # it changed meanwhile: look again
            raise
        same = new["metadata"].get("resourceVersion") == metadata["resourceVersion"]
        verb = "unchanged" if same and not dry_run else "configured"
        return Applied(manifest, verb, new)
    raise CommandError(
        f"cannot apply {manifest.describe()}: it changed {MOST_RACES} times meanwhile",
        hint="find out who else writes it: volagent get -w",
    )


def _fetch(api: Api, path: str) -> Document | None:
    try:
        document: Document = api.get(path)
    except Refused as refusal:
        if refusal.code == 404:
            return None
        raise
    return document


def _create(
    api: Api, manifest: Manifest, wanted: Document, query: dict[str, str]
) -> Document | None:
    """The new object, or None when somebody else was faster."""
    path = object_path(manifest.resource, manifest.namespace)
    try:
        made: Document = api.request("POST", path, query=query, body=annotate(wanted))
    except Refused as refusal:
        if refusal.code == 409 and refusal.reason == "AlreadyExists":
            return None
        raise
    return made


def _plan(api: Api, manifests: list[Manifest]) -> None:
    """What this node would do for each pod, and what would be in its way."""
    problems = 0
    for manifest in manifests:
        if manifest.resource is not PODS:
            done = apply_manifest(api, manifest, dry_run=True)
            print_line(f"{manifest.describe()} {done.verb} (dry run)")
            continue
        try:
            plan = api.request("POST", PLAN_PATH, body=manifest.document)
        except Refused as refusal:
            raise refusal.during(f"plan {manifest.describe()} ({manifest.origin})") from refusal
        print_line(f"{manifest.describe()} on this node (dry run)")
        rows = [
            (step.get("volume", ""), step.get("step", ""), step.get("what", ""))
            for step in plan.get("steps") or ()
        ]
        if rows:
            print_table(("  VOLUME", "STEP", "WHAT"), [(f"  {row[0]}", *row[1:]) for row in rows])
        for problem in plan.get("problems") or ():
            problems += 1
            print_note(f"  volume {clean(problem.get('volume'))}: {clean(problem.get('error'))}")
            if problem.get("remedy"):
                print_note(f"  hint: {clean(problem['remedy'])}")
    if problems:
        raise CommandError(f"{problems} problem{'s' * (problems > 1)} would keep pods waiting")
