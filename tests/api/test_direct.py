"""Routes whose functions FastAPI only describes."""

from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel

from app.api.direct import DirectRoute


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
