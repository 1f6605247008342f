"""The informer against scripted servers, on virtual time."""

import asyncio
from dataclasses import dataclass

import pytest

from tests.simulation.virtual_time import run_virtually
from volagent.client.contract import (
    CONFIG_MAPS,
    Forbidden,
    Gone,
    Listing,
    NotFound,
    Resource,
    Selection,
    Unavailable,
    WatchEvent,
)
from volagent.client.informer import Informer


@dataclass(frozen=True)
class View:
    name: str
    uid: str
    value: int


def decode(document):
    if document.get("value") == "bad":
        raise ValueError("no number")
    metadata = document["metadata"]
    return View(metadata["name"], metadata["uid"], document["value"])


def thing(name, version, value=0, uid="u1"):
    metadata = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, "value": value}


def added(*documents):
    return [WatchEvent("ADDED", document) for document in documents]


def modified(*documents):
    return [WatchEvent("MODIFIED", document) for document in documents]


def deleted(*documents):
    return [WatchEvent("DELETED", document) for document in documents]


def bookmark(version):
    return [WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})]


class ScriptedClient:
    """Answers lists and watches from a script; sets `done` when the script is over."""

    def __init__(self, lists, watches):
        self.lists = list(lists)
        self.watches = list(watches)
        self.asked = []
        self.done = asyncio.Event()

    async def list(self, _resource, _selection):
        self.asked.append("list")
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def watch(self, _resource, _selection, *, resource_version, bookmarks):
        assert bookmarks
        self.asked.append(resource_version)
        for item in self.watches.pop(0):
            if isinstance(item, Exception):
                raise item
            yield item
        if not self.watches:
            self.done.set()
            await asyncio.Event().wait()


def follow(client_script):
    """Run an informer to the end of a script: what was reported, what it holds, what was asked."""

    async def main():
        client = ScriptedClient(*client_script)
        told = []
        informer = Informer(
            client, CONFIG_MAPS, Selection(), decode,
            lambda key, old, new: told.append((key[1], old and old.value, new and new.value)),
        )  # fmt: skip
        assert informer.get("ns", "a") is None
        running = asyncio.ensure_future(informer.run())
        await asyncio.wait([running, asyncio.ensure_future(client.done.wait())],
                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        running.cancel()
        await asyncio.wait([running])
        return told, {view.name: view.value for view in informer.values()}, client.asked

    return run_virtually(main())


def test_informer_holds_the_list_and_then_every_change():
    told, held, asked = follow(
        ([Listing([thing("a", 1, 1), thing("b", 2, 2)], "5")],
         [[added(thing("c", 6, 3)) + modified(thing("a", 7, 11)), deleted(thing("b", 8))]])
    )  # fmt: skip

    assert told == [("a", None, 1), ("b", None, 2), ("c", None, 3), ("a", 1, 11), ("b", 2, None)]
    assert held == {"a": 11, "c": 3}
    assert asked == ["list", "5"]


def test_informer_resumes_where_it_was_when_the_connection_breaks():
    _, held, asked = follow(
        ([Listing([], "5")],
         [[added(thing("a", 6, 1)), Unavailable("connection reset")],
          [Unavailable("connection refused")],
          [added(thing("b", 9, 2)), bookmark(20), Unavailable("again")],
          []])
    )  # fmt: skip

    assert held == {"a": 1, "b": 2}
    assert asked == ["list", "5", "6", "6", "20"]


def test_informer_lists_again_and_tells_only_what_differs_when_its_version_is_gone():
    told, held, asked = follow(
        ([Listing([thing("a", 1, 1), thing("b", 2, 2), thing("c", 3, 3)], "5"),
          Listing([thing("a", 1, 1), thing("b", 7, 22), thing("d", 8, 4)], "9")],
         [[Gone("too old")], []])
    )  # fmt: skip

    assert told[3:] == [("b", 2, 22), ("d", None, 4), ("c", 3, None)]
    assert held == {"a": 1, "b": 22, "d": 4}
    assert asked == ["list", "5", "list", "9"]


def test_informer_tells_an_end_and_a_beginning_when_an_object_was_replaced():
    told, _, _ = follow(
        ([Listing([thing("a", 1, 1)], "5"), Listing([thing("a", 7, 2, uid="u2")], "9")],
         [[Gone("too old")], []])
    )  # fmt: skip

    assert told == [("a", None, 1), ("a", 1, None), ("a", None, 2)]


def test_informer_keeps_trying_when_the_first_list_fails():
    _, held, asked = follow(
        ([Unavailable("no server yet")] * 5 + [Listing([thing("a", 1, 1)], "5")], [[]])
    )

    assert held == {"a": 1}
    assert asked == ["list"] * 6 + ["5"]


def test_informer_leaves_out_only_what_it_does_not_understand():
    told, held, _ = follow(
        ([Listing([thing("bad", 1, "bad"), thing("a", 2, 1)], "5")],
         [[modified(thing("a", 6, "bad")), added(thing("b", 7, 2)), deleted(thing("bad", 8, "bad")),
           modified(thing("a", 9, 5))]])
    )  # fmt: skip

    assert told == [("a", None, 1), ("b", None, 2), ("a", 1, 5)]
    assert held == {"a": 5, "b": 2}


def test_informer_does_not_repeat_what_it_told_when_events_repeat():
    told, _, _ = follow(
        ([Listing([thing("a", 1, 1)], "5")],
         [[added(thing("a", 1, 1)), deleted(thing("x", 6)), deleted(thing("a", 7)),
           deleted(thing("a", 7))]])
    )  # fmt: skip

    assert told == [("a", None, 1), ("a", 1, None)]


@pytest.mark.parametrize("refusal", [NotFound("no such kind"), Forbidden("no such right")])
@pytest.mark.parametrize("newer", [True, False])
def test_kind_that_the_server_does_not_know_is_an_empty_one_when_it_is_newer(newer, refusal):
    kind = Resource("next.test", "v1", "things", "Thing", newer=newer)

    async def main():
        client = ScriptedClient([refusal] * 4 + [Listing([thing("a", 1, 1)], "5")], [[]])
        told = []
        informer = Informer(
            client, kind, Selection(), decode, lambda key, old, new: told.append(key[1])
        )
        running = asyncio.ensure_future(informer.run())
        await asyncio.sleep(0.01)
        assert informer.synced.is_set() is newer
        assert told == []
        await client.done.wait()
        assert informer.synced.is_set()
        assert told == ["a"]
        running.cancel()
        await asyncio.wait([running])

    run_virtually(main())
