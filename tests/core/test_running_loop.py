"""The remembered loop is always the one that runs."""

import asyncio
import os

import pytest
import uvloop

from stanchion.core.running_loop import running_loop


async def _both() -> tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop]:
    return running_loop(), asyncio.get_running_loop()


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_loops_in_turn_are_told_apart(make) -> None:
    first, second = make(), make()
    try:
        for loop in (first, second, first, second):
            said, runs = loop.run_until_complete(_both())
            assert said is runs is loop
        with pytest.raises(RuntimeError):
            running_loop()
    finally:
        first.close()
        second.close()


def test_threads_have_loops_of_their_own() -> None:
    async def here_and_there() -> None:
        said, runs = await asyncio.to_thread(lambda: asyncio.run(_both()))
        assert said is runs
        assert running_loop() is asyncio.get_running_loop() is not said
        with pytest.raises(RuntimeError):
            await asyncio.to_thread(running_loop)

    asyncio.run(here_and_there())


def _forked() -> int:
    pid = os.fork()
    if pid == 0:
        try:
            running_loop()
        except RuntimeError:
            os._exit(7)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_process_has_no_loop_until_it_runs_one() -> None:
    async def fork() -> int:
        assert running_loop() is asyncio.get_running_loop()
        return _forked()

    assert asyncio.run(fork()) == 7
