"""What an `iscsi` source is understood as, and what is refused with the field's name."""

import pytest

from volagent.drivers.contract import SecretName, VolumeSource
from volagent.drivers.errors import Rejected
from volagent.drivers.iscsi.options import IscsiOptions, parse_portal, read_iscsi_options

IQN = "iqn.2026-01.lab:array"


def read(persistent=True, **fields):
    body = {"targetPortal": "10.0.0.5", "iqn": IQN, "lun": 1} | fields
    return read_iscsi_options(VolumeSource("iscsi", body, persistent=persistent))


def test_smallest_source_gets_port_interface_and_file_system():
    assert read() == IscsiOptions(IQN, 1, ("10.0.0.5:3260",))
    assert read().fs_type == "ext4"
    assert read().interface == "default"


def test_disk_is_the_same_whichever_portal_and_spelling_it_is_declared_by():
    one = read(iqn="iqn.2026-01.LAB:Array")
    other = read(targetPortal="10.0.0.6:3261", portals=["10.0.0.5"])
    assert one.identity == other.identity == f"{IQN}:lun-1"
    assert read(lun=2).identity != one.identity


@pytest.mark.parametrize(
    ("text", "portal"),
    [
        ("10.0.0.5", "10.0.0.5:3260"),
        ("10.0.0.5:860", "10.0.0.5:860"),
        ("fd00::5", "[fd00::5]:3260"),
        ("[fd00:0::5]", "[fd00::5]:3260"),
        ("[FD00::5]:860", "[fd00::5]:860"),
        ("SAN.example", "san.example:3260"),
        ("san.example:860", "san.example:860"),
    ],
)
def test_portal_has_one_spelling(text, portal):
    assert parse_portal(text, "x") == portal


@pytest.mark.parametrize(
    "text",
    ["", ":3260", "10.0.0.5:", "10.0.0.5:0", "10.0.0.5:70000", "10.0.0.5:٣", "[fd00::5", "a/b",
     "[fd00::5]x", "10.0.0.5,1", "-p", "a b", "10.0.0.5\n", "[san.example:1]:3"],
)  # fmt: skip
def test_portal_that_is_none_is_rejected_with_its_field(text):
    with pytest.raises(Rejected, match=r"iscsi\.portals\[1\]") as caught:
        read(portals=["10.0.0.6", text])
    assert "10.0.0.5:3260" in caught.value.remedy


def test_portals_keep_their_order_and_are_named_once():
    options = read(portals=["10.0.0.6", "10.0.0.5:3260", "10.0.0.6:3260"])
    assert options.portals == ("10.0.0.5:3260", "10.0.0.6:3260")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"iqn": "nonsense"}, r"iscsi\.iqn"),
        ({"iqn": "iqn.2026-01.lab:a/../b"}, r"iscsi\.iqn"),
        ({"iqn": "iqn.2026-01.lab:a\nnode.x = y"}, r"iscsi\.iqn"),
        ({"lun": 256}, r"iscsi\.lun"),
        ({"lun": -1}, r"iscsi\.lun"),
        ({"lun": "1"}, "lun"),
        ({"initiatorName": "me"}, r"iscsi\.initiatorName"),
        ({"iscsiInterface": "../x"}, r"iscsi\.iscsiInterface"),
        ({"iscsiInterface": "-o"}, r"iscsi\.iscsiInterface"),
        ({"wwid": "x"}, "wwid"),
        ({"chapAuthSession": True}, r"iscsi\.secretRef"),
        ({"chapAuthDiscovery": True, "secretRef": {}}, r"iscsi\.secretRef"),
    ],
)
def test_what_does_not_fit_is_rejected_with_its_field(fields, words):
    with pytest.raises(Rejected, match=words):
        read(**fields)


def test_secret_is_named_only_when_chap_needs_it():
    reference = {"name": "chap", "namespace": "storage"}
    assert read(secretRef=reference).secret is None
    options = read(secretRef=reference, chapAuthSession=True)
    assert options.secret == SecretName("chap", "storage")
    assert (options.session_chap, options.discovery_chap) == (True, False)


def test_pod_cannot_name_a_secret_of_another_namespace():
    reference = {"name": "chap", "namespace": "storage"}
    with pytest.raises(Rejected, match=r"secretRef\.namespace"):
        read(persistent=False, secretRef=reference, chapAuthSession=True)
    own = read(persistent=False, secretRef={"name": "chap"}, chapAuthSession=True)
    assert own.secret == SecretName("chap")
