"""open-iscsi's records: found, changed and kept from everybody else's eyes."""

import hashlib
import os
import stat

import pytest

from volagent.host.errors import Absent, HostError
from volagent.host.iscsi.contract import Chap
from volagent.host.iscsi.records import (
    Records,
    change_settings,
    discovery_settings,
    node_settings,
    read_settings,
    replace_private,
    split_portal,
)

IQN = "iqn.2026-01.lab:array"
MADE = """# BEGIN RECORD 2.1.8
node.name = iqn.2026-01.lab:array
node.startup = automatic
node.session.auth.authmethod = CHAP
node.session.auth.password = of-somebody
node.session.scan = auto
node.conn[0].timeo.login_timeout = 15
node.conn[0].timeo.noop_out_interval = 5
# END RECORD
"""
CHAP = Chap("me", "word-of-mine", "it", "word-of-its")


@pytest.fixture
def records(tmp_path):
    for name in ("etc", "var"):
        (tmp_path / name).mkdir()
    return Records((str(tmp_path / "etc"), str(tmp_path / "var")))


def put(path, text=MADE):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_settings_replace_add_and_take_away_while_others_stay():
    text = change_settings(MADE, node_settings(CHAP, several_paths=True))
    found = read_settings(text)
    assert found["node.session.auth.password"] == "word-of-mine"
    assert found["node.session.auth.username_in"] == "it"
    assert found["node.session.scan"] == found["node.startup"] == "manual"
    assert found["node.session.timeo.replacement_timeout"] == "15"
    assert found["node.conn[0].timeo.noop_out_interval"] == "5"
    assert text.startswith("# BEGIN RECORD 2.1.8\nnode.name")
    assert text.endswith("# END RECORD\n")
    assert change_settings(text, node_settings(CHAP, several_paths=True)) == text


def test_credentials_of_before_are_gone_when_none_are_needed():
    found = read_settings(change_settings(MADE, node_settings(None, several_paths=False)))
    assert found["node.session.auth.authmethod"] == "None"
    assert "node.session.auth.password" not in found


@pytest.mark.parametrize("password", ["a\nnode.startup = automatic", "a\0b", " padded", "tab\t"])
def test_value_that_would_be_more_than_a_value_is_refused_without_being_shown(password):
    with pytest.raises(ValueError, match="password has characters") as caught:
        change_settings(MADE, discovery_settings(Chap("me", password)))
    assert password not in str(caught.value)


def test_record_is_found_in_either_layout_and_directory(records, tmp_path):
    where = tmp_path / "var" / "nodes" / IQN
    assert records.find_node(IQN, "10.0.0.5:3260", "default") is None
    file = put(where / "10.0.0.5,3260")
    assert records.find_node(IQN, "10.0.0.5:3260", "default") == str(file)
    assert records.find_node(IQN, "10.0.0.5:326", "default") is None
    tagged = put(where / "10.0.0.6,3260,1" / "default")
    assert records.find_node(IQN, "10.0.0.6:3260", "default") == str(tagged)
    assert records.find_node(IQN, "10.0.0.6:3260", "other") is None
    sixth = put(tmp_path / "etc" / "nodes" / IQN / "fd00::5,3260,2" / "default")
    assert records.find_node(IQN, "[fd00::5]:3260", "default") == str(sixth)


def test_discovery_and_interface_are_found(records, tmp_path):
    portal = put(tmp_path / "etc" / "send_targets" / "10.0.0.5,3260" / "st_config")
    interface = put(tmp_path / "var" / "ifaces" / "volagent-1")
    assert records.find_discovery("10.0.0.5:3260") == str(portal)
    assert records.find_discovery("10.0.0.6:3260") is None
    assert records.find_interface("volagent-1") == str(interface)
    assert records.find_interface("default") is None


def test_session_was_made_here_only_with_all_that_it_is_made_with(records, tmp_path):
    where = tmp_path / "etc/nodes" / IQN
    manual = change_settings(MADE, {"node.startup": "manual", "node.session.scan": "manual"})
    ours = change_settings(MADE, node_settings(None, several_paths=False))
    put(where / "10.0.0.5,3260,1/default", manual)  # an administrator's choice for all
    put(where / "10.0.0.6,3260,1/default", ours)
    assert records.is_ours(IQN, "10.0.0.5:3260", "default")
    assert not records.was_made_here(IQN, "10.0.0.5:3260", "default")
    assert records.was_made_here(IQN, "10.0.0.6:3260", "default")
    assert not records.was_made_here(IQN, "10.0.0.7:3260", "default")


def test_session_is_ours_only_when_its_record_never_scans_by_itself(records, tmp_path):
    file = put(tmp_path / "etc" / "nodes" / IQN / "10.0.0.5,3260,1" / "default")
    assert not records.is_ours(IQN, "10.0.0.5:3260", "default")
    records.write(str(file), node_settings(None, several_paths=False), "x")
    assert records.is_ours(IQN, "10.0.0.5:3260", "default")
    assert not records.is_ours(IQN, "10.0.0.6:3260", "default")


def test_written_record_is_for_its_owner_alone_and_leaves_nothing_beside_it(records, tmp_path):
    file = put(tmp_path / "etc" / "nodes" / IQN / "10.0.0.5,3260,1" / "default")
    file.chmod(0o644)
    before = file.stat().st_ino
    records.write(str(file), node_settings(CHAP, several_paths=False), "x")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_ino != before
    assert os.listdir(file.parent) == ["default"]
    assert os.listdir(tmp_path / "etc") == ["nodes"]


def test_what_a_kill_left_is_written_anew_and_no_link_is_followed(tmp_path):
    file, victim = put(tmp_path / "record"), put(tmp_path / "victim", "untouched")
    replace_private(str(file), "one\n", str(tmp_path))
    left = f".volagent-{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    os.symlink(victim, tmp_path / left)
    replace_private(str(file), "two\n", str(tmp_path))
    assert file.read_text() == "two\n"
    assert victim.read_text() == "untouched"
    assert sorted(os.listdir(tmp_path)) == ["record", "victim"]


def test_missing_record_and_bad_value_are_told_without_the_value(records, tmp_path):
    with pytest.raises(Absent, match="iscsiadm made none"):
        records.write(None, {}, "10.0.0.5:3260")
    file = put(tmp_path / "etc" / "nodes" / IQN / "10.0.0.5,3260")
    with pytest.raises(HostError, match="cannot hold") as caught:
        records.write(str(file), node_settings(Chap("me", "a\nb"), several_paths=False), "x")
    assert "a\nb" not in str(caught.value)
    assert file.read_text() == MADE


@pytest.mark.parametrize(
    ("portal", "parts"),
    [("10.0.0.5:3260", ("10.0.0.5", "3260")), ("[fd00::5]:860", ("fd00::5", "860"))],
)
def test_portal_is_split_into_address_and_port(portal, parts):
    assert split_portal(portal) == parts
