"""A resource is closed in its thread, and never under the hands of work that uses it."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from app.own_thread import OwnThread


class Resource:
    """Knows whether it was closed while it was used, and where."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.opened_in = threading.current_thread()
        self.closed_in: threading.Thread | None = None
        self.used_after_close = False

    def use(self) -> None:
        self.begun.set()
        self.may_end.wait()
        self.used_after_close = self.closed_in is not None

    def close(self) -> None:
        self.closed_in = threading.current_thread()


@pytest.fixture
def thread() -> Iterator[OwnThread]:
    thread = OwnThread("test")
    yield thread
    thread.stop()


async def test_work_is_done_in_the_thread_and_answered(thread: OwnThread) -> None:
    first = await thread.run(threading.current_thread)
    assert first is await thread.run(threading.current_thread)
    assert first is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 / 0)


async def test_the_cancelled_wait_for_the_work_before_anything_is_closed(thread: OwnThread) -> None:
    resource = Resource()

    async def use() -> None:
        async with thread.opened(lambda: resource):
            await thread.run(resource.use)

    task = asyncio.create_task(use())
    await asyncio.to_thread(resource.begun.wait)
    for _ in range(3):  # a stop may come more than once
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
    resource.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not resource.used_after_close
    assert resource.closed_in is await thread.run(threading.current_thread)


async def test_what_was_opened_for_the_cancelled_is_closed(thread: OwnThread) -> None:
    opening, may_open = threading.Event(), threading.Event()
    opened: list[Resource] = []

    def open_it() -> Resource:
        opening.set()
        may_open.wait()
        opened.append(Resource())
        return opened[0]

    async def use() -> None:
        async with thread.opened(open_it):
            pytest.fail("it was cancelled before")

    task = asyncio.create_task(use())
    await asyncio.to_thread(opening.wait)
    task.cancel()
    may_open.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert opened[0].closed_in is opened[0].opened_in
