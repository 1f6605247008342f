"""Lists that many ask for at once."""

import asyncio

import pytest

from volagent.api.whole_lists import WholeLists


class Maker:
    """Makes lists that end when they are told to; each says which one it is."""

    def __init__(self):
        self.begun = 0
        self.ends = []

    async def __call__(self):
        self.begun += 1
        number, end = self.begun, asyncio.get_running_loop().create_future()
        self.ends.append(end)
        await end
        return str(number).encode()


async def turn():
    for _ in range(5):
        await asyncio.sleep(0)


def ask(lists, make, of="volumes"):
    return asyncio.ensure_future(lists.share(of, make))


async def test_list_is_made_at_once_when_nobody_else_asks():
    make = Maker()
    one = ask(WholeLists(), make)
    await turn()
    make.ends[0].set_result(None)

    assert await one == b"1"


async def test_nobody_is_answered_by_a_list_that_began_before_the_question():
    lists, make = WholeLists(), Maker()
    first = ask(lists, make)
    await turn()
    later = [ask(lists, make) for _ in range(16)]
    await turn()
    assert make.begun == 1
    make.ends[0].set_result(None)
    await turn()
    last = ask(lists, make)
    make.ends[1].set_result(None)
    await turn()
    make.ends[2].set_result(None)

    assert await first == b"1"
    assert await asyncio.gather(*later) == [b"2"] * 16
    assert await last == b"3"


async def test_others_are_answered_when_the_one_who_makes_the_list_goes_away():
    lists, make = WholeLists(), Maker()
    first = ask(lists, make)
    await turn()
    maker, other = ask(lists, make), ask(lists, make)
    await turn()
    maker.cancel()  # while it waits for its turn
    await turn()
    first.cancel()  # while it makes the list
    await turn()
    make.ends[1].set_result(None)

    assert await other == b"2"
    await asyncio.wait([first, maker])


async def test_one_who_goes_away_takes_the_list_from_nobody():
    lists, make = WholeLists(), Maker()
    first = ask(lists, make)
    await turn()
    maker, leaving, other = (ask(lists, make) for _ in range(3))
    await turn()
    leaving.cancel()
    for end in range(2):
        make.ends[end].set_result(None)
        await turn()

    assert await first == b"1"
    assert await asyncio.gather(maker, other) == [b"2", b"2"]
    await asyncio.wait([leaving])


async def test_each_is_told_when_the_list_cannot_be_made():
    lists = WholeLists()

    async def fail():
        await asyncio.sleep(0)
        raise ValueError("no store")

    answers = await asyncio.gather(*(ask(lists, fail) for _ in range(3)), return_exceptions=True)
    assert len(answers) == 3
    for each in answers:
        assert isinstance(each, ValueError)


@pytest.mark.parametrize("of", [("volumes", ""), ("claims", "other")])
async def test_kinds_do_not_wait_for_each_other(of):
    lists, make = WholeLists(), Maker()
    asked = [ask(lists, make, ("claims", "")), ask(lists, make, of)]
    await turn()

    assert make.begun == 2
    for end in make.ends:
        end.set_result(None)
    await asyncio.wait(asked)
