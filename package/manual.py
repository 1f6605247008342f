"""The manual pages: volagent(1) from the commands, volagent.toml(5) from the settings' file.

Both are written anew with each build, so they never say less than the program. Pure: text in, text
out; the roff is plain man(7).
"""

import re
from collections.abc import Iterator

import click

_PARAGRAPH = re.compile(r"\n\s*\n")
_ENTRY = re.compile(r"# (?P<setting>[a-z_]+ = .*)")
_TABLE = re.compile(r"\[[a-z.]+\]")
_INTRO = """\
.SH DESCRIPTION
volagent mounts the volumes of pods on this machine, from the manifests that Kubernetes uses, and
keeps them right for as long as the pods live.
The daemon is
.BR "volagent run" ,
or
.B volagent server
with a
.B volagent agent
on each machine; all other commands talk to it.
"""
_END = """\
.SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
The operation failed.
.TP
.B 2
Wrong usage or settings.
.TP
.B 3
The daemon cannot be reached.
.TP
.B 130
Interrupted.
.SH FILES
.TP
.I /etc/volagent/volagent.toml
Settings of the daemon, see
.BR volagent.toml (5).
.TP
.I /var/lib/volagent
What survives a reboot: declared objects, certificates, images of volumes.
.TP
.I /var/lib/kubelet/pods
Where the pods' volumes are mounted.
.TP
.I /run/volagent/volagent.sock
The daemon's socket; root and members of the group
.B volagent
may call.
.TP
.I /usr/share/doc/volagent
The manual of operations, and examples.
.SH SEE ALSO
.BR volagent.toml (5),
.BR systemctl (1),
.BR mount (8)
"""


def render_commands(root: click.Group, version: str, date: str) -> str:
    """volagent(1): every command with its options, from click's own descriptions."""
    context = click.Context(root, info_name="volagent", **root.context_settings)
    parts = [
        f'.TH VOLAGENT 1 "{date}" "volagent {version}" "volagent"\n',
        ".SH NAME\nvolagent \\- persistent volumes for containers on plain VMs\n",
        '.SH SYNOPSIS\n.B volagent\n.RI [ OPTIONS ] " COMMAND " [ ARGUMENTS ]\n',
        _INTRO,
        ".SH OPTIONS\n",
        *_options(root, context),
        ".SH COMMANDS\n",
        *_commands(root, context),
        ".SH ENVIRONMENT\n",
        *_environment(root),
        _END,
    ]
    return "".join(parts)


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from _commands(command, inner)
            continue
        usage = " ".join(command.collect_usage_pieces(inner))
        yield f".SS {_escape(inner.command_path)}\n"
        yield f".B {_escape(inner.command_path)}\n{_line(usage)}"
        for paragraph in _PARAGRAPH.split((command.help or "").strip()):
            yield from _paragraph(paragraph)
        yield from _options(command, inner)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            names, about = record
            yield f".TP\n.B {_escape(names)}\n{_line(' '.join(about.split()))}"


def _paragraph(text: str) -> Iterator[str]:
    if text.startswith("\b"):  # click's mark for lines that must not be wrapped
        yield ".PP\n.nf\n"
        yield from (_line(line) for line in text.splitlines()[1:])
        yield ".fi\n"
        return
    yield f".PP\n{_line(' '.join(text.split()))}"


def _environment(root: click.Group) -> Iterator[str]:
    for parameter in root.params:
        if isinstance(parameter, click.Option) and parameter.envvar:
            yield f".TP\n.B {parameter.envvar}\nAs {_line(_flag(parameter))}"
    yield ".TP\n.B VOLAGENT_NAMESPACE\nThe namespace, as \\-n of the commands that have it.\n"
    yield '.TP\n.B VOLAGENT_TOKEN\nThe token of\n.BR "volagent join" .\n'


def _flag(option: click.Option) -> str:
    return f"{option.opts[0]}: {option.help}"


def render_settings(text: str, version: str, date: str) -> str:
    """volagent.toml(5) from the settings' file with its comments: block by block."""
    first, *blocks = _PARAGRAPH.split(text.strip())
    parts = [
        f'.TH VOLAGENT.TOML 5 "{date}" "volagent {version}" "volagent"\n',
        ".SH NAME\nvolagent.toml \\- settings of the volagent daemon\n",
        ".SH SYNOPSIS\n.I /etc/volagent/volagent.toml\n",
        ".SH DESCRIPTION\n",
        *_comment(first.splitlines()),
        ".PP\nThe file is TOML. Each key is shown with its default.\n",
        ".SH SETTINGS\n",
        *(line for block in blocks for line in _settings(block.splitlines())),
        ".SH SEE ALSO\n.BR volagent (1)\n",
    ]
    return "".join(parts)


def _settings(lines: list[str]) -> Iterator[str]:
    """One block: an optional table's name, what the settings are for, the settings."""
    if _TABLE.fullmatch(lines[0]):
        yield f".SS {_escape(lines[0])}\n"
        lines = lines[1:]
    about: list[str] = []
    entries: list[str] = []
    for line in lines:
        if match := _ENTRY.fullmatch(line):
            entries.append(match["setting"])
            continue
        if entries:  # the next group begins without an empty line between
            yield from _group(entries, about)
            about, entries = [], []
        about.append(line)
    yield from _group(entries, about)


def _group(entries: list[str], about: list[str]) -> Iterator[str]:
    if entries:
        yield ".TP\n"
        yield "\n.TQ\n".join(f".B {_escape(entry)}" for entry in entries) + "\n"
    yield from _comment(about)


def _comment(lines: list[str]) -> Iterator[str]:
    """Comment lines as text; those that are set in by two more blanks keep their form."""
    shown_as_is = False
    for line in lines:
        text = line.removeprefix("#").removeprefix(" ")
        if text.startswith("  ") != shown_as_is:
            shown_as_is = not shown_as_is
            yield ".IP\n.nf\n" if shown_as_is else ".fi\n.IP\n"
        yield _line(text)
    if shown_as_is:
        yield ".fi\n"


def _line(text: str) -> str:
    """A line of text that is no request, whatever it begins with."""
    escaped = _escape(text)
    return f"\\&{escaped}\n" if escaped.startswith((".", "'")) else f"{escaped}\n"


def _escape(text: str) -> str:
    return (
        text.replace("\\", "\\e")
        .replace("-", "\\-")
        .replace("`", "\\(ga")
        .replace("^", "\\(ha")
        .replace("~", "\\(ti")
        .replace('"', "\\(dq")
    )
