"""A fake daemon on a socket, and the command line called in this process."""

import pytest

from tests.unit.cli.fake_daemon import FakeDaemon
from volagent.cli.main import run_command


@pytest.fixture
def daemon(tmp_path):
    fake = FakeDaemon(tmp_path / "s")
    yield fake
    fake.close()


@pytest.fixture
def call(daemon, capsys, monkeypatch):
    """`call("get", "pods")` → (exit code, standard output, standard error)."""
    monkeypatch.setenv("VOLAGENT_SOCKET", daemon.socket_path)

    def run(*arguments):
        code = run_command([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def write(tmp_path):
    """Write a manifest; its path."""

    def write_file(text, name="m.yaml"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return str(file)

    return write_file
