"""What callers of the API are told when the store cannot answer."""

import pytest

from volagent.api.refusals import from_store
from volagent.store.contract import (
    Broken,
    Compacted,
    Deposed,
    FutureRevision,
    NoSpace,
    Uncertain,
    Unreachable,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Compacted("x"), 410),
        (FutureRevision("x"), 504),
        (NoSpace("x"), 507),
        (Unreachable("x"), 503),
        (Deposed("x"), 503),
        (Broken("x"), 503),
        (Uncertain("x"), 504),
    ],
)
def test_every_failure_of_a_store_has_its_status(error, code):
    assert from_store(error).code == code


def test_write_that_may_have_happened_is_told_apart_from_one_that_has_not():
    assert "read it again" in from_store(Uncertain("x")).message
    assert "nothing was written" in from_store(Unreachable("x")).message
