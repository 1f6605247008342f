"""Throw-away certificates, made by openssl."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: str
    key: str


@dataclass(frozen=True)
class Authority:
    """A CA, a server's certificate for localhost, and two clients'."""

    ca: str
    server: Pair
    admin: Pair
    stranger: Pair


def make_authority(directory: Path) -> Authority:
    """Skips the test when there is no openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the throw-away certificates: install openssl")
    directory.mkdir()
    ca = Pair(str(directory / "ca.crt"), str(directory / "ca.key"))
    _run(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", "1", "-subj", "/CN=test CA", "-keyout", ca.key, "-out", ca.certificate,
    )  # fmt: skip
    return Authority(
        ca.certificate,
        _sign(directory, ca, "server", "/CN=localhost"),
        _sign(directory, ca, "admin", "/O=system:masters/CN=alice"),
        _sign(directory, ca, "stranger", "/CN=mallory"),
    )


def _sign(directory: Path, ca: Pair, name: str, subject: str) -> Pair:
    pair = Pair(str(directory / f"{name}.crt"), str(directory / f"{name}.key"))
    extensions = directory / f"{name}.ext"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    request = str(directory / f"{name}.csr")
    _run(
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-subj", subject, "-keyout", pair.key, "-out", request,
    )  # fmt: skip
    _run(
        "x509", "-req", "-in", request, "-CA", ca.certificate, "-CAkey", ca.key,
        "-CAcreateserial", "-days", "1", "-extfile", str(extensions), "-out", pair.certificate,
    )  # fmt: skip
    os.chmod(pair.key, 0o600)
    return pair


def _run(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
