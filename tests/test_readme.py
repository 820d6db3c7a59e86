"""Keeps the README true: its commands, routes, settings and answers."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from fastapi import FastAPI

from app.cli import cli
from app.main import create_app
from app.settings import Settings, yaml_key

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
TARGETS = set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
BASE = "http://127.0.0.1:8000"


def routes(app: FastAPI) -> dict[str, set[str]]:
    """Paths of the API and their methods."""
    return {path: {method.upper() for method in methods} for path, methods in app.openapi()["paths"].items()}


@pytest.fixture(scope="module")
def application() -> FastAPI:
    return create_app(Settings())


def test_it_is_short_enough_to_read() -> None:
    assert len(README.splitlines()) < 200


def setting_rows(text: str) -> list[tuple[str, ...]]:
    return re.findall(r"^\| `AFTERIMAGE_(\w+)` \| `([\w.]+)` \| (?:`(.+?)`)? ?\| (.+) \|$", text, re.MULTILINE)


def test_its_settings_are_those_of_the_whole_list() -> None:
    rows = setting_rows(README)
    assert len(rows) > 10
    assert [row for row in setting_rows(DOCS["settings.md"]) if row in rows] == rows


def test_every_document_it_links_to_is_there() -> None:
    assert set(re.findall(r"\]\(docs/([\w.]+)\)", README)) == {path.name for path in (ROOT / "docs").iterdir()}


def test_the_list_of_settings_is_complete_with_their_defaults() -> None:
    rows = setting_rows(DOCS["settings.md"])
    expected = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
        shown = shown.replace(str(Path.home()), "~")
        expected.append((name.upper(), yaml_key(name), shown, field.description))
    assert rows == expected


def test_every_variable_it_names_exists() -> None:
    known = {f"AFTERIMAGE_{name.upper()}" for name in Settings.model_fields} | {"AFTERIMAGE_CONFIG"}
    assert set(re.findall(r"AFTERIMAGE_[A-Z_]+", README)) <= known


def test_every_route_it_names_exists(application: FastAPI) -> None:
    known = routes(application)
    named = re.findall(r"`(?:(GET|POST|DELETE) )?(/(?:v1|livez|readyz)[\w/{}]*)`", README)
    assert named
    for method, path in named:
        assert path in known, path
        assert not method or method in known[path], f"{method} {path}"


def test_every_make_target_it_names_exists() -> None:
    for name in re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE):
        assert name in TARGETS, name


def test_make_help_lists_every_target() -> None:
    command = ["make", "--no-print-directory", "help"]  # the tests themselves may run under make
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in shown.splitlines()} == TARGETS


def test_every_command_and_option_it_names_exists() -> None:
    group = typer.main.get_command(cli)
    commands: dict[str, Any] = group.commands  # type: ignore[attr-defined]
    for line in re.findall(r"\.venv/bin/afterimage ([^`\n]+)", README):
        name, *rest = shlex.split(line)
        command = commands[name]
        if hasattr(command, "commands"):
            command = command.commands[rest[0]]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options, line


async def test_its_requests_work_and_answer_as_shown(tmp_path: Path, application: FastAPI) -> None:
    settings = Settings.model_validate(
        {
            "backend": "sqlite",
            "embedding_model": "hashing",
            "sqlite_path": tmp_path / "store.db",
            "spool_folder": tmp_path / "spool",
        }
    )
    app = create_app(settings)
    store, search = [block for block in BLOCKS if block.startswith("curl http")]
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client,
    ):
        address, body = request(store)
        stored = await client.post(f"{address}?wait=embedding", json=body)
        assert stored.status_code == 201
        address, body = request(search)
        answer = (await client.post(address, json=body)).json()
    [shown] = re.findall(r"<!-- answer -->\n```json\n(.*?)```", README, re.DOTALL)
    assert shape(answer) == shape(json.loads(shown))
    told = json.loads(shown)["hits"][0]["memory"]
    for field in ("project", "file_path", "new_code", "context", "language", "embedding_status"):
        assert told[field] == answer["hits"][0]["memory"][field]


def request(command: str) -> tuple[str, Any]:
    """The address and the body of a curl command."""
    words = shlex.split(command)
    return words[1], json.loads(words[words.index("-d") + 1])


def shape(value: Any) -> Any:
    """The keys and the types, without the values."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value]
    return type(value).__name__
