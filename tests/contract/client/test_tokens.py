"""Token requests, as every client gives them."""

import pytest

from tests.contract.client.documents import pod
from volagent.client.contract import PODS, BadRequest, Conflict, Invalid, NotFound


def request(**spec):
    return {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec}


def bound_to(created, uid=None):
    metadata = created["metadata"]
    return {"kind": "Pod", "name": metadata["name"], "uid": uid or metadata["uid"]}


async def test_token_is_issued_for_a_pod(client):
    created = await client.create(PODS, pod("a"), "default")

    answer = await client.issue_token(
        "default", "default", request(audiences=["vault"], boundObjectRef=bound_to(created))
    )

    assert answer["kind"] == "TokenRequest"
    assert answer["status"]["token"].count(".") == 2
    assert answer["status"]["expirationTimestamp"].endswith("Z")
    assert answer["spec"]["expirationSeconds"] == 3600


async def test_token_is_refused_when_its_pod_was_replaced(client):
    created = await client.create(PODS, pod("a"), "default")

    with pytest.raises(Conflict, match="deleted and then recreated"):
        await client.issue_token(
            "default", "default", request(boundObjectRef=bound_to(created, "another"))
        )


async def test_token_is_refused_when_its_pod_runs_as_somebody_else(client):
    created = await client.create(PODS, pod("a", serviceAccountName="builder"), "default")

    with pytest.raises(BadRequest, match="different serviceaccount name"):
        await client.issue_token("default", "default", request(boundObjectRef=bound_to(created)))


async def test_token_is_refused_when_the_account_does_not_exist(client):
    with pytest.raises(NotFound):
        await client.issue_token("nobody", "default", request())


@pytest.mark.parametrize("life_s", [0, -5, 599, 2**33])
async def test_token_is_refused_when_its_life_is_unreasonable(client, life_s):
    with pytest.raises(Invalid, match="expirationSeconds"):
        await client.issue_token("default", "default", request(expirationSeconds=life_s))


async def test_token_is_refused_when_the_request_makes_no_sense(client):
    with pytest.raises(BadRequest):
        await client.issue_token("default", "default", request(audiences="vault"))
