"""What must stand nowhere in the project: unfinished work, one machine's paths, hosts."""

import re

from tests.meta.source_tree import text_files

# Written in pieces, so that this file does not accuse itself.
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
ONE_MACHINE = re.compile(r"(?<![\w.])/wo" + r"rk/(?:main|shared)\b|/root/\.pyenv|/home/\w+/")
REGISTRIES = re.compile(
    "|".join(
        re.escape("".join(pieces))
        for pieces in (
            ("py", "pi.org"), ("python", "hosted.org"), ("npm", "js.org"), ("deb.deb", "ian.org"),
            ("archive.ubu", "ntu.com"), ("docker", ".io/"), ("qu", "ay.io"), ("gh", "cr.io"),
        )
    )
)  # fmt: skip


def find(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_nothing_is_left_unfinished():
    assert find(UNFINISHED) == []


def test_no_path_of_one_machine_is_written_down():
    assert find(ONE_MACHINE) == []


def test_no_registry_is_named():
    assert find(REGISTRIES) == []
