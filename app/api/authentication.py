"""Finds out who calls, before anything of the body is read."""

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.deps import Services
from app.api.headers import all_fields
from app.api.problems import of
from app.errors import AfterImageError, UnavailableError

OPEN_TO_ALL = frozenset({"/livez", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect"})
"""Nothing there tells what is stored."""

OPEN_BELOW = "/static-offline-docs/"

UNKNOWN = "the store does not answer, and keys are kept there; send it again later"
"""What a stranger is told; why is in the log."""


class Authentication:
    """ASGI middleware: puts the caller into the request's state; answers 401 to whom it does not know."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what comes from a known caller, and what anyone may ask."""
        if scope["type"] != "http" or scope["path"] in OPEN_TO_ALL or scope["path"].startswith(OPEN_BELOW):
            await self._app(scope, receive, send)
            return
        services: Services = scope["app"].state.services
        try:
            caller = await services.keys.caller(authorization_of(scope), local=is_local(scope))
        except UnavailableError as error:
            scope["app"].state.warnings.warn("who calls cannot be looked up", reason=str(error))
            told = error if services.keys.was_open else UnavailableError(UNKNOWN, error.retry_after_seconds)
            await of(Request(scope), told)(scope, receive, send)
            return
        except AfterImageError as error:
            await of(Request(scope), error)(scope, receive, send)
            return
        scope["state"]["caller"] = caller
        if caller.key_id is not None:
            structlog.contextvars.bind_contextvars(key_id=str(caller.key_id))
        await self._app(scope, receive, send)


def authorization_of(scope: Scope) -> str | None:
    """The header; of several, which one before the service may have taken otherwise, none that counts."""
    fields = all_fields(scope, b"authorization")
    return ", ".join(fields) if fields else None


def is_local(scope: Scope) -> bool:
    """True if the request comes from this machine, and not from a page of another one in a browser here.

    A Unix socket has no address. A browser says in `Origin` whose page it is, and in `Host` what it took for the name
    of this machine: a name that was made to lead here (DNS rebinding) is still the other's.
    """
    if not scope.get("client"):
        return True
    names = [*all_fields(scope, b"host"), *all_fields(scope, b"origin")]
    return _is_loopback(scope["client"][0]) and all(map(_names_loopback, names))


@lru_cache(maxsize=1024)
def _names_loopback(origin: str) -> bool:
    """Of a host with or without scheme and port."""
    try:
        name = urlsplit(origin if "://" in origin else f"//{origin}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


@lru_cache(maxsize=1024)
def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
