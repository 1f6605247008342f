"""A server on TLS for programs that know nothing of volagent."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.contract.client.conftest import serve_in_process
from tests.unit.http.certificates import make_authority
from tests.unit.http.world import one_metric
from volagent.api.auth import TokenFile
from volagent.api.inprocess import InProcessClient
from volagent.api.server import ApiServer

TOKEN = "admin-token"


@dataclass(frozen=True)
class Served:
    """Where the server is, and a configuration to reach it."""

    client: InProcessClient
    url: str
    ca_file: str
    kubeconfig: str


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    authority = make_authority(tmp_path / "tls")
    tokens = tmp_path / "tokens.csv"
    tokens.write_text(f'{TOKEN},alice,1,"system:masters"\n')
    (tmp_path / "state").mkdir(exist_ok=True)
    async with serve_in_process(tmp_path / "state") as client:
        server = ApiServer(
            client,
            node_view=None,
            ready=lambda: None,
            metrics=one_metric,
            version="0.0.1",
            authenticators=[TokenFile(str(tokens))],
        )
        pair = authority.server
        port = await server.start_tls("127.0.0.1", 0, pair.certificate, pair.key)
        url = f"https://127.0.0.1:{port}"
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(_kubeconfig(url, authority.ca)))
        os.chmod(kubeconfig, 0o600)
        yield Served(client, url, authority.ca, str(kubeconfig))
        await server.close()


def _kubeconfig(url: str, ca_file: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "volagent",
        "clusters": [
            {"name": "volagent", "cluster": {"server": url, "certificate-authority": ca_file}}
        ],
        "users": [{"name": "alice", "user": {"token": TOKEN}}],
        "contexts": [{"name": "volagent", "context": {"cluster": "volagent", "user": "alice"}}],
    }
