"""Small writes that are sent together."""

import asyncio
from typing import Any

import pytest

from app.gathered_writes import GATHERED_BYTES, GatheredWrites


class Calls(asyncio.Transport):
    """A transport that notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bytes | str] = []

    def write(self, data: Any) -> None:
        self.told.append(bytes(data))

    def write_eof(self) -> None:
        self.told.append("eof")

    def close(self) -> None:
        self.told.append("close")

    def is_closing(self) -> bool:
        return "close" in self.told

    def get_write_buffer_size(self) -> int:
        return 7


async def test_what_is_written_in_one_step_or_until_told_to_send_is_sent_together() -> None:
    calls = Calls()
    gathered = GatheredWrites(calls, asyncio.get_running_loop())
    for number in range(2):
        gathered.write(b"head ")
        gathered.write(b"body")
        assert len(calls.told) == number
        await asyncio.sleep(0)
    gathered.write(b"all")
    gathered.send()
    assert calls.told == [b"head body", b"head body", b"all"]
    await asyncio.sleep(0)
    assert len(calls.told) == 3
    assert gathered.get_write_buffer_size() == 7


@pytest.mark.parametrize("end", ["close", "eof"])
async def test_what_is_written_is_sent_before_the_end(end: str) -> None:
    calls = Calls()
    gathered = GatheredWrites(calls, asyncio.get_running_loop())
    gathered.write(b"last")
    getattr(gathered, {"close": "close", "eof": "write_eof"}[end])()
    await asyncio.sleep(0)
    assert calls.told == [b"last", end]


async def test_nothing_is_sent_after_the_end() -> None:
    calls = Calls()
    gathered = GatheredWrites(calls, asyncio.get_running_loop())
    gathered.close()
    gathered.write(b"late")
    await asyncio.sleep(0)
    assert calls.told == ["close"]


async def test_much_is_sent_at_once() -> None:
    calls = Calls()
    gathered = GatheredWrites(calls, asyncio.get_running_loop())
    gathered.write(b"head ")
    gathered.write(bytes(GATHERED_BYTES))
    assert calls.told == [b"head " + bytes(GATHERED_BYTES)]
    await asyncio.sleep(0)
    assert len(calls.told) == 1
