"""Which kind of object a word on the command line means. Pure."""

import difflib

from volagent.cli.errors import UsageError
from volagent.client.contract import RESOURCES, Resource

DEFAULT_NAMESPACE = "default"


def find_kind(word: str) -> Resource:
    """`pod`, `pods`, `po`, `Pod` → Pods. Raises `UsageError` with the closest word."""
    wanted = word.lower()
    for resource in RESOURCES:
        if wanted in _words(resource):
            return resource
    known = [name for resource in RESOURCES for name in _words(resource)]
    close = difflib.get_close_matches(wanted, known, n=1)
    hint = (
        f"did you mean {close[0]}?"
        if close
        else "known: " + ", ".join(resource.plural for resource in RESOURCES)
    )
    raise UsageError(f'there is no kind "{word}"', hint=hint)


def find_document_kind(api_version: str, kind: str) -> Resource | None:
    """The resource of a manifest, by its apiVersion and kind exactly."""
    for resource in RESOURCES:
        if resource.kind == kind and resource.api_version == api_version:
            return resource
    return None


def split_names(words: tuple[str, ...]) -> list[tuple[Resource, str]]:
    """`pod web db`, `pod/web secret/x`, `pods` → kinds with names ("" for all of the kind)."""
    if not words:
        raise UsageError("name a kind", hint="for example: volagent get pods")
    if any("/" in word for word in words):
        named = []
        for word in words:
            kind, slash, name = word.partition("/")
            if not (slash and name):
                raise UsageError(f'"{word}": expected KIND/NAME, as the others are')
            named.append((find_kind(kind), name))
        return named
    kinds = [find_kind(kind) for kind in words[0].split(",") if kind]
    if len(words) > 1 and len(kinds) > 1:
        raise UsageError("several kinds and a name: say KIND/NAME for each")
    names = words[1:] or ("",)
    return [(kind, name) for kind in kinds for name in names]


def describe_object(resource: Resource, namespace: str, name: str) -> str:
    """`pod default/web`, `persistentvolume data`."""
    kind = resource.kind.lower()
    return f"{kind} {namespace}/{name}" if resource.namespaced and namespace else f"{kind} {name}"


def _words(resource: Resource) -> tuple[str, ...]:
    return (resource.plural, resource.kind.lower(), *resource.short_names)
