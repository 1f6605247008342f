"""What is written for people: every command and setting has its place in the manual."""

import gzip
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

from tests.package.same_python import needs_same_python
from volagent import __version__
from volagent.cli.main import volagent

PROJECT = Path(__file__).parents[2]
PAGES = ("usr/share/man/man1/volagent.1.gz", "usr/share/man/man5/volagent.toml.5.gz")


def read_page(unpacked, page):
    return gzip.decompress((unpacked / page).read_bytes()).decode().replace("\\-", "-")


def list_commands(group=volagent, path="volagent"):
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from list_commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_every_command_has_a_section_of_the_manual_with_its_options(unpacked):
    sections = re.split(r"^\.S[SH] ", read_page(unpacked, PAGES[0]), flags=re.M)
    by_title = {section.partition("\n")[0]: section for section in sections}
    for path, command in list_commands():
        section = by_title[path]
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.opts[0] in section, f"{path} {option.opts[0]}"


def test_every_setting_has_an_entry_of_the_manual(unpacked):
    page = read_page(unpacked, PAGES[1]).replace("\\(dq", '"')
    shown = re.sub(r"^# ([a-z_]+ = )", r"\1", (PROJECT / "config/volagent.toml").read_text(),
                   flags=re.M)  # fmt: skip
    for key, value in tomllib.loads(shown).items():
        if isinstance(value, dict) and value:
            assert f".SS [{key}]\n" in page
        for name in value if isinstance(value, dict) and value else (key,):
            assert re.search(rf"^\.B {name} = ", page, flags=re.M), f"{key} {name}"


@pytest.mark.parametrize("page", PAGES)
def test_page_renders_without_a_warning(unpacked, page):
    if shutil.which("man") is None:
        pytest.skip("man is missing: install man-db")
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", unpacked / page],
        env={"LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("shell", "place"),
    [
        ("bash", "usr/share/bash-completion/completions/volagent"),
        ("zsh", "usr/share/zsh/vendor-completions/_volagent"),
        ("fish", "usr/share/fish/vendor_completions.d/volagent.fish"),
    ],
)
def test_completion_is_good_shell(unpacked, shell, place):
    text = (unpacked / place).read_text()
    assert f"_VOLAGENT_COMPLETE={shell}_complete" in text
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is missing; the script was only looked at")
    subprocess.run([shell, "-n", unpacked / place], check=True)


@needs_same_python
def test_bash_completes_a_verb(unpacked):
    # As bash calls it: the words so far, and which of them is being written.
    script = (
        "source $COMPLETION; COMP_WORDS=(volagent expl); COMP_CWORD=1; "
        '_volagent_completion volagent; echo "${COMPREPLY[@]}"'
    )
    environment = {
        "COMPLETION": str(unpacked / "usr/share/bash-completion/completions/volagent"),
        "PATH": f"{unpacked}/usr/bin:/usr/bin:/bin",
    }
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["explain"]


def test_links_of_the_documents_lead_to_files_of_the_package(unpacked):
    documents = unpacked / "usr/share/doc/volagent"
    dead = []
    for document in documents.rglob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            target = unpacked / link[1:] if link.startswith("/") else document.parent / link
            if not target.exists():
                dead.append(f"{document.name}: {link}")
    assert dead == []


def test_changelog_begins_with_this_version(unpacked):
    text = gzip.decompress((unpacked / "usr/share/doc/volagent/changelog.gz").read_bytes())
    assert text.decode().startswith(f"volagent ({__version__}) ")
