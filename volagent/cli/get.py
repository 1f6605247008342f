"""`volagent get`: list objects, or follow them as they change."""

from collections.abc import Sequence
from typing import Any

import click

from volagent.cli.columns import choose_columns
from volagent.cli.connection import Api, object_path
from volagent.cli.errors import CommandError, Refused, UsageError
from volagent.cli.kinds import describe_object, split_names
from volagent.cli.options import namespace_option, talks_to_daemon
from volagent.cli.output import Columns, print_document, print_line, print_note
from volagent.client.contract import Resource
from volagent.objects.meta import Document

FORMS = ("wide", "json", "yaml", "name")


@click.command()
@click.argument("what", nargs=-1, metavar="KIND [NAME...] | KIND/NAME...")
@click.option("-A", "--all-namespaces", is_flag=True, help="Of every namespace")
@click.option("-o", "--output", "form", type=click.Choice(FORMS), help="How to print")
@click.option("-l", "--selector", default="", help="Only objects with these labels: a=b,c!=d")
@click.option("-w", "--watch", is_flag=True, help="Go on printing what changes")
@namespace_option
@talks_to_daemon
def get(
    api: Api,
    what: tuple[str, ...],
    all_namespaces: bool,
    form: str | None,
    selector: str,
    watch: bool,
    namespace: str,
) -> None:
    """List objects: pods, pv, pvc, secrets, configmaps, nodes, namespaces, events."""
    wanted = split_names(what)
    form = form or _form_before_verb()
    if selector and any(name for _, name in wanted):
        raise UsageError("a name and a selector together make no sense")
    scope = "" if all_namespaces else namespace
    if watch:
        if len(wanted) > 1:
            raise UsageError("only one kind, or one object, can be watched at a time")
        _watch(api, *wanted[0], scope, selector, form)
        return
    kinds = list(dict.fromkeys(resource for resource, _ in wanted))
    if form in ("json", "yaml"):
        _print_documents(api, wanted, scope, selector, form)
        return
    for number, resource in enumerate(kinds):
        names = [name for kind, name in wanted if kind is resource]
        documents, _ = fetch(api, resource, names, scope, selector)
        if number and form != "name":
            print_line()
        _print_listing(resource, documents, form, with_namespace=all_namespaces)
        if not documents:
            where = f" in namespace {scope}" if resource.namespaced and scope else ""
            print_note(f"no {resource.plural}{where}")


def fetch(
    api: Api, resource: Resource, names: Sequence[str], namespace: str, selector: str = ""
) -> tuple[list[Document], str]:
    """Objects by name, or all of a kind (names [""]), with the revision of the list."""
    documents: list[Document] = []
    revision = ""
    for name in names:
        if name and resource.namespaced and not namespace:
            raise UsageError("a name needs a namespace: leave out -A")
        path = object_path(resource, namespace, name)
        try:
            answer = api.get(path, {} if name else {"labelSelector": selector})
        except Refused as refusal:
            what = describe_object(resource, namespace, name) if name else resource.plural
            raise refusal.during(f"get {what}") from refusal
        if name:
            documents.append(answer)
            continue
        revision = answer["metadata"]["resourceVersion"]
        # Items of a list carry no kind of their own.
        head = {"apiVersion": resource.api_version, "kind": resource.kind}
        documents += [{**head, **item} for item in answer.get("items") or ()]
    if resource.kind == "Event":
        documents.sort(key=_event_time)
    return documents, revision


def _form_before_verb() -> str | None:
    """`volagent -o json get ...` means the same as `volagent get ... -o json`."""
    context = click.get_current_context()
    form: str | None = context.find_root().params.get("form")
    if form is not None and form not in FORMS:
        raise UsageError(f"-o {form}: expected one of {', '.join(FORMS)}")
    return form


def _print_documents(
    api: Api, wanted: list[tuple[Resource, str]], scope: str, selector: str, form: str
) -> None:
    documents = [
        document
        for resource, name in wanted
        for document in fetch(api, resource, [name], scope, selector)[0]
    ]
    if len(wanted) == 1 and wanted[0][1]:
        print_document(documents[0], form)
        return
    print_document({"apiVersion": "v1", "kind": "List", "items": documents}, form)


def _print_listing(
    resource: Resource, documents: list[Document], form: str | None, *, with_namespace: bool
) -> None:
    if form == "name":
        for document in documents:
            print_line(f"{resource.kind.lower()}/{document['metadata']['name']}")
        return
    if not documents:
        return
    columns = choose_columns(
        resource.kind, wide=form == "wide", with_namespace=with_namespace and resource.namespaced
    )
    table = Columns([column.title for column in columns])
    rows = [[column.text(document) for column in columns] for document in documents]
    for line in table.format_rows(rows):
        print_line(line)


def _watch(
    api: Api, resource: Resource, name: str, namespace: str, selector: str, form: str | None
) -> None:
    """Print the present state, then every change, until interrupted."""
    query = {"labelSelector": selector}
    if name:
        query["fieldSelector"] = f"metadata.name={name}"
    path = object_path(resource, namespace)
    try:
        listing = api.get(path, query)
    except Refused as refusal:
        raise refusal.during(f"get {resource.plural}") from refusal
    columns = choose_columns(
        resource.kind, wide=form == "wide", with_namespace=resource.namespaced and not namespace
    )
    table = Columns([column.title for column in columns])

    def show(documents: list[Document], *, with_titles: bool) -> None:
        if form in ("json", "yaml"):
            for document in documents:
                if form == "yaml":
                    print_line("---")
                print_document(document, form)
        elif form == "name":
            for document in documents:
                print_line(f"{resource.kind.lower()}/{document['metadata']['name']}")
        else:
            rows = [[column.text(document) for column in columns] for document in documents]
            for line in table.format_rows(rows, with_titles=with_titles):
                print_line(line)

    head = {"apiVersion": resource.api_version, "kind": resource.kind}
    show([{**head, **item} for item in listing.get("items") or ()], with_titles=True)
    revision = listing["metadata"]["resourceVersion"]
    watch = api.watch(path, {**query, "resourceVersion": revision})
    try:
        while not watch.ended:
            event = watch.next()
            if event is not None and event[0] != "BOOKMARK":
                show([event[1]], with_titles=False)
    finally:
        watch.close()
    raise CommandError("the daemon ended the watch", hint="it stopped, or the revision is too old")


def _event_time(event: Document) -> Any:
    metadata = event.get("metadata") or {}
    return (
        event.get("lastTimestamp")
        or event.get("eventTime")
        or metadata.get("creationTimestamp")
        or ""
    )
