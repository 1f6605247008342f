"""Uids and generated names."""

import uuid

from volagent.api.identity import make_name, make_uid


def test_uid_is_a_random_uuid_in_canonical_form():
    uids = {make_uid() for _ in range(1000)}

    assert len(uids) == 1000
    for text in uids:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)


def test_generated_name_fits_into_a_label():
    assert len(make_name("x" * 300)) == 63
    assert make_name("web-").startswith("web-")
