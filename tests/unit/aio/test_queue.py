import asyncio

import pytest

from tests.simulation.virtual_time import run_virtually
from volagent.aio.queue import KeyedQueue
from volagent.aio.tasks import LoopEnded, Supervisor


def queue_of(work, tasks, **options):
    return KeyedQueue("test", work, tasks.start, **options)


def test_queue_runs_a_key_once_when_marked_often_before_it_starts():
    runs = []

    async def main():
        async def work(key):
            runs.append(key)

        async with Supervisor() as tasks:
            queue = queue_of(work, tasks)
            for _ in range(5):
                queue.mark("a")
            await queue.drain()

    run_virtually(main())
    assert runs == ["a"]


def test_queue_runs_a_key_exactly_once_more_when_marked_during_its_run():
    runs = []

    async def main():
        async def work(key):
            runs.append(key)
            await asyncio.sleep(1)

        async with Supervisor() as tasks:
            queue = queue_of(work, tasks)
            queue.mark("a")
            await asyncio.sleep(0.5)
            queue.mark("a")
            queue.mark("a")
            await queue.drain()

    run_virtually(main())
    assert runs == ["a", "a"]


def test_queue_never_runs_one_key_twice_at_once():
    async def main():
        running = set()

        async def work(key):
            assert key not in running
            running.add(key)
            await asyncio.sleep(0.1)
            running.discard(key)

        async with Supervisor() as tasks:
            queue = queue_of(work, tasks, width=8)
            for step in range(50):
                queue.mark(step % 3)
                await asyncio.sleep(0.03)
            await queue.drain()

    run_virtually(main())


def test_queue_lets_other_lanes_go_on_when_one_lane_hangs():
    done = []

    async def main():
        async def work(key):
            if key[0] == "dead":
                await asyncio.sleep(1000)
            done.append((key, asyncio.get_running_loop().time()))

        async with Supervisor() as tasks:
            queue = queue_of(work, tasks, lane_of=lambda key: key[0], width=2)
            for number in range(20):
                queue.mark(("dead", number))
            queue.mark(("well", 1))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert done == [(("well", 1), 0.0)]
            queue.stop()

    run_virtually(main())


def test_queue_comes_back_to_a_key_after_the_delay_that_its_worker_asked_for():
    times = []

    async def main():
        async def work(key):
            times.append(asyncio.get_running_loop().time())
            return 5.0 if len(times) < 3 else None

        async with Supervisor() as tasks:
            queue = queue_of(work, tasks)
            queue.mark("a")
            await asyncio.sleep(60)

    run_virtually(main())
    assert times == [0.0, 5.0, 10.0]


def test_queue_forgets_the_delay_when_the_key_is_marked_before_it_ends():
    times = []

    async def main():
        async def work(key):
            times.append(asyncio.get_running_loop().time())
            return 50.0 if len(times) == 1 else None

        async with Supervisor() as tasks:
            queue = queue_of(work, tasks)
            queue.mark("a")
            await asyncio.sleep(1)
            queue.mark("a")
            await asyncio.sleep(100)

    run_virtually(main())
    assert times == [0.0, 1.0]


def test_queue_takes_no_marks_when_stopped():
    runs = []

    async def main():
        async def work(key):
            runs.append(key)

        async with Supervisor() as tasks:
            queue = queue_of(work, tasks)
            queue.stop()
            queue.mark("a")
            await queue.drain()

    run_virtually(main())
    assert runs == []


def test_supervisor_goes_down_when_a_loop_ends():
    async def main():
        async with Supervisor() as tasks:
            tasks.start_loop("short", asyncio.sleep(1))
            await asyncio.sleep(10)

    with pytest.raises(ExceptionGroup) as caught:
        run_virtually(main())
    (error,) = caught.value.exceptions
    assert isinstance(error, LoopEnded)
    assert "short" in str(error)


def test_supervisor_cuts_off_only_the_operations_that_outlast_the_grace():
    ends = []

    async def work(seconds):
        try:
            await asyncio.sleep(seconds)
        finally:
            ends.append((seconds, asyncio.get_running_loop().time()))

    async def main():
        async with Supervisor() as tasks:
            for seconds in (1, 100):
                tasks.start("work", work(seconds))
            assert await tasks.finish_operations(5) == 1

    run_virtually(main())
    assert ends == [(1, 1.0), (100, 5.0)]
