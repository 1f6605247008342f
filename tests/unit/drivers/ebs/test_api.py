"""The query API and the metadata service, spoken with over HTTP on this machine."""

import asyncio
import contextlib
import logging
from urllib.parse import parse_qsl

import pytest
from aiohttp import web

from tests.contract.provisioners.backends import ManualClock
from volagent.drivers.ebs.api import Ec2, Ec2Error, flatten
from volagent.drivers.ebs.cloud import Cloud, EbsConfig
from volagent.drivers.ebs.metadata import Metadata
from volagent.drivers.ebs.signing import Credentials
from volagent.drivers.ebs.volumes import EbsVolumes
from volagent.drivers.errors import Transient, Uncertain

SECRET = "wJalrXUtnFEMI-secret"
VOLUME = """<?xml version="1.0"?>
<DescribeVolumesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>1</requestId>
  <volumeSet><item>
    <volumeId>vol-0001</volumeId><size>8</size><availabilityZone>us-east-1a</availabilityZone>
    <status>in-use</status>
    <attachmentSet><item><instanceId>i-1</instanceId><device>/dev/sdf</device>
      <status>attached</status></item></attachmentSet>
    <tagSet><item><key>Name</key><value>a b</value></item><item><key>e</key><value/></item></tagSet>
  </item></volumeSet>
</DescribeVolumesResponse>"""
REFUSAL = """<Response><Errors><Error><Code>{code}</Code><Message>no, because</Message></Error>
</Errors><RequestID>1</RequestID></Response>"""


@contextlib.asynccontextmanager
async def served(handler):
    """An HTTP server that answers everything with a handler; its address."""
    server = web.Server(handler)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def _credentials(monkeypatch, tmp_path):
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION",
                 "AWS_EC2_METADATA_DISABLED", "AWS_EC2_METADATA_SERVICE_ENDPOINT"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def ec2_at(endpoint):
    config = EbsConfig(cluster="vm1", region="us-east-1", endpoint=endpoint)
    return Ec2(Cloud(config, ManualClock()))


async def test_call_is_signed_and_its_answer_read():
    seen = []

    async def handler(request):
        seen.append((request.headers, dict(parse_qsl(await request.text()))))
        return web.Response(text=VOLUME, content_type="text/xml")

    async with served(handler) as endpoint:
        volume = await EbsVolumes(ec2_at(endpoint)).find("vol-0001")
    assert volume is not None
    assert (volume.size_bytes, volume.zone, volume.state) == (8 << 30, "us-east-1a", "in-use")
    assert volume.tags == {"Name": "a b", "e": ""}
    assert volume.attachment_to("i-1").device == "/dev/sdf"
    ((headers, form),) = seen
    assert form == {"Action": "DescribeVolumes", "Version": "2016-11-15", "VolumeId.1": "vol-0001"}
    assert "Credential=AKID/20260101/us-east-1/ec2/aws4_request" in headers["Authorization"]
    assert SECRET not in str(headers)


async def test_refusal_has_its_code_and_gone_is_none():
    async def handler(request):
        form = dict(parse_qsl(await request.text()))
        gone = form["Action"] == "DescribeVolumes"
        code = "InvalidVolume.NotFound" if gone else "UnauthorizedOperation"
        return web.Response(status=400, text=REFUSAL.format(code=code))

    async with served(handler) as endpoint:
        volumes = EbsVolumes(ec2_at(endpoint))
        assert await volumes.find("vol-0001") is None
        with pytest.raises(Ec2Error, match="no, because") as caught:
            await volumes.delete("vol-0001")
    assert caught.value.code == "UnauthorizedOperation"


async def test_answer_of_somebody_else_is_a_fault_over_there():
    async def handler(_request):
        return web.Response(text="<html>welcome to the hotel's network", content_type="text/html")

    async with served(handler) as endpoint:
        with pytest.raises(Ec2Error) as caught:
            await ec2_at(endpoint).call("DescribeVolumes")
    assert caught.value.status >= 500


async def test_api_that_cannot_be_reached_has_done_nothing():
    async with served(lambda _: None) as endpoint:
        pass
    with pytest.raises(Transient, match="cannot be reached"):
        await ec2_at(endpoint).call("DescribeVolumes")


async def test_connection_that_breaks_leaves_it_uncertain():
    async def handler(request):
        await request.text()
        request.transport.abort()
        await asyncio.sleep(0)
        return web.Response()

    async with served(handler) as endpoint:
        with pytest.raises(Uncertain, match="no answer"):
            await ec2_at(endpoint).call("CreateVolume")


