"""Who set which field: the `managedFields` of objects, and what follows from them. Pure.

Fields are tracked from the first apply on, or from a create that names its manager (kubectl does);
why not always is told in `docs/adr/0006`. What was there before the first apply belongs to a
manager `before-first-apply`, as in Kubernetes. Source of the rules: structured-merge-diff
(`merge/update.go`) and apimachinery (`pkg/util/managedfields`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from volagent.api.apply_fields import (
    NO_FIELDS,
    OWNED_BY_NOBODY,
    Difference,
    Fields,
    Path,
    compare,
    decode_fields,
    encode_fields,
    fields_of,
    form_of,
    only,
    show_path,
    with_parents,
    without,
)
from volagent.api.apply_merge import merge, prune
from volagent.client.contract import WITH_STATUS, Conflict
from volagent.objects.meta import Document

BEFORE_FIRST_APPLY = "before-first-apply"
ANCIENT = "ancient-changes"
UPDATERS_LIMIT = 10
"""Managers of an object that do not apply; the older ones are taken together as `ANCIENT`."""
APPLY, UPDATE = "Apply", "Update"
_STATUS = "f:status"
_METADATA: Path = ("f:metadata",)


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes."""

    manager: str
    named: bool = False
    """Whether the request itself names the manager (`fieldManager`)."""


OURSELVES = Writer("volagent")
"""Controllers in the server's process."""


@dataclass(frozen=True, slots=True, order=True)
class Manager:
    """One entry's identity."""

    operation: str
    name: str
    api_version: str
    subresource: str = ""

    def describe(self) -> str:
        """`"kubectl-edit" using v1`."""
        text = f'"{self.name}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return text if self.operation == APPLY else f"{text} using {self.api_version}"


@dataclass(frozen=True, slots=True)
class Owned:
    """What a manager owns, and when it changed something last (RFC 3339)."""

    fields: Fields
    time: str


Managers = Mapping[Manager, Owned]


def read_managers(entries: Any) -> dict[Manager, Owned]:
    """The managers of `metadata.managedFields`; none when it is not what we wrote or would."""
    found: dict[Manager, Owned] = {}
    try:
        for entry in entries or ():
            operation = entry["operation"]
            if operation not in (APPLY, UPDATE):
                return {}
            manager = Manager(
                operation, entry.get("manager", ""), entry["apiVersion"],
                entry.get("subresource", ""),
            )  # fmt: skip
            fields = decode_fields(entry.get("fieldsV1") or {})
            found[manager] = Owned(fields, entry.get("time") or "")
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    return found


def write_managers(managers: Managers) -> list[Document]:
    """`metadata.managedFields`: those who apply first, then by time."""
    entries = []
    for manager, owned in sorted(
        managers.items(), key=lambda item: (item[0].operation, item[1].time, item[0])
    ):
        entry: Document = {
            "manager": manager.name, "operation": manager.operation,
            "apiVersion": manager.api_version, "fieldsType": "FieldsV1",
            "fieldsV1": encode_fields(owned.fields),
        }  # fmt: skip
        if owned.time:
            entry["time"] = owned.time
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entries.append(entry)
    return entries


def track_create(document: Document, writer: Writer, now: str) -> list[Document]:
    """The `managedFields` of an object that a named manager creates."""
    fields = fields_of(document, form_of(document["kind"])) - OWNED_BY_NOBODY
    manager = Manager(UPDATE, writer.manager, document["apiVersion"])
    return write_managers({manager: Owned(without(fields, _STATUS), now)})


