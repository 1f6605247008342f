"""The settings file, the struct behind it, and what is said about a mistake in it."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from volagent.settings import Settings, SettingsError, load_settings

SHIPPED = Path(__file__).parents[2] / "config" / "volagent.toml"


def _uncommented(text):
    """The shipped file with every `# key = value` line made active."""
    return re.sub(r"^# ([a-z_]+ = )", r"\1", text, flags=re.M)


def _load(tmp_path, text, **overrides):
    file = tmp_path / "volagent.toml"
    file.write_text(text)
    return load_settings(str(file), overrides)


def _fail(tmp_path, text, **overrides):
    with pytest.raises(SettingsError) as caught:
        _load(tmp_path, text, **overrides)
    return caught.value


def test_shipped_file_changes_nothing_when_used_as_it_is():
    assert load_settings(str(SHIPPED)) == load_settings(None)


def test_shipped_file_shows_every_setting_with_its_default():
    shown = tomllib.loads(_uncommented(SHIPPED.read_text()))
    assert shown == msgspec.json.decode(msgspec.json.encode(Settings()))


def test_shipped_file_gives_a_reason_for_every_setting():
    lines = SHIPPED.read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"# [a-z_]+ = ", line):
            before = lines[number - 1]
            in_group = re.match(r"# [a-z_]+ = ", before)
            assert in_group or before.startswith("# "), f"line {number + 1} has no reason above it"


def test_empty_settings_are_filled_from_those_they_depend_on(tmp_path):
    settings = _load(tmp_path, 'state_dir = "/s"\nrun_dir = "/r"\nnode_name = "n1"\n')
    assert settings.listen == ("unix:///r/volagent.sock",)
    assert settings.socket_path == "/r/volagent.sock"
    assert settings.image_dir == "/s/images"


def test_override_wins_over_the_file_unless_it_is_none(tmp_path):
    settings = _load(tmp_path, 'root_dir = "/a"\nnode_name = "n"\n', root_dir="/b", node_name=None)
    assert (settings.root_dir, settings.node_name) == ("/b", "n")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('\nfoo = "x"\n', 2, 'unknown key "foo"'),
        ("[nfs]\n\nmount_timout_s = 2\n", 3, 'unknown key "nfs.mount_timout_s"'),
        ('[retry]\nmax_s = 3\nfirst_s = "x"\n', 3, '"retry.first_s": Expected float, got str'),
        ("nfs = 3\n", 1, '"nfs": Expected a table, got int'),
        ("retry.first_s = -1\n", 1, '"retry.first_s": Expected float > 0.0'),
        ("[nfs]\nfirst_s = 1\n[retry]\nfirst_s = 500\n", 2, "unknown key"),
        ("[retry]\nfirst_s = 500\n", 2, '"retry.first_s" exceeds "retry.max_s"'),
        ("\nretry = {max_s = true}\n", 2, '"retry.max_s": Expected float, got bool'),
        ('listen = "unix:///x"\n', 1, '"listen": Expected array, got str'),
        ('drain_on_exit = "yes"\n', 1, "Expected bool, got str"),
        ('root_dir = "a/b"\n', 1, "\"root_dir\": 'a/b' is not an absolute path"),
        ('root_dir = "/a/../b"\n', 1, "is not an absolute path"),
        ('node_name = "My_Host"\n', 1, "no lower-case DNS name"),
        ('listen = ["http://127.0.0.1:1"]\n', 1, "neither unix:///PATH nor https"),
        (
            'listen = ["https://127.0.0.1:1"]\n[tls]\ncertificate = "/c"\n',
            1,
            'needs "tls.certificate" and "tls.key", or neither',
        ),
        (f'listen = ["unix:///{"x" * 120}"]\n', 1, "longer than the 107 bytes"),
        ('log.level = "loud"\n', 1, "Invalid enum value 'loud'"),
        ("a = \n", 1, "not valid TOML"),
    ],
)
def test_mistake_is_reported_with_its_line_and_key(tmp_path, text, line, message):
    error = _fail(tmp_path, text)
    assert error.where == f"{tmp_path}/volagent.toml:{line}"
    assert message in error.message


def test_unknown_key_suggests_the_one_that_was_meant(tmp_path):
    assert _fail(tmp_path, "[nfs]\nmount_timout_s = 2\n").hint == 'did you mean "mount_timeout_s"?'


def test_wrong_choice_lists_the_choices(tmp_path):
    assert _fail(tmp_path, 'runtime.kind = "docker"\n').hint == "one of: none, podman"


def test_https_listener_is_refused_when_nobody_could_log_in(tmp_path):
    tls = '[tls]\ncertificate = "/c"\nkey = "/k"\n'
    error = _fail(tmp_path, f'listen = ["https://[::1]:6443"]\n{tls}')
    assert "would let nobody in" in error.message
    assert _load(tmp_path, f'listen = ["https://[::1]:6443"]\n{tls}[auth]\ntoken_file = "/t"\n')


def test_missing_file_is_an_error_that_names_it():
    with pytest.raises(SettingsError, match=r"/nowhere/x\.toml: No such file or directory"):
        load_settings("/nowhere/x.toml")
