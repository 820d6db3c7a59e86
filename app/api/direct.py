"""Routes that are asked often: FastAPI describes them, and requests reach them past its router."""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
        request = Request(scope, self._limited(receive))
        try:
            response = await route.answer(request)
        except Exception as error:  # noqa: BLE001 - what is not expected is raised again
            response = await answer_to(request, error)
            error.__traceback__ = None  # its frames hold the body, and the garbage collector rests long
        await response(scope, receive, send)

    def _limited(self, receive: Receive) -> Receive:
        """As FastAPI's `max_body_size`, behind which these requests do not come."""
        size_bytes = 0

        async def receive_and_count() -> Message:
            nonlocal size_bytes
            message = await receive()
            size_bytes += len(message.get("body", b""))
            if size_bytes > self._max_body_bytes:
                raise too_large(self._max_body_bytes)
            return message

        return receive_and_count
