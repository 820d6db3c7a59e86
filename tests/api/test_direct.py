"""Routes whose functions FastAPI only describes."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from app.api.direct import BoundedRequest, DirectRoute, DirectRoutes
from app.api.problems import add_handlers
from app.errors import NotFoundError


class Body(BaseModel):
    number: int


async def word(request: Request) -> str:
    return request.headers["word"]


Word = Annotated[str, Depends(word)]


async def test_the_function_is_given_the_request_and_its_dependencies() -> None:
    router = APIRouter(route_class=DirectRoute)

    @router.get("/said", response_model=Body)
    async def said(given: Word, request: Request) -> Response:
        return Response(f"{given} at {request.url.path}", 202)

    app = FastAPI()
    app.include_router(router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/said", headers={"word": "yes"})
    assert (answer.status_code, answer.text) == (202, "yes at /said")
    schema = app.openapi()["paths"]["/said"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Body"}


async def refuse(request: Request) -> None:
    raise HTTPException(403, request.url.path)


async def test_a_dependency_that_only_refuses_is_asked() -> None:
    router = APIRouter(route_class=DirectRoute, dependencies=[Depends(refuse)])

    @router.get("/said")
    async def said(request: Request) -> Response:
        return Response(request.url.path)

    app = FastAPI()
    app.include_router(router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/said")).status_code == 403


def directly() -> tuple[FastAPI, APIRouter]:
    """An application that knows a router by its middleware alone."""
    app, router = FastAPI(), APIRouter(route_class=DirectRoute)

    @router.post("/echo")
    async def echo(request: Request) -> Response:
        body = await request.body()
        if body == b"missing":
            raise NotFoundError("there is nothing of that name")
        if body == b"unexpected":
            raise ZeroDivisionError("unexpected")
        return Response(body, headers={"at": request.scope["route"].path, "app": request.app.title})

    @router.post("/things/{name}")
    async def thing(request: Request) -> Response:
        return Response(request.url.path)

    app.add_middleware(DirectRoutes, routers=[router], max_body_bytes=20)
    app.middleware("http")(named)
    return app, router


async def named(request: Request, call_next: Any) -> Any:
    request.state.request_id = "here"
    return await call_next(request)


async def parts(*content: bytes) -> AsyncIterator[bytes]:
    for part in content:
        yield part


async def test_a_request_reaches_its_route_past_the_router() -> None:
    app, _ = directly()
    app.title = "here"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.post("/echo", content=parts(b"in ", b"parts"))
        assert (answer.status_code, answer.text) == (200, "in parts")
        assert (answer.headers["at"], answer.headers["app"]) == ("/echo", "here")
        assert (await client.get("/echo")).status_code == 404
        assert (await client.post("/other")).status_code == 404


async def test_a_route_with_a_name_in_its_path_is_left_to_the_router() -> None:
    app, router = directly()
    app.include_router(router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.post("/things/one")).text == "/things/one"
        assert (await client.get("/echo")).status_code == 405


async def test_errors_past_the_router_are_answered_as_behind_it() -> None:
    app, router = directly()
    behind = FastAPI()
    behind.middleware("http")(named)
    behind.include_router(router)
    add_handlers(behind)
    answers = []
    for one in (app, behind):
        transport = httpx.ASGITransport(one, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            found = await client.post("/echo", content=b"missing")
            answers.append((found.status_code, found.headers["content-type"], found.json()))
            failed = await client.post("/echo", content=b"unexpected")
            assert failed.status_code == 500
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    assert failed.headers["connection"] == "close"  # with the service's handlers, as the server then does


@pytest.mark.parametrize("content", [b"x" * 21, parts(b"x" * 11, b"x" * 10)])
async def test_a_body_past_the_router_is_counted_as_it_comes(content: Any) -> None:
    app, _ = directly()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.post("/echo", content=content)
    assert answer.status_code == 413
    assert "larger than 20 bytes" in answer.json()["detail"]


async def test_of_a_client_that_leaves_in_the_middle_nothing_is_taken_for_the_body() -> None:
    messages = iter([{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    request = BoundedRequest({"type": "http"}, receive, 20)
    with pytest.raises(ClientDisconnect):
        await request.body()


async def test_a_body_is_there_as_often_as_it_is_asked_for() -> None:
    messages = iter([{"type": "http.request", "body": b"all", "more_body": True}, {"type": "http.request"}])

    async def receive() -> Any:
        return next(messages)

    request = BoundedRequest({"type": "http"}, receive, 3)
    assert [await request.body(), await request.body()] == [b"all", b"all"]
    assert [part async for part in request.stream()] == [b"all"]


async def loud(request: Request, given: Word) -> str:
    return given.upper() + request.url.path


def test_a_dependency_with_dependencies_is_refused() -> None:
    async def said(request: Request, given: Annotated[str, Depends(loud)]) -> None: ...

    with pytest.raises(TypeError, match="/said: its dependencies must take the request and nothing else"):
        APIRouter(route_class=DirectRoute).add_api_route("/said", said)


async def in_query(request: Request, limit: int) -> None: ...
async def in_path(request: Request, name: str) -> None: ...
async def as_body(request: Request, body: Body) -> None: ...


@pytest.mark.parametrize(("function", "named"), [(in_query, "limit"), (in_path, "name"), (as_body, "body")])
def test_a_function_that_leaves_reading_to_fastapi_is_refused(function: Any, named: str) -> None:
    with pytest.raises(TypeError, match=f"/things/{{name}}: the function must read .*{named}.* itself"):
        APIRouter(route_class=DirectRoute).add_api_route("/things/{name}", function)