async def test_pages_are_read_to_the_last():
    async def handler(request):
        form = dict(parse_qsl(await request.text()))
        more = "" if form.get("NextToken") else "<nextToken>more</nextToken>"
        return web.Response(text=VOLUME.replace("<requestId>1</requestId>", more))

    async with served(handler) as endpoint:
        assert len(await EbsVolumes(ec2_at(endpoint)).select({"Name": "a b"})) == 2


class InstanceMetadata:
    """A metadata service, version 2 only."""

    def __init__(self, expires="2026-01-01T06:00:00Z"):
        self.granted = 0
        self.expires = expires

    async def __call__(self, request):
        if request.method == "PUT":
            return web.Response(text="t0ken")
        if request.headers.get("X-aws-ec2-metadata-token") != "t0ken":
            return web.Response(status=401)
        name = request.path.removeprefix("/latest/meta-data/")
        if name == "iam/security-credentials/role":
            self.granted += 1
            return web.json_response({
                "AccessKeyId": f"ASIA{self.granted}", "SecretAccessKey": SECRET, "Token": "tok",
                "Expiration": self.expires,
            })  # fmt: skip
        known = {
            "instance-id": "i-1", "placement/availability-zone": "eu-west-1b",
            "placement/region": "eu-west-1", "iam/security-credentials/": "role",
        }  # fmt: skip
        return web.Response(text=known[name]) if name in known else web.Response(status=404)


async def test_machine_learns_from_its_metadata_where_it_is_and_who(monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    service, clock = InstanceMetadata(), ManualClock()
    async with served(service) as endpoint:
        cloud = Cloud(EbsConfig(cluster="vm1"), clock, Metadata(endpoint))
        place = await cloud.fetch_place()
        assert (place.instance_id, place.zone) == ("i-1", "eu-west-1b")
        assert await cloud.fetch_endpoint() == "https://ec2.eu-west-1.amazonaws.com"
        assert await cloud.fetch_credentials() == Credentials("ASIA1", SECRET, "tok")
        await cloud.fetch_credentials()
        assert service.granted == 1
        clock.now_s += 6 * 3600
        assert (await cloud.fetch_credentials()).access_key == "ASIA2"
        cloud.forget_credentials()
        assert (await cloud.fetch_credentials()).access_key == "ASIA3"


async def test_metadata_that_makes_no_sense_shows_no_secret(monkeypatch, caplog):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    caplog.set_level(logging.DEBUG)
    async with served(InstanceMetadata(expires=SECRET)) as endpoint:
        cloud = Cloud(EbsConfig(cluster="vm1"), ManualClock(), Metadata(endpoint))
        with pytest.raises(Transient, match="role") as caught:
            await cloud.fetch_credentials()
    assert SECRET not in f"{caught.value!r} {caught.value.remedy} {caplog.text}"
    assert caught.value.__cause__ is None


async def test_metadata_service_that_is_not_there_is_said_with_a_remedy():
    async with served(lambda _: None) as endpoint:
        pass
    cloud = Cloud(EbsConfig(cluster="vm1"), ManualClock(), Metadata(endpoint))
    with pytest.raises(Transient, match="does not answer") as caught:
        await cloud.fetch_place()
    assert "[aws]" in caught.value.remedy


async def test_credentials_file_is_read_and_its_faults_show_no_line(monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "volumes")
    file.write_text(f"[volumes]\naws_access_key_id = A\naws_secret_access_key = {SECRET}%1\n")
    cloud = Cloud(EbsConfig(cluster="vm1"), ManualClock())
    assert await cloud.fetch_credentials() == Credentials("A", f"{SECRET}%1")
    file.write_text(f"{SECRET}\n[volumes]\n")
    with pytest.raises(Transient, match="cannot be read") as caught:
        await cloud.fetch_credentials()
    assert SECRET not in repr(caught.value)


def test_parameters_are_flattened_as_the_query_api_has_them():
    given = {"Filter": [{"Name": "tag:a", "Value": ["x", "y"]}], "Size": 3, "Encrypted": True}
    assert flatten(given) == [
        ("Filter.1.Name", "tag:a"), ("Filter.1.Value.1", "x"), ("Filter.1.Value.2", "y"),
        ("Size", "3"), ("Encrypted", "true"),
    ]  # fmt: skip
