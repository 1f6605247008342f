"""Query parameters, typed. Unknown ones are ignored, as Kubernetes does."""

from dataclasses import dataclass
from urllib.parse import parse_qsl

from volagent.client.contract import BadRequest, Invalid, Selection

_TRUE = {"true", "True", "TRUE", "1", "t", "T"}
_FALSE = {"false", "False", "FALSE", "0", "f", "F", ""}
QUERY_FIELDS_LIMIT = 100
MANAGER_LIMIT_CHARS = 128


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters that volagent understands."""

    label_selector: str = ""
    field_selector: str = ""
    resource_version: str = ""
    limit: int = 0
    continue_token: str = ""
    watch: bool = False
    bookmarks: bool = False
    send_initial_events: bool = False
    timeout_s: int = 0
    dry_run: bool = False
    field_validation: str = ""
    grace_period_seconds: int | None = None
    include_object: str = ""
    field_manager: str = ""
    force: bool | None = None
    """Whether an apply takes over what others set; None when not given."""

    def select(self, namespace: str) -> Selection:
        """What a list or watch is narrowed to."""
        return Selection(namespace, self.label_selector, self.field_selector)


EMPTY_QUERY = Query()


def parse_query(text: str) -> Query:
    """Read the text after the `?`. Raises `BadRequest`, `Invalid` naming the parameter."""
    if not text:
        return EMPTY_QUERY
    try:
        given = dict(
            parse_qsl(
                text, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_LIMIT
            )
        )
    except ValueError as error:
        raise BadRequest(f"invalid query: {error}") from error
    return Query(
        label_selector=given.get("labelSelector", ""),
        field_selector=given.get("fieldSelector", ""),
        resource_version=given.get("resourceVersion", ""),
        limit=_read_int(given, "limit") or 0,
        continue_token=given.get("continue", ""),
        watch=_read_bool(given, "watch"),
        bookmarks=_read_bool(given, "allowWatchBookmarks"),
        send_initial_events=_read_bool(given, "sendInitialEvents"),
        timeout_s=_read_int(given, "timeoutSeconds") or 0,
        dry_run=read_dry_run(given.get("dryRun")),
        field_validation=_read_validation(given.get("fieldValidation", "")),
        grace_period_seconds=_read_int(given, "gracePeriodSeconds"),
        include_object=given.get("includeObject", ""),
        field_manager=_read_manager(given.get("fieldManager", "")),
        force=_read_bool(given, "force") if "force" in given else None,
    )


def read_dry_run(value: object) -> bool:
    """`All` (or `["All"]`, as a body has it) means yes. Raises `Invalid` for anything else."""
    if value in (None, "", []):
        return False
    if value in ("All", ["All"]):
        return True
    raise Invalid(f'dryRun: Unsupported value: {value!r}: supported values: "All"')


def _read_validation(value: str) -> str:
    if value in ("", "Ignore", "Warn", "Strict"):
        return value
    raise Invalid(
        f'fieldValidation: Unsupported value: "{value}":'
        ' supported values: "Ignore", "Strict", "Warn"'
    )


def _read_int(given: dict[str, str], name: str) -> int | None:
    text = given.get(name)
    if not text:
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
        raise BadRequest(f"invalid query: {name}={text!r} is not a whole number")
    return int(text)


def _read_bool(given: dict[str, str], name: str) -> bool:
    text = given.get(name, "")
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise BadRequest(f"invalid query: {name}={text!r} is neither true nor false")


def _read_manager(text: str) -> str:
    """A `fieldManager`. Raises `Invalid`."""
    if len(text) > MANAGER_LIMIT_CHARS:
        why = f"Too long: may not be more than {MANAGER_LIMIT_CHARS} bytes"
        raise Invalid(f"fieldManager: {why}", details=_cause("fieldManager", why, "TooLong"))
    if not text.isprintable():
        why = f"Invalid value: {text!r}: should only contain printable characters"
        raise Invalid(f"fieldManager: {why}", details=_cause("fieldManager", why, "Invalid"))
    return text


def _cause(field: str, why: str, reason: str) -> dict[str, object]:
    return {"causes": [{"reason": f"FieldValue{reason}", "message": why, "field": field}]}
