"""What a caller is told when the store cannot answer."""

import pytest

from volagent.api.refusals import STORE_ERRORS, read_revision
from volagent.client.contract import (
    BadRequest,
    Gone,
    InsufficientStorage,
    Timeout,
    Unavailable,
)
from volagent.store.contract import (
    Broken,
    Compacted,
    FutureRevision,
    KeyExists,
    Mismatch,
    NoSpace,
)


@pytest.mark.parametrize(
    ("error", "answer", "code"),
    [
        (Compacted("3 is older than 5"), Gone, 410),
        (FutureRevision("9 is after 5"), Timeout, 504),
        (NoSpace("no space left"), InsufficientStorage, 507),
        (Broken("disk I/O error"), Unavailable, 503),
    ],
)
def test_store_error_becomes_an_answer_with_its_text(error, answer, code):
    with pytest.raises(answer, match=str(error)) as refused, STORE_ERRORS:
        raise error
    assert refused.value.status["code"] == code


@pytest.mark.parametrize("error", [KeyExists("/a"), Mismatch("/a"), ValueError("no store error")])
def test_what_the_registry_answers_itself_passes(error):
    with pytest.raises(type(error)), STORE_ERRORS:
        raise error


@pytest.mark.parametrize("text", ["x", "-1", "1.0", "٣", "1" * 19, " 1"])
def test_resource_version_that_is_no_number_is_refused(text):
    with pytest.raises(BadRequest):
        read_revision(text)
