"""Keys: made, listed, revoked, and what a request with one of them may do."""

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from app.access import Caller, Key, KeyScope
from app.errors import InvalidInputError, NotFoundError, UnauthorizedError, UnavailableError
from app.store.protocol import KeyStore

TOKEN = re.compile(r"aft_([0-9a-f]{32})_([A-Za-z0-9_-]{43})", re.ASCII)
"""A key as clients send it: its id, and 256 random bits."""

OPEN_SECONDS = 1.0
"""How long the service takes itself for open without asking again whether somebody has made a key."""

ANYONE = Caller("anyone", frozenset(KeyScope))

SEND_ONE = "send a key as `Authorization: Bearer …`; `afterimage keys create` makes one"
UNASKED = "; while there is none, only requests of its own machine go without, whose `Host` and `Origin` are local"


class Keys:
    """The service behind the routes of keys; it also tells who sends a request.

    As long as no key was ever made and none is set, anyone on this machine may do everything. Once there was one, it
    stays closed, also when all are revoked.
    """

    def __init__(self, store: KeyStore, admin_key: str | None) -> None:
        """`admin_key` is one from the settings, for the first steps; it is not stored."""
        self._store = store
        self._admin_digest = None if admin_key is None else _digest(admin_key)
        self._closed = admin_key is not None
        self._open_until = 0.0

    async def create(
        self, name: str, scopes: Sequence[KeyScope], projects: Sequence[str] | None, expires_at: datetime | None
    ) -> tuple[Key, str]:
        """Makes a key; answers it and its text, which is not kept and cannot be had again.

        Raises:
            InvalidInputError: it would never be of use.
        """
        now = datetime.now(UTC)
        if expires_at is not None and expires_at <= now:
            raise InvalidInputError(f"expires_at: must lie in the future, got {expires_at.isoformat()}")
        key = Key(uuid7(), name, sorted(set(scopes)), projects, now, expires_at)
        secret = secrets.token_urlsafe(32)
        await self._store.create(key, _digest(secret))
        self._closed = True
        return key, f"aft_{key.id.hex}_{secret}"

    async def all(self) -> list[Key]:
        """All keys, newest first, the revoked too."""
        return await self._store.all()

    async def revoke(self, key_id: UUID) -> Key:
        """Revokes a key, from the next request on.

        Raises:
            NotFoundError: there is none.
        """
        key = await self._store.revoke(key_id, datetime.now(UTC))
        if key is None:
            raise NotFoundError(f"there is no key {key_id}; `afterimage keys list` shows them")
        return key

    async def ready_for_others(self) -> bool:
        """True if somebody could use the service that asks everyone for a key."""
        now = datetime.now(UTC)
        return self._admin_digest is not None or any(key.usable(now) for key in await self._store.all())

    async def caller(self, authorization: str | None, *, local: bool) -> Caller:
        """Who sends a request with this `Authorization` header; `local` if it comes from this machine.

        Raises:
            UnauthorizedError: there is no key, or one that does not count.
        """
        if authorization is None:
            if local and await self._is_open():
                return ANYONE
            raise UnauthorizedError(f"this service asks for a key: {SEND_ONE}{'' if local else UNASKED}", given=False)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise UnauthorizedError(f"the scheme of Authorization must be Bearer: {SEND_ONE}", given=True)
        return await self._holder(token.strip())

    async def caller_soon(self, authorization: str | None, *, local: bool, seconds: float) -> Caller | None:
        """As `caller`, for routes that anyone may ask: None for a stranger.

        Of a store that does not answer within these seconds it is taken that nobody has made a key since.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self.caller(authorization, local=local)
        except UnauthorizedError:
            return None
        except (UnavailableError, TimeoutError):
            return ANYONE if authorization is None and local and self.was_open else None

    @property
    def was_open(self) -> bool:
        """True if the service asked nobody for a key, when it looked last."""
        return not self._closed and self._open_until > 0

    async def still_count(self, caller: Caller) -> bool:
        """True if a caller, found some time ago, would be found again."""
        if caller is ANYONE:
            return await self._is_open()
        found = await self._store.get(caller.key_id) if caller.key_id else None
        return caller.key_id is None or (found is not None and found[0].usable(datetime.now(UTC)))

    async def _holder(self, token: str) -> Caller:
        if self._admin_digest is not None and hmac.compare_digest(_digest(token), self._admin_digest):
            return Caller("AFTERIMAGE_ADMIN_KEY", frozenset(KeyScope))
        parts = TOKEN.fullmatch(token)
        found = await self._store.get(UUID(parts[1])) if parts else None
        known, digest = found or (None, bytes(32))
        matches = hmac.compare_digest(_digest(parts[2] if parts else ""), digest)
        if known is None or not matches:
            raise UnauthorizedError("the key is not known here: check that it was copied whole", given=True)
        if known.revoked_at is not None:
            raise UnauthorizedError(f"the key {known.name!r} is revoked: ask for another", given=True)
        if not known.usable(datetime.now(UTC)):
            raise UnauthorizedError(f"the key {known.name!r} has expired: ask for another", given=True)
        return Caller(known.name, frozenset(known.scopes), known.projects, known.id)

    async def _is_open(self) -> bool:
        if not self._closed and time.monotonic() >= self._open_until:
            self._closed = await self._store.any()
            self._open_until = time.monotonic() + OPEN_SECONDS
        return not self._closed


def _digest(secret: str) -> bytes:
    """SHA-256; secrets have 256 random bits, so that nothing slower is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
