"""Imports as those who follow them see them."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import UUID
from weakref import WeakValueDictionary

from app.access import Caller
from app.errors import UnavailableError
from app.imports import Imports
from app.keys import Keys
from app.models import Import

LOOK_SECONDS = 0.25
"""Between two looks at an import, by however many it is followed."""

KEY_SECONDS = 1.0
"""Between two looks whether the key of one who follows still counts."""


class SharedLook:
    """An import as it was seen last."""

    def __init__(self, job: Import) -> None:
        self.lock = asyncio.Lock()
        self.job = job
        self.at = time.monotonic()


class ImportWatch:
    """Follows imports for any number of callers, who share the looks at each."""

    def __init__(self, imports: Imports, keys: Keys) -> None:
        self._imports = imports
        self._keys = keys
        self._looks: WeakValueDictionary[UUID, SharedLook] = WeakValueDictionary()

    async def follow(self, job: Import, caller: Caller, stopping: asyncio.Event) -> AsyncIterator[Import]:
        """The import at once, and whenever it has changed, until it has ended.

        Ends before that when told to stop, and when the caller's key no longer counts. While the database does not
        answer there is nothing to tell.
        """
        look = self._looks.setdefault(job.id, SharedLook(job))
        sent, ask_at = None, time.monotonic() + KEY_SECONDS
        while True:
            seen = (job.state, job.stage, job.progress.processed, job.counts, job.validation)
            if seen != sent:
                sent = seen
                yield job
            if job.state.is_final or stopping.is_set():
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), LOOK_SECONDS)
            with suppress(UnavailableError):
                if time.monotonic() >= ask_at:
                    if not await self._keys.still_count(caller):
                        return
                    ask_at = time.monotonic() + KEY_SECONDS
                job = await self._seen(look)

    async def _seen(self, look: SharedLook) -> Import:
        async with look.lock:
            if time.monotonic() - look.at >= LOOK_SECONDS:
                look.at = time.monotonic()  # also if it fails: the others need not wait as long for the same
                look.job = await self._imports.get(look.job.id, None)
        return look.job
