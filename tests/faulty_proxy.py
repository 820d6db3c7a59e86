"""A proxy between the service and PostgreSQL that cuts, stalls and slows connections."""

import asyncio
import random
from contextlib import suppress
from typing import Self

CHUNK_BYTES = 16 * 1024


class Link:
    """One connection through the proxy; `flows` is cleared where the peer falls silent and the link stays open."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.flows = asyncio.Event()
        self.flows.set()
        self.delay_seconds = 0.0
        self.halved = False

    def cut(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                writer.transport.abort()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await asyncio.sleep(self.delay_seconds)
            await self.flows.wait()
            if self.halved:
                writer.write(data[: len(data) // 2])
                await writer.drain()
                return
            writer.write(data)
            await writer.drain()


class FaultyProxy:
    """Listens on a loopback port for a server with a Unix socket; does no harm until it is told to."""

    def __init__(self, socket: str, chance: random.Random) -> None:
        self._socket = socket
        self._chance = chance
        self._links: set[Link] = set()
        self._answers = True
        self.faults = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for link in list(self._links):
            link.cut()
            link.flows.set()
        while self._links:
            await asyncio.sleep(0.01)

    async def disturb(self) -> None:
        """A fault of some kind, to one connection, to several, or to those to come; some last, none hurts for ever."""
        self.faults += 1
        links = list(self._links)
        some = self._chance.sample(links, self._chance.randint(0, len(links)))
        for link in self._chance.choice([some[:1], some]):
            match self._chance.choice(["cut", "halve", "slow", "stall", "silence"]):
                case "cut":
                    link.cut()
                case "halve":
                    link.halved = True
                case "slow":
                    link.delay_seconds = self._chance.uniform(0.01, 0.2)
                case "stall":
                    link.flows.clear()
                    asyncio.get_running_loop().call_later(self._chance.uniform(0.1, 3), link.flows.set)
                case "silence":
                    link.flows.clear()
        self._answers = self._chance.random() < 0.8

    def silence(self) -> None:
        """The connections that are there say nothing more; those to come are well."""
        for link in self._links:
            link.flows.clear()

    def heal(self) -> None:
        """No more faults; connections that have fallen silent stay so, as if their peer had lost its power."""
        self._answers = True
        for link in self._links:
            link.delay_seconds = 0

    def bury(self) -> None:
        """Ends the silent ones on the side of the server, as its keepalive does in the end."""
        for link in list(self._links):
            if not link.flows.is_set():
                link.cut()
                link.flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(writer)
        if not self._answers:
            link.flows.clear()
        self._links.add(link)
        try:
            from_server, link.server = await asyncio.open_unix_connection(self._socket)
            pumps = {
                asyncio.create_task(link.pump(reader, link.server)),
                asyncio.create_task(link.pump(from_server, writer)),
            }
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        finally:
            link.cut()
            self._links.discard(link)
            for one in (link.client, link.server):
                if one is not None:
                    with suppress(OSError):
                        await one.wait_closed()
