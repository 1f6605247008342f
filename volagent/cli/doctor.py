"""`volagent doctor`: is this machine fit, is the daemon well, is anything left lying about."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from volagent.cli.checks import (
    FAIL,
    OK,
    WARN,
    Finding,
    check_features,
    check_leftovers,
    check_permissions,
    check_records,
    check_runtime,
    check_tools,
)
from volagent.cli.connection import Api, object_path
from volagent.cli.errors import CommandError, Refused, Unreachable, UsageError
from volagent.cli.fence_checks import FenceFacts, check_fence
from volagent.cli.options import talks_to_daemon
from volagent.cli.output import clean, paint, print_document, print_line
from volagent.cli.progress import VOLUMES_READY
from volagent.cli.storage_checks import check_storage, look_at_storage
from volagent.client.contract import NODES, PODS
from volagent.objects.meta import Document
from volagent.settings import Settings, SettingsError, load_settings

STATUS_PATH = "/apis/node.volagent.dev/v1/status"
_HEALTHY_BACKENDS = ("closed", "ok", "ready", "healthy")


@click.command()
@click.option("--config", metavar="FILE", help="The settings that the daemon is started with")
@click.option("--root-dir", metavar="DIR", help="Where volumes are mounted  [/var/lib/kubelet]")
@click.option("--state-dir", metavar="DIR", help="What survives a reboot  [/var/lib/volagent]")
@click.option("-o", "--output", "form", type=click.Choice(["json", "yaml"]), help="How to print")
@click.option("-q", "--quiet", is_flag=True, help="Only what needs attention")
@talks_to_daemon
def doctor(
    api: Api,
    config: str | None,
    root_dir: str | None,
    state_dir: str | None,
    form: str | None,
    quiet: bool,
) -> None:
    """Check kernel, tools, permissions, the daemon and leftovers; say what to do.

    Exits with 1 when something must be done before volumes can work.
    """
    settings = _load(api, config, {"root_dir": root_dir, "state_dir": state_dir})
    findings = list(_examine(api, settings))
    form = form or click.get_current_context().find_root().params.get("form")
    if form in ("json", "yaml"):
        print_document({"kind": "Diagnosis", "findings": [asdict(one) for one in findings]}, form)
    else:
        for line in format_findings(findings, quiet=quiet):
            print_line(line)
    failed = sum(one.level == FAIL for one in findings)
    if failed:
        raise CommandError(f"{failed} of {len(findings)} checks failed")


def format_findings(findings: Sequence[Finding], *, quiet: bool) -> Iterator[str]:
    """The lines of a diagnosis. Pure, but for colours on a terminal."""
    shown = [one for one in findings if not quiet or one.level != OK]
    width = max((len(one.name) for one in shown), default=0)
    area = ""
    for one in shown:
        if one.area != area:
            yield from ("", one.area) if area else (one.area,)
            area = one.area
        level, name = paint(one.level.ljust(4), one.level), f"{clean(one.name):<{width}}"
        yield f"  {level}  {name}  {clean(one.detail)}"
        if one.remedy:
            yield f"  {'':4}  {'':<{width}}  → {clean(one.remedy)}"
    counts = {level: sum(one.level == level for one in findings) for level in (OK, WARN, FAIL)}
    if shown:
        yield ""
    yield f"{counts[OK]} ok, {counts[WARN]} to look at, {counts[FAIL]} to mend"


def _load(api: Api, config: str | None, given: dict[str, str | None]) -> Settings:
    overrides: dict[str, Any] = {
        name: os.path.abspath(path) for name, path in given.items() if path
    }
    if not config or not api.target.server:
        overrides["run_dir"] = os.path.dirname(api.target.socket_path) or None
    try:
        return load_settings(config, overrides)
    except SettingsError as error:
        raise UsageError(f"cannot read settings: {error}", hint=error.hint) from error


def _examine(api: Api, settings: Settings) -> Iterator[Finding]:
    # Loaded here: the doctor alone looks at the kernel.
    from volagent.host.features import detect_features
    from volagent.host.mounttable import choose_reader

    mounts = choose_reader().read_table().entries
    yield from check_features(detect_features())
    yield from check_tools()
    yield from check_runtime(settings.runtime)
    yield from check_permissions(settings, mounts)
    yield from check_fence(settings.fence, _look_at_fence(settings))
    if settings.storage.enabled:
        yield from check_storage(settings.storage, look_at_storage(settings, mounts))
    status, finding = _ask_daemon(api)
    yield finding
    yield from _check_rivals(settings)
    known = None
    if status is not None:
        yield from check_status(status)
        pods = _fetch_pods(api)
        yield from check_pods(pods or ())
        known = {pod["metadata"]["uid"] for pod in pods} if pods is not None else None
    yield from _check_versions(api)
    yield from check_leftovers(settings, mounts, known)
    yield from check_records(settings, _read_boot_id())


def _look_at_fence(settings: Settings) -> FenceFacts:
    from volagent.host.watchdog import SYSRQ_TRIGGER, is_virtual_machine, look_at

    try:
        sessions = len(os.listdir("/sys/class/iscsi_session"))
    except OSError:
        sessions = 0
    return FenceFacts(
        look_at(settings.fence.watchdog or "/dev/watchdog"),
        sysrq=os.path.exists(SYSRQ_TRIGGER), virtual=is_virtual_machine(), sessions=sessions,
    )  # fmt: skip


def _ask_daemon(api: Api) -> tuple[Document | None, Finding]:
    try:
        api.get("/readyz")
        status: Document = api.get(STATUS_PATH)
    except Unreachable as error:
        return None, Finding("daemon", "reachable", WARN, error.message, error.hint)
    except Refused as refusal:
        return None, Finding("daemon", "ready", WARN, refusal.message, refusal.hint)
    detail = f"node {status.get('node')}, since {status.get('startedAt')}"
    seconds = status.get("recoverySeconds")
    if isinstance(seconds, int | float):
        detail += f", knew everything again after {seconds:.3f} s"
    return status, Finding("daemon", "ready", OK, detail)


def check_status(status: Document) -> Iterator[Finding]:
    """What the daemon says about itself."""
    volumes = status.get("volumes") or {}
    failed = volumes.get("failed") or 0
    told = ", ".join(f"{count} {state}" for state, count in volumes.items())
    yield Finding(
        "daemon", "volumes", WARN if failed else OK, told or "none",
        "volagent get pods -A, then volagent explain pod/NAME" if failed else "",
    )  # fmt: skip
    for backend in status.get("backends") or ():
        state = str(backend.get("state"))
        good = state in _HEALTHY_BACKENDS
        detail = " ".join(filter(None, (state, backend.get("since"), backend.get("detail"))))
        yield Finding(
            "daemon", f"backend {backend.get('name')}", OK if good else WARN, detail,
            "" if good else "see whether its server answers; volumes of others are not affected",
        )  # fmt: skip


def _check_rivals(settings: Settings) -> Iterator[Finding]:
    """Who else thinks that this root directory is theirs."""
    import psutil

    daemons, kubelets = [], []
    for process in psutil.process_iter(["pid", "name", "cmdline"]):
        arguments = process.info["cmdline"] or []
        if process.info["name"] == "kubelet":
            kubelets.append((process.info["pid"], arguments))
        elif is_daemon(arguments):
            daemons.append((process.info["pid"], arguments))
    yield from judge_rivals(settings.root_dir, daemons, kubelets)


def judge_rivals(
    root_dir: str,
    daemons: Iterable[tuple[int, list[str]]],
    kubelets: Iterable[tuple[int, list[str]]],
) -> Iterator[Finding]:
    """Findings about other daemons and kubelets on the same root directory. Pure."""
    default = Settings().root_dir
    same = [pid for pid, line in daemons if find_flag(line, "--root-dir", default) == root_dir]
    if len(same) > 1:
        yield Finding("daemon", "second daemon", FAIL,
                      f"processes {', '.join(map(str, same))} share {root_dir}",
                      "stop all but one, or give each its own --root-dir")  # fmt: skip
    for pid, line in kubelets:
        if find_flag(line, "--root-dir", default) == root_dir:
            yield Finding("daemon", "kubelet", FAIL,
                          f"a kubelet (pid {pid}) uses {root_dir} too: it unmounts what it did not"
                          " mount", "stop the kubelet, or start volagent with another --root-dir",
                          )  # fmt: skip


def is_daemon(arguments: Sequence[str]) -> bool:
    """Whether a command line is `volagent run` or `agent`, by itself or under an interpreter."""
    names = [os.path.basename(argument) for argument in arguments]
    if names and names[0].startswith("python"):
        names = names[1:]
    return names[:1] == ["volagent"] and not {"run", "agent"}.isdisjoint(names)


def find_flag(arguments: Sequence[str], flag: str, default: str) -> str:
    """The value of `--flag VALUE` or `--flag=VALUE`."""
    for index, argument in enumerate(arguments):
        if argument == flag and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return default


def check_pods(pods: Iterable[Document]) -> Iterator[Finding]:
    """Pods that something keeps from their volumes. Pure."""
    for pod in pods:
        for condition in (pod.get("status") or {}).get("conditions") or ():
            if condition.get("type") == VOLUMES_READY and condition.get("reason") == "FailedMount":
                metadata = pod["metadata"]
                yield Finding(
                    "daemon", f"pod {metadata['namespace']}/{metadata['name']}", WARN,
                    str(condition.get("message") or "its volumes are not ready"),
                    f"volagent explain pod/{metadata['name']} -n {metadata['namespace']}",
                )  # fmt: skip


def _fetch_pods(api: Api) -> list[Document] | None:
    try:
        return list(api.get(object_path(PODS)).get("items") or ())
    except Refused:
        return None


def _check_versions(api: Api) -> Iterator[Finding]:
    try:
        nodes = api.get(object_path(NODES)).get("items") or ()
        daemon = str(api.get("/version").get("gitVersion") or "")
    except (Refused, Unreachable):
        return  # told already
    yield from check_versions(daemon, nodes)


def check_versions(daemon: str, nodes: Iterable[Document]) -> Iterator[Finding]:
    """Nodes whose agents have another version than the daemon that was asked. Pure."""
    mine = daemon.partition("+volagent.")[2]
    for node in nodes:
        info = (node.get("status") or {}).get("nodeInfo") or {}
        theirs = str(info.get("kubeletVersion") or "").removeprefix("volagent-")
        if theirs and theirs != mine:
            yield Finding(
                "daemon", f"version of node {node['metadata']['name']}", WARN,
                f"{theirs}, and {mine} here: one version apart is fine, more is not tested",
                "upgrade the servers first, then the agents",
            )  # fmt: skip


def _read_boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
