"""How many requests each caller may send a minute."""

import math
import time

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

from app.access import Caller
from app.errors import TooManyRequestsError


class RateLimit:
    """Counts the requests of each caller in a window of a minute that moves."""

    def __init__(self, per_minute: int) -> None:
        self._window = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def count(self, caller: Caller, send: Send) -> tuple[Send, TooManyRequestsError | None]:
        """Counts a request; answers a `send` that adds what is left, and an error if nothing is.

        The headers are those of the IETF draft "RateLimit header fields for HTTP".
        """
        allowed = await self._limiter.hit(self._window, caller.identity)
        stats = await self._limiter.get_window_stats(self._window, caller.identity)
        seconds = max(1, math.ceil(stats.reset_time - time.time()))
        refusal = None
        if not allowed:
            refusal = TooManyRequestsError(
                f"{caller.name!r} has sent {self._window.amount} requests within a minute, which is the limit "
                "(AFTERIMAGE_RATE_LIMIT_PER_MINUTE); wait as Retry-After says",
                seconds,
            )

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["RateLimit-Policy"] = f'"default";q={self._window.amount};w=60'
                headers["RateLimit"] = f'"default";r={stats.remaining};t={seconds}'
            await send(message)

        return send_with_headers, refusal
