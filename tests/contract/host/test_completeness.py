"""Every implementation has every call of the contract, with the contract's arguments."""

import inspect
import typing

import pytest

from volagent.host.contract import Host

PARTS = typing.get_type_hints(Host)
CALLS = [
    (part, name)
    for part, protocol in PARTS.items()
    for name in vars(protocol)
    if not name.startswith("_")
]


def shape(function):
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    return [(p.name, p.kind, p.default) for p in parameters]


@pytest.mark.parametrize(("part", "name"), CALLS)
def test_call_is_there_with_the_arguments_of_the_contract(world, part, name):
    promised = getattr(PARTS[part], name)
    found = getattr(getattr(world.host, part), name)
    assert shape(found) == shape(promised)
    assert inspect.iscoroutinefunction(found) == inspect.iscoroutinefunction(promised)
