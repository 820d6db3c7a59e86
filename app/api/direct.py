"""Routes that are asked often: FastAPI describes them, and requests reach them past its router."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import answer_to, too_large


class DirectRoute(APIRoute):
    """A route whose function answers a response, and whose dependencies take the request and nothing else.

    Solving dependencies of any kind, closing what they opened and filling in a response takes an eighth of the time of
    a write. So the function reads query and body itself; `openapi_extra` describes them, and `response_model` describes
    the answer.

    Raises:
        TypeError: as it is made, of a function or a dependency with parameters that FastAPI would have to fill.
    """

    answer: Callable[[Request], Coroutine[Any, Any, Response]]
    """The function, called with the request and its dependencies."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `answer`."""
        function = self.endpoint
        left = [one.name for one in [*get_flat_params(self.dependant), self.body_field] if one]
        if left:
            raise TypeError(f"{self.path}: the function must read {', '.join(left)} itself")
        if any(one.dependencies for one in self.dependant.dependencies):
            raise TypeError(f"{self.path}: its dependencies must take the request and nothing else")
        needed = [(one.name, one.call) for one in self.dependant.dependencies if one.call]

        async def answer(request: Request) -> Response:
            given = {}
            for name, dependency in needed:
                value = await dependency(request)
                if name is not None:  # else it is there to refuse requests
                    given[name] = value
            response: Response = await function(request=request, **given)
            return response

        self.answer = answer
        return answer


class BoundedRequest(Request):
    """A request whose body is read in one loop, without Starlette's generators, and refused as it gets too long."""

    def __init__(self, scope: Scope, receive: Receive, max_body_bytes: int) -> None:
        super().__init__(scope, receive)
        self._max_body_bytes = max_body_bytes
        self._whole: bytes | None = None

    async def body(self) -> bytes:
        """All of it.

        Raises:
            TooLargeError: it has more bytes than are taken; FastAPI's `max_body_size` is not on this way.
            ClientDisconnect: the client has gone before the end.
        """
        if self._whole is None:
            parts = []
            size_bytes = 0
            more = True
            while more:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(message.get("body", b""))
                size_bytes += len(parts[-1])
                if size_bytes > self._max_body_bytes:
                    raise too_large(self._max_body_bytes)
                more = message.get("more_body", False)
            self._whole = b"".join(parts)
        return self._whole

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """All of it at once: for what reads a body so."""
        yield await self.body()


class DirectRoutes:
    """ASGI middleware: hands requests to the direct routes at fixed paths itself, and passes on all others.

    FastAPI's router calls some 170 functions to find one of them, and each step of a coroutine passes through what
    surrounds the router.
    """

    def __init__(self, app: ASGIApp, routers: Iterable[APIRouter], max_body_bytes: int) -> None:
        """Bodies of more bytes are refused as they come."""
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._routes = {
            (method, route.path): route
            for router in routers
            for route in router.routes
            if isinstance(route, DirectRoute) and "{" not in route.path
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers errors as FastAPI's exception handlers would."""
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route  # for the metrics
        request = BoundedRequest(scope, receive, self._max_body_bytes)
        try:
            response = await route.answer(request)
        except Exception as error:  # noqa: BLE001 - what is not expected is raised again
            response = await answer_to(request, error)
            error.__traceback__ = None  # its frames hold the body, and the garbage collector rests long
        await response(scope, receive, send)
