"""What FastAPI does not say in the OpenAPI document.

That is what an error looks like, what needs a key, where ids lead, and that no query has null.
"""

from collections.abc import Callable, Iterator
from typing import Any

from app.api.authentication import OPEN_TO_ALL
from app.api.problems import Problem

KEY = {
    "HTTPBearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of `afterimage keys create`; not needed while there is none.",
    }
}

MAKERS = {
    "/v1/memories": ("memory_id", "$response.body#/id"),
    "/v1/admin/imports": ("import_id", "$response.body#/id"),
    "/v1/admin/exports": ("export_id", "$response.body#/id"),
    "/v1/admin/keys": ("key_id", "$response.body#/details/id"),
}
"""A `POST` there makes a thing, whose id every route asks for that has this parameter in its path."""

Document = dict[str, Any]


def completed(make: Callable[[], Document]) -> Callable[[], Document]:
    """A maker of the document that completes what another one has made, once."""
    made: Document = {}

    def make_and_complete() -> Document:
        if not made:
            made.update(make())
            _describe_problems(made)
            _secure(made)
            _link(made)
            _take_out_null(made)
        return made

    return make_and_complete


def _operations(document: Document) -> Iterator[tuple[str, Document]]:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def _describe_problems(document: Document) -> None:
    """Said here, for as the model of each error of each route it would be compiled two hundred times at the start."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema(mode="serialization")


def _secure(document: Document) -> None:
    """Said here, for as a dependency of each route it would be looked for in each request once more."""
    document.setdefault("components", {})["securitySchemes"] = KEY
    for path, operation in _operations(document):
        if path not in OPEN_TO_ALL:
            operation["security"] = [{name: [] for name in KEY}]


def _link(document: Document) -> None:
    for path, (parameter, value) in MAKERS.items():
        links = {
            operation["operationId"]: {"operationId": operation["operationId"], "parameters": {parameter: value}}
            for other, operation in _operations(document)
            if f"{{{parameter}}}" in other
        }
        for status, response in document["paths"][path]["post"]["responses"].items():
            if status.startswith("2"):
                response["links"] = links


def _take_out_null(document: Document) -> None:
    """A query says nothing or something, never null."""
    for _, operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            schema = parameter["schema"]
            choices = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
            if len(choices) == 1:
                del schema["anyOf"]
                schema.update(choices[0])
