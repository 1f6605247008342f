"""Every `volagent ...` that the documents tell people to type exists, with its options."""

import re
import shlex

import click
import pytest

from tests.meta.source_tree import ROOT
from volagent.cli.main import volagent

DOCUMENTS = ("README.md", "CONTRIBUTING.md", *sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")
))  # fmt: skip
_COMMAND = re.compile(r"(?:\$ )?(?:\(umask 077; )?(?:sudo )?(?:\.venv/bin/)?volagent (.+)")
_INLINE = re.compile(r"`(?:sudo )?volagent ([^`]+)`")
_PLACEHOLDER = re.compile(r"<.*>|VERSION.*|…|\.\.\.")


def commands_of(text):
    """What follows `volagent` in code blocks and in code between words."""
    for line in text.splitlines():
        found = _COMMAND.match(line.strip()) if line.startswith("    ") else None
        if found:
            yield re.split(r"\s{2,}|\s[#>|)]", found[1])[0]
        yield from _INLINE.findall(line)


def check(arguments):
    """Raises `AssertionError` for a verb or an option that does not exist."""
    group, words = volagent, list(arguments)
    context = click.Context(volagent)
    while isinstance(group, click.Group):
        while words and words[0].startswith("-"):  # options of all verbs, with their values
            words = words[
                1 if "=" in words[0] or words[0] in ("-h", "--help", "--version") else 2 :
            ]
        if not words:
            return
        command = group.get_command(context, words[0])
        assert command is not None, f"{group.name} has no {words[0]!r}"
        group, words = command, words[1:]
    known = {
        name for each in (*group.params, *volagent.params) for name in (*each.opts, "-h", "--help")
    }
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert given <= known, f"{group.name} has no {sorted(given - known)}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documented_commands_exist(name):
    text = (ROOT / name).read_text()
    for found in commands_of(text):
        words = [word for word in shlex.split(found) if not _PLACEHOLDER.fullmatch(word)]
        if words:
            check(words)


def test_commands_are_found_where_they_stand():
    text = "    sudo volagent get nodes -w     words\nsay `volagent node drain vm1` then\n"
    assert list(commands_of(text)) == ["get nodes -w", "node drain vm1"]
    with pytest.raises(AssertionError, match="has no 'sing'"):
        check(["sing"])
    with pytest.raises(AssertionError, match="has no"):
        check(["get", "pods", "--colour"])
