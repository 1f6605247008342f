"""A kubeconfig for the stock kubectl: our authority, a fresh certificate, the address."""

from base64 import b64encode

from volagent.api.authority import Authority
from volagent.client.contract import BadRequest
from volagent.objects.meta import Document

NAME = "volagent"


def describe_kubeconfig(authority: Authority | None, server: str, user: str) -> Document:
    """The configuration of an administrator. Raises `BadRequest` without an https listener."""
    if authority is None or not server:
        raise BadRequest(
            "the daemon has no https listener with a certificate of its own; start it with"
            " --listen https://127.0.0.1:6443 beside its socket"
        )
    pair = authority.issue_client(user, ("system:masters",))
    return {
        "kind": "Config",
        "apiVersion": "v1",
        "current-context": NAME,
        "clusters": [{
            "name": NAME,
            "cluster": {
                "server": server, "certificate-authority-data": _encode(authority.certificate),
            },
        }],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": user}}],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": _encode(pair.certificate),
                "client-key-data": _encode(pair.key),
            },
        }],
    }  # fmt: skip


def _encode(text: bytes) -> str:
    return b64encode(text).decode()
