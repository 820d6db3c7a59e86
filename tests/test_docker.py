import json
import os
import re
import subprocess
import sys
import sysconfig
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.main import create_app
from app.settings import Settings, home

PROJECT_FOLDER = Path(__file__).parent.parent
DOCKERFILE = (PROJECT_FOLDER / "Dockerfile").read_text()
COMPOSE_FILE = (PROJECT_FOLDER / "docker-compose.yml").read_text()
PYPROJECT = tomllib.loads((PROJECT_FOLDER / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
DOCKER_STOP_SECONDS = 10
"""What `docker stop` waits for if nothing else is said."""
SECRETS = {"AFTERIMAGE_PG_PASSWORD": "secret", "AFTERIMAGE_ADMIN_KEY": "0123456789abcdef"}


def run(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of the virtual environment in the project's folder, with these variables and no others."""
    path = Path(sysconfig.get_path("scripts"), program)
    return subprocess.run(
        [path, *arguments], cwd=PROJECT_FOLDER, env=environment, capture_output=True, text=True, check=False
    )


def docker_compose(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("docker-compose", "--env-file", "/dev/null", "config", *arguments, **environment)


@pytest.fixture(scope="module")
def compose() -> Any:
    """The file as docker-compose understands it."""
    return json.loads(docker_compose("--format", "json", **SECRETS).stdout)


def instructions(keyword: str) -> list[str]:
    """The arguments of each such instruction of the Dockerfile, in order."""
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    return [line.removeprefix(f"{keyword} ") for line in lines if line.startswith(f"{keyword} ")]


def copied() -> set[str]:
    """What is copied from the project."""
    return {path for line in instructions("COPY") if "--from" not in line for path in line.split()[:-1]}


def health_code() -> str:
    """The Python code that the health check runs."""
    program, option, code = json.loads(instructions("HEALTHCHECK")[0].partition(" CMD ")[2])
    assert (program, option) == ("python", "-c")
    return str(code)


def default(name: str) -> Any:
    return Settings.model_fields[name].default


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    result = run("hadolint", "Dockerfile")
    assert (result.stdout + result.stderr, result.returncode) == ("", 0)


def test_docker_compose_reads_its_file_without_a_warning() -> None:
    result = docker_compose("--quiet", **SECRETS)
    assert (result.stdout + result.stderr, result.returncode) == ("", 0)


@pytest.mark.parametrize("name", SECRETS)
def test_docker_compose_asks_for_each_secret(name: str) -> None:
    others = {other: value for other, value in SECRETS.items() if other != name}
    for environment in (others, others | {name: ""}):
        result = docker_compose("--quiet", **environment)
        assert result.returncode != 0
        assert f"{name} is missing a value: choose a " in result.stderr


def test_the_container_is_read_only_and_has_no_capabilities(compose: Any) -> None:
    service = compose["services"]["afterimage"]
    assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"])
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_postgresql_has_no_more_capabilities_than_to_become_its_user(compose: Any) -> None:
    service = compose["services"]["postgres"]
    assert service["cap_drop"] == ["ALL"]
    assert service["cap_add"] == ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_image_is_built_from_what_the_wheel_is_made_of() -> None:
    packages = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert copied() == {"pyproject.toml", PROJECT["readme"], *packages}


def test_every_copied_path_exists() -> None:
    assert [path for path in copied() if not (PROJECT_FOLDER / path).exists()] == []


def test_docker_is_sent_what_is_copied_and_nothing_else() -> None:
    ignored, *lines = (PROJECT_FOLDER / ".dockerignore").read_text().splitlines()
    assert ignored == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied()


def test_both_stages_have_one_python_which_the_project_supports() -> None:
    (version,) = set(re.findall(r"python:?(3\.\d+)", DOCKERFILE))
    least = PROJECT["requires-python"].removeprefix(">=")
    assert [int(part) for part in version.split(".")] >= [int(part) for part in least.split(".")]


def test_pytorch_is_the_version_that_the_project_asks_for() -> None:
    assert re.findall(r"torch==\S+", DOCKERFILE) == [name for name in PROJECT["dependencies"] if "torch==" in name]


def test_pytorch_comes_from_where_the_makefile_has_it_from() -> None:
    makefile = (PROJECT_FOLDER / "Makefile").read_text()
    (index,) = re.findall(r"^TORCH_INDEX \?= (.+)$", makefile, re.MULTILINE)
    assert instructions("ARG") == [f"TORCH_INDEX={index}"]


def test_what_is_uninstalled_is_a_dependency() -> None:
    (name,) = re.findall(r"pip uninstall --yes (\S+)", DOCKERFILE)
    assert name in [dependency.partition("==")[0] for dependency in PROJECT["dependencies"]]


def test_every_variable_is_a_setting() -> None:
    named = set(re.findall(r"AFTERIMAGE_(\w+)", DOCKERFILE + COMPOSE_FILE))
    assert {name for name in named if name.lower() not in Settings.model_fields} == set()


def test_the_command_of_the_image_exists() -> None:
    program, *arguments = json.loads(instructions("CMD")[0])
    assert program in PROJECT["scripts"]
    assert CliRunner().invoke(cli, [*arguments, "--help"]).exit_code == 0


def test_the_import_that_the_compose_file_describes_exists(compose: Any) -> None:
    ((service, program, command, option),) = re.findall(r"(\w+) (\w+) (\w+) (--\w+) /imports/memory.db", COMPOSE_FILE)
    assert service in compose["services"]
    assert program in PROJECT["scripts"]
    assert CliRunner().invoke(cli, [command, option, "memory.db", "--help"]).exit_code == 0


def test_every_port_is_the_one_that_the_service_listens_on(compose: Any) -> None:
    (port,) = compose["services"]["afterimage"]["ports"]
    checked = re.findall(r":(\d+)/", health_code())
    assert {*instructions("EXPOSE"), *checked, str(port["target"]), port["published"]} == {str(default("port"))}


def test_the_port_is_published_to_this_machine_alone(compose: Any) -> None:
    assert [port["host_ip"] for port in compose["services"]["afterimage"]["ports"]] == ["127.0.0.1"]


def test_the_health_check_asks_a_route_of_the_service() -> None:
    (path,) = re.findall(r":\d+(/\w+)'", health_code())
    assert path in create_app(Settings()).openapi()["paths"]


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1)])
def test_the_health_check_tells_what_the_service_answers_and_asks_no_proxy(status: int, exit_status: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.timeout = 10
        answer = threading.Thread(target=server.handle_request)
        answer.start()
        code = health_code().replace(str(default("port")), str(server.server_port))
        environment = os.environ | {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
        check = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
        answer.join()
    assert check.returncode == exit_status


def test_the_service_does_not_run_as_root() -> None:
    assert instructions("USER") == re.findall(r"useradd --uid ([1-9]\d*)", DOCKERFILE)


def test_the_volume_keeps_the_folder_of_the_service(compose: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (user,) = re.findall(r"useradd .* (\w+) ", DOCKERFILE)
    monkeypatch.setenv("HOME", f"/home/{user}")
    assert [volume["target"] for volume in compose["services"]["afterimage"]["volumes"]] == [str(home())]


def test_the_service_waits_for_a_healthy_postgresql(compose: Any) -> None:
    service = compose["services"]["afterimage"]
    assert service["depends_on"][service["environment"]["AFTERIMAGE_PG_HOST"]]["condition"] == "service_healthy"


def test_postgresql_makes_the_database_and_the_role_that_the_service_uses(compose: Any) -> None:
    assert compose["services"]["postgres"]["environment"] == {
        "POSTGRES_DB": default("pg_database"),
        "POSTGRES_USER": default("pg_user"),
        "POSTGRES_PASSWORD": compose["services"]["afterimage"]["environment"]["AFTERIMAGE_PG_PASSWORD"],
    }


def test_the_service_may_end_by_itself_before_docker_kills_it(compose: Any) -> None:
    needed = default("stop_delay_seconds") + default("stop_timeout_seconds")
    assert needed < DOCKER_STOP_SECONDS
    assert needed < int(compose["services"]["afterimage"]["stop_grace_period"].removesuffix("s"))
