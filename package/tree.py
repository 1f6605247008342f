"""The files of the package, each in its place below a directory that stands for /."""

import gzip
import os
import shutil
import stat
import time
from importlib.metadata import Distribution
from pathlib import Path

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from package import manual, units
from package.closure import licence, list_files
from volagent import __version__
from volagent.cli.main import volagent

LIBRARY = "usr/lib/volagent"
_DOC = "usr/share/doc/volagent"
_COMPLETIONS: dict[str, type[ShellComplete]] = {
    "usr/share/bash-completion/completions/volagent": BashComplete,
    "usr/share/zsh/vendor-completions/_volagent": ZshComplete,
    "usr/share/fish/vendor_completions.d/volagent.fish": FishComplete,
}
_LINKS = {
    "docs/": "",
    "config/examples/": "examples/",
    "config/volagent.toml": "/etc/volagent/volagent.toml",
}
_SOURCE = {".py", ".typed", ".schema", ".toml"}
_COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: volagent
Comment: Below /usr/lib/volagent the package carries the Python libraries that it needs, without
 what only compiling needs, each with the licence files that it came with, in NAME.dist-info.

Files: *
Copyright: the authors of volagent
License: volagent
 As the project states.
"""


def fill(root: Path, project: Path, closure: list[Distribution], epoch: int) -> None:
    """Put everything but the compiled code and the control files below `root`."""
    _put_program(root, project, closure)
    _put_configuration(root, project)
    _put_documents(root, project, closure, epoch)
    for place, shell in _COMPLETIONS.items():
        _write(root / place, _completion(shell))


def _put_program(root: Path, project: Path, closure: list[Distribution]) -> None:
    _copy(project / "package" / "bin" / "volagent", root / "usr/bin/volagent", mode=0o755)
    for source in sorted((project / "volagent").rglob("*")):
        if source.is_file() and source.suffix in _SOURCE:
            _copy(source, root / LIBRARY / source.relative_to(project))
    for distribution in closure:
        for source, place in list_files(distribution):
            _copy(source, root / LIBRARY / place)


def _put_configuration(root: Path, project: Path) -> None:
    _copy(project / "config/volagent.toml", root / "etc/volagent/volagent.toml")
    sysusers = project / "systemd/volagent.sysusers.conf"
    _copy(sysusers, root / "usr/lib/sysusers.d/volagent.conf")
    directory = root / "usr/lib/systemd/system"
    directory.mkdir(parents=True)
    units.write_units(directory)


def _put_documents(root: Path, project: Path, closure: list[Distribution], epoch: int) -> None:
    doc = root / _DOC
    _write(doc / "README.md", _relink((project / "README.md").read_text()))
    for source in sorted((project / "docs").rglob("*.md")):
        _copy(source, doc / source.relative_to(project / "docs"))
    for source in sorted((project / "config/examples").glob("*.yaml")):
        _copy(source, doc / "examples" / source.name)
    for source in sorted((project / "config/fence.d").glob("*.example")):
        _copy(source, doc / "examples/fence.d" / source.name)
    _write(doc / "copyright", _copyright(closure))
    _compress(doc / "changelog.gz", (project / "package/debian/changelog").read_text())
    date = time.strftime("%Y-%m-%d", time.gmtime(epoch))
    commands = manual.render_commands(volagent, __version__, date)
    _compress(root / "usr/share/man/man1/volagent.1.gz", commands)
    settings = (project / "config/volagent.toml").read_text()
    page = manual.render_settings(settings, __version__, date)
    _compress(root / "usr/share/man/man5/volagent.toml.5.gz", page)


def _relink(text: str) -> str:
    """The README's links, as things lie on the machine."""
    for here, there in _LINKS.items():
        text = text.replace(f"]({here}", f"]({there}")
    return text


def _completion(shell: type[ShellComplete]) -> str:
    complete = shell(volagent, {}, "volagent", "_VOLAGENT_COMPLETE")
    return complete.source_template % complete.source_vars()


def _copyright(closure: list[Distribution]) -> str:
    """In Debian's machine-readable form: one paragraph per library."""
    parts = [_COPYRIGHT]
    for each in closure:
        tops = {
            place.parts[0] + ("/*" if len(place.parts) > 1 else "") for _, place in list_files(each)
        }
        files = "\n ".join(f"{LIBRARY}/{top}" for top in sorted(tops))
        parts.append(
            f"Files: {files}\nCopyright: the authors of {each.name} {each.version}\n"
            f"License: {each.name}\n {licence(each)}\n"
        )
    return "\n".join(parts)


def _copy(source: Path, target: Path, *, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(0o644)


def _compress(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def normalise(root: Path, epoch: int) -> None:
    """One time for everything; 0755 for directories and what may be run, 0644 for the rest."""
    for path in (root, *sorted(root.rglob("*"))):
        runs = path.is_dir() or bool(path.stat().st_mode & stat.S_IXUSR)
        path.chmod(0o755 if runs else 0o644)
        os.utime(path, (epoch, epoch))
