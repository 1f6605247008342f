"""The files of the project, as the meta tests look at them."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CODE = ("volagent", "tests", "bench", "config", "package")
_TEXT = (*_CODE, "docs", "systemd", "vagrant", ".ci")
_NOT_OURS = {"__pycache__", ".cache", ".git"}


def python_files() -> list[Path]:
    """Every Python file of the project, relative to its root."""
    return [path for path in _files(_CODE) if path.suffix == ".py"]


def text_files() -> Iterator[tuple[Path, str]]:
    """Every text file of the project with its content."""
    top = [path.relative_to(ROOT) for path in ROOT.iterdir() if path.is_file()]
    for path in sorted([*top, *_files(_TEXT)]):
        if path.name in _NOT_OURS:
            continue
        try:
            yield path, (ROOT / path).read_text()
        except UnicodeDecodeError:
            continue  # a picture


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Qualified name and length in lines of each function in a file."""
    tree = ast.parse((ROOT / path).read_text(), str(path))
    yield from _functions(tree, "")


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                assert child.end_lineno is not None
                yield f"{prefix}{name}", child.end_lineno - child.lineno + 1
                yield from _functions(child, f"{prefix}{name}.")
            case ast.ClassDef(name=name):
                yield from _functions(child, f"{prefix}{name}.")
            case _:
                yield from _functions(child, prefix)


def _files(folders: tuple[str, ...]) -> list[Path]:
    return sorted(
        path.relative_to(ROOT)
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not _NOT_OURS.intersection(path.parts)
    )
