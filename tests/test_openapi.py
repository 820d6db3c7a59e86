"""Schemathesis over the whole OpenAPI document: examples, edge cases, odd input, and walks along the links."""

import asyncio
import json
import re
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from app.main import TAGS, create_app
from app.settings import Settings
from tests.conftest import new_database
from tests.effort import effort
from tests.processes import get, serving
from tests.source_files import entry, write_ai_afterimage

ADMIN = "0123456789abcdef"
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
STORES = ["postgresql", "sqlite"]
PHASES = effort("examples,fuzzing,stateful", full="examples,coverage,fuzzing,stateful")


def schemathesis(address: str, document: Path, *arguments: str) -> None:
    """Tries the operations of a document; what it finds wrong is the message of the failure."""
    program = Path(sysconfig.get_path("scripts"), "schemathesis")
    run = subprocess.run(
        [
            *(program, "--config-file", CONFIGURATION, "run", document, "--url", address, "--phases", PHASES),
            *("--max-examples", str(effort(1, full=30)), "--seed", "1", "--no-color", "--continue-on-failure"),
            *("--warnings", "off", *arguments),
        ],
        cwd=document.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture
def environment(request: pytest.FixtureRequest, tmp_path: Path, postgres_url: Callable[[int], str]) -> dict[str, str]:
    """Variables of a service with an empty store and a file to import."""
    folder = tmp_path / "imports"
    folder.mkdir()
    write_ai_afterimage(folder / "memory.db", [entry(number) for number in range(1, 20)])
    store = {"AFTERIMAGE_BACKEND": str(request.param), "AFTERIMAGE_IMPORT_FOLDER": str(folder)}
    store["AFTERIMAGE_LOG_LEVEL"] = "warning"  # nobody reads it, and a full pipe would stop the service
    if request.param == "postgresql":
        store["AFTERIMAGE_DATABASE_URL"] = asyncio.run(new_database(postgres_url(18)))
    return store


def test_every_error_is_a_problem_and_nothing_else() -> None:
    document = create_app(Settings()).openapi()
    schemas = document["components"]["schemas"]
    assert schemas["Problem"]["properties"].keys() == {"type", "title", "status", "detail", "request_id", "errors"}
    named = set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(document)))
    assert named == {f"#/components/schemas/{name}" for name in schemas}
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    errors = {
        (path, method, status): answer["content"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for status, answer in operation["responses"].items()
        if status >= "400" and path != "/readyz"
    }
    assert len(errors) > 100
    assert [place for place, content in errors.items() if content != problem] == []


def test_the_parts_stand_in_their_order_and_whether_the_service_is_there_is_compared_first() -> None:
    document = create_app(Settings()).openapi()
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert document["tags"] == TAGS
    assert {tag for operation in operations for tag in operation["tags"]} == {tag["name"] for tag in TAGS}
    assert [*document["paths"]][:2] == ["/livez", "/readyz"]


@pytest.mark.parametrize("environment", effort(["postgresql"], full=STORES), indirect=True)
def test_with_a_key_every_answer_is_as_the_document_says(environment: dict[str, str], tmp_path: Path) -> None:
    with serving(tmp_path, AFTERIMAGE_ADMIN_KEY=ADMIN, **environment) as (address, _):
        document = tmp_path / "openapi.json"
        document.write_text(json.dumps(get(f"{address}/openapi.json")))
        schemathesis(address, document, "-H", f"Authorization: Bearer {ADMIN}")


@pytest.mark.parametrize("environment", effort(["sqlite"], full=STORES), indirect=True)
def test_so_is_every_answer_while_there_is_no_key(environment: dict[str, str], tmp_path: Path) -> None:
    with serving(tmp_path, **environment) as (address, _):
        content = get(f"{address}/openapi.json")
        for methods in content["paths"].values():
            for operation in methods.values():
                operation.pop("security", None)
        document = tmp_path / "openapi.json"
        document.write_text(json.dumps(content))
        schemathesis(address, document, "--exclude-name", "POST /v1/admin/keys")  # else there would be a key


@pytest.mark.parametrize("environment", effort([], full=STORES), indirect=True)
def test_to_a_stranger_too(environment: dict[str, str], tmp_path: Path) -> None:
    with serving(tmp_path, AFTERIMAGE_ADMIN_KEY=ADMIN, **environment) as (address, _):
        document = tmp_path / "openapi.json"
        document.write_text(json.dumps(get(f"{address}/openapi.json")))
        schemathesis(address, document, "--exclude-checks", "missing_required_header")