def track_update(
    old: Document, new: Document, writer: Writer, now: str, subresource: str
) -> list[Document] | None:
    """The `managedFields` after a write that is no apply; None for none.

    A writer who changes them directly is believed, an empty entry clears them, and leaving them out
    changes nothing.
    """
    held, given = old["metadata"].get("managedFields"), new["metadata"].get("managedFields")
    if given == [{}]:
        return None
    managers = read_managers(given) if given != held else {}
    changed_directly = bool(managers)
    managers = managers or read_managers(held)
    if not managers:
        return None
    difference = compare(old, new, form_of(new["kind"]))
    if not difference:
        return write_managers(managers) if changed_directly else held
    name = writer.manager
    part = "" if subresource == WITH_STATUS else subresource
    manager = Manager(UPDATE, name, new["apiVersion"], part)
    managers = _take_over(managers, manager, difference)
    mine = managers[manager].fields if manager in managers else NO_FIELDS
    managers[manager] = Owned((mine - difference.removed) | difference.changed, now)
    return write_managers(_forget_old({m: owned for m, owned in managers.items() if owned.fields}))


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply makes of an object."""

    document: Document
    managed_fields: list[Document]


def apply(
    live: Document,
    config: Document,
    writer: Writer,
    now: str,
    *,
    force: bool,
    subresource: str = "",
) -> Applied:
    """Lay a configuration over an object; take out what this manager applied before and no more.

    `live` is {} for a new object. Raises `Conflict` when somebody else set a field otherwise,
    unless `force` is given; `BadRequest`.
    """
    form = form_of(config["kind"])
    config = _take_part(config, subresource)
    fields = fields_of(config, form) - OWNED_BY_NOBODY
    fields = only(fields, _STATUS) if subresource else without(fields, _STATUS)
    managers = read_managers((live.get("metadata") or {}).get("managedFields"))
    if not managers and live:
        before = fields_of(live, form) - OWNED_BY_NOBODY
        managers = {Manager(UPDATE, BEFORE_FIRST_APPLY, live["apiVersion"]): Owned(before, now)}
    mine = Manager(APPLY, writer.manager, config["apiVersion"], subresource)
    last = managers.pop(mine, None)
    merged: Document = merge(live, config, form)
    if last is not None:
        merged = _prune(
            merged, last.fields, [fields, *(o.fields for o in managers.values())], config["kind"]
        )
    difference = compare(live, merged, form)
    if not force:
        _refuse_conflicts(managers, difference)
    others = _take_over(managers, mine, difference)
    same = last is not None and last.fields == fields and not difference
    others[mine] = Owned(fields, last.time if last is not None and same else now)
    kept = {manager: owned for manager, owned in others.items() if owned.fields or manager is mine}
    return Applied(merged, write_managers(kept))


def _take_part(config: Document, subresource: str) -> Document:
    """The configuration without what this door does not change."""
    if subresource:
        names = ("apiVersion", "kind", "metadata", "status")
        return {name: config[name] for name in names if name in config}
    return {name: value for name, value in config.items() if name != "status"}


def _prune(merged: Document, last: Fields, owned: list[Fields], kind: str) -> Document:
    wanted = with_parents(frozenset().union(*owned))
    dropped = with_parents(last) - wanted - OWNED_BY_NOBODY - {_METADATA}
    pruned: Document = prune(merged, form_of(kind), dropped) if dropped else merged
    return pruned


def _refuse_conflicts(managers: Managers, difference: Difference) -> None:
    changed = difference.changed
    conflicts = [
        (manager, path)
        for manager in sorted(managers)
        for path in sorted(_leaves(managers[manager].fields & changed))
    ]
    if not conflicts:
        return
    raise Conflict(
        _describe_conflicts(conflicts),
        details={
            "causes": [
                {
                    "reason": "FieldManagerConflict",
                    "message": f"conflict with {manager.describe()}",
                    "field": show_path(path),
                }
                for manager, path in conflicts
            ]
        },
    )


def _describe_conflicts(conflicts: list[tuple[Manager, Path]]) -> str:
    if len(conflicts) == 1:
        ((manager, path),) = conflicts
        return (
            f"Apply failed with 1 conflict: conflict with {manager.describe()}: {show_path(path)}"
        )
    lines: list[str] = []
    for manager in dict.fromkeys(manager for manager, _ in conflicts):
        lines.append(f"conflicts with {manager.describe()}:")
        lines += [f"- {show_path(path)}" for held_by, path in conflicts if held_by == manager]
    return f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)


def _leaves(fields: Fields) -> Fields:
    """The fields without those that contain another one."""
    parents = {path[:end] for path in fields for end in range(1, len(path))}
    return fields - parents


def _take_over(managers: Managers, mine: Manager, difference: Difference) -> dict[Manager, Owned]:
    """Others no longer own what changed or went."""
    gone = difference.changed | difference.removed
    left = {
        manager: owned if manager == mine else replace(owned, fields=owned.fields - gone)
        for manager, owned in managers.items()
    }
    return {manager: owned for manager, owned in left.items() if owned.fields or manager == mine}


def _forget_old(managers: dict[Manager, Owned]) -> Managers:
    """At most so many that update: the oldest ones become one."""
    updaters = [
        manager for manager in managers if manager.operation == UPDATE and manager.name != ANCIENT
    ]
    if len(updaters) <= UPDATERS_LIMIT:
        return managers
    updaters.sort(key=lambda manager: managers[manager].time)
    for manager in updaters[: len(updaters) - UPDATERS_LIMIT + 1]:
        owned = managers.pop(manager)
        ancient = replace(manager, name=ANCIENT)
        held = managers[ancient].fields if ancient in managers else NO_FIELDS
        managers[ancient] = Owned(held | owned.fields, owned.time)
    return managers
