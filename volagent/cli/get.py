"""`volagent get`: list objects, or follow them as they change.

Columns come from the server's tables, so that every client shows the same; `columns.py` adds the
few that tell about volumes.
"""

from collections.abc import Iterable

import click

from volagent.cli.columns import EXTRA_COLUMNS
from volagent.cli.connection import JSON, TABLE, Api, object_path
from volagent.cli.errors import CommandError, Refused, UsageError
from volagent.cli.kinds import describe_object, split_names
from volagent.cli.options import namespace_option, talks_to_daemon
from volagent.cli.output import Columns, print_document, print_line, print_note
from volagent.client.contract import EVENTS, Resource
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
    if any(name for _, name in wanted) and (selector or all_namespaces):
        raise UsageError("a name goes neither with a selector nor with -A")
    scope = "" if all_namespaces else namespace
    if watch:
        if len(wanted) > 1:
            raise UsageError("only one kind, or one object, can be watched at a time")
        _watch(api, *wanted[0], scope, selector, form)
    elif form in ("json", "yaml"):
        _print_documents(api, wanted, scope, selector, form)
    else:
        _print_tables(api, wanted, scope, selector, form)


def fetch(api: Api, resource: Resource, name: str, namespace: str) -> Document:
    """One object. Raises `CommandError`."""
    return _ask(api, resource, name, namespace, {}, JSON)


def _ask(
    api: Api, resource: Resource, name: str, namespace: str, query: dict[str, str], accept: str
) -> Document:
    path = object_path(resource, namespace if resource.namespaced else "", name)
    try:
        answer: Document = api.get(path, query, accept=accept)
    except Refused as refusal:
        what = describe_object(resource, namespace, name) if name else resource.plural
        raise refusal.during(f"get {what}") from refusal
    return answer


def _form_before_verb() -> str | None:
    """`volagent -o json get ...` means the same as `volagent get ... -o json`."""
    form: str | None = click.get_current_context().find_root().params.get("form")
    if form is not None and form not in FORMS:
        raise UsageError(f"-o {form}: expected one of {', '.join(FORMS)}")
    return form


def _print_documents(
    api: Api, wanted: list[tuple[Resource, str]], scope: str, selector: str, form: str
) -> None:
    documents: list[Document] = []
    for resource, name in wanted:
        query = {} if name else {"labelSelector": selector}
        answer = _ask(api, resource, name, scope, query, JSON)
        # Items of a list carry no kind of their own.
        head = {"apiVersion": resource.api_version, "kind": resource.kind}
        documents += [answer] if name else [{**head, **item} for item in answer.get("items") or ()]
    if len(wanted) == 1 and wanted[0][1]:
        print_document(documents[0], form)
        return
    print_document({"apiVersion": "v1", "kind": "List", "items": documents}, form)


def _print_tables(
    api: Api, wanted: list[tuple[Resource, str]], scope: str, selector: str, form: str | None
) -> None:
    """One table per kind."""
    for number, resource in enumerate(dict.fromkeys(resource for resource, _ in wanted)):
        printer = TablePrinter(resource, form, with_namespace=not scope)
        tables = []
        for kind, name in wanted:
            if kind is resource:
                query = {"labelSelector": "" if name else selector, "includeObject": "Object"}
                tables.append(_ask(api, resource, name, scope, query, TABLE))
        if number and form != "name":
            print_line()
        if not printer.show(tables):
            where = f" in namespace {scope}" if resource.namespaced and scope else ""
            print_note(f"no {resource.plural}{where}")


class TablePrinter:
    """Prints the rows of server-side tables; widths only grow, so that a watch stays aligned."""

    def __init__(self, resource: Resource, form: str | None, *, with_namespace: bool) -> None:
        self._resource = resource
        self._form = form
        self._with_namespace = with_namespace and resource.namespaced
        self._definitions: list[Document] = []
        self._columns: Columns | None = None

    def show(self, tables: Iterable[Document]) -> int:
        """Print the rows of tables of one kind; how many there were."""
        rows: list[Document] = []
        for table in tables:
            self._definitions = table.get("columnDefinitions") or self._definitions
            rows += table.get("rows") or ()
        if self._resource is EVENTS:
            rows.sort(key=lambda row: _event_time(row["object"]))
        if self._form in ("json", "yaml"):
            for row in rows:
                if self._form == "yaml":
                    print_line("---")
                print_document(row["object"], self._form)
        elif self._form == "name":
            for row in rows:
                print_line(f"{self._resource.kind.lower()}/{row['object']['metadata']['name']}")
        elif rows:
            self._print_rows(rows)
        return len(rows)

    def _print_rows(self, rows: list[Document]) -> None:
        cells = [self._choose_cells(row) for row in rows]
        first = self._columns is None
        if self._columns is None:
            self._columns = Columns([title.upper() for title, _ in cells[0]])
        texts = [[text for _, text in row] for row in cells]
        for line in self._columns.format_rows(texts, with_titles=first):
            print_line(line)

    def _choose_cells(self, row: Document) -> list[tuple[str, str]]:
        """The (title, text) pairs of a row, ours among the server's."""
        wide = self._form == "wide"
        extra = [
            column
            for column in EXTRA_COLUMNS.get(self._resource.plural, ())
            if wide or not column.wide
        ]
        cells = []
        if self._with_namespace:
            cells.append(("Namespace", str(row["object"]["metadata"].get("namespace") or "")))
        for definition, cell in zip(self._definitions, row["cells"], strict=False):
            title = str(definition.get("name"))
            if wide or not definition.get("priority"):
                cells.append((title, str(cell)))
            cells += [
                (column.title, column.text(row["object"]))
                for column in extra
                if column.after == title
            ]
        return cells


def _watch(
    api: Api, resource: Resource, name: str, namespace: str, selector: str, form: str | None
) -> None:
    """Print the present state, then every change, until interrupted."""
    query = {"labelSelector": selector, "includeObject": "Object"}
    if name:
        query["fieldSelector"] = f"metadata.name={name}"
    table = _ask(api, resource, "", namespace, query, TABLE)
    printer = TablePrinter(resource, form, with_namespace=not namespace)
    printer.show([table])
    path = object_path(resource, namespace if resource.namespaced else "")
    revision = {"resourceVersion": table["metadata"]["resourceVersion"]}
    watch = api.watch(path, {**query, **revision}, accept=TABLE)
    try:
        while not watch.ended:
            event = watch.next()
            if event is not None and event[0] != "BOOKMARK":
                printer.show([event[1]])
    finally:
        watch.close()
    raise CommandError("the daemon ended the watch", hint="it stopped, or the revision is too old")


def _event_time(event: Document) -> str:
    return str(
        event.get("lastTimestamp")
        or event.get("eventTime")
        or (event.get("metadata") or {}).get("creationTimestamp")
        or ""
    )
