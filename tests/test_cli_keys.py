"""Keys on the command line, and a service that strangers could reach."""

import re
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.errors import InvalidInputError
from app.key_text import expiry
from app.listener import is_loopback
from tests.processes import afterimage, get, serving

NOW = datetime(2026, 1, 2, 3, tzinfo=UTC)


def status(address: str, key: str | None = None) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_key_of_the_command_line_closes_a_running_service(tmp_path: Path) -> None:
    with serving(tmp_path) as (address, _):
        assert get(f"{address}/v1/stats")["total_entries"] == 0
        made = afterimage(tmp_path, "keys", "create", "--name", "ci", "--scope", "read,write", "--expires", "90d")
        key = made.stdout.strip()
        assert (made.returncode, "shown this once" in made.stderr) == (0, True)
        while status(f"{address}/v1/stats") != 401:
            pass  # within a second
        assert status(f"{address}/v1/stats", key) == 200
        listed = afterimage(tmp_path, "keys", "list")
        [line] = listed.stdout.splitlines()
        assert line.endswith("  ci")
        assert "read,write  all projects  expires" in line
        assert key[-20:] not in listed.stdout
        revoked = afterimage(tmp_path, "keys", "revoke", line.split()[0])
        assert (revoked.returncode, "revoked" in revoked.stdout) == (0, True)
        assert status(f"{address}/v1/stats", key) == 401


def test_a_service_that_others_can_reach_wants_a_key_first(tmp_path: Path) -> None:
    refused = afterimage(tmp_path, "serve", "--host", "0.0.0.0", "--port", "0")
    assert (refused.returncode, "Traceback" in refused.stderr) == (3, False)
    assert "afterimage keys create --name admin --scope admin" in refused.stderr
    command = re.search(r"afterimage (keys create [\w -]+) \(", refused.stderr)
    assert command is not None
    assert afterimage(tmp_path, *command[1].split()).returncode == 0
    with serving(tmp_path, AFTERIMAGE_HOST="0.0.0.0") as (address, _):
        assert status(f"{address}/v1/stats") == 401


def test_wrong_options_are_one_line_that_names_them(tmp_path: Path) -> None:
    for arguments, words in (
        (("create", "--name", "x", "--scope", "read,all"), 'got "all"'),
        (("create", "--name", "x", "--scope", "read", "--expires", "soon"), "'soon'"),
        (("create", "--name", "x", "--scope", "read", "--expires", "2020-01-01"), "must lie in the future"),
        (("revoke", "01a20e82-cd37-70df-a52c-de4ebe9e91a1"), "there is no key 01a20e82"),
    ):
        done = afterimage(tmp_path, "keys", *arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        assert words in done.stderr
    short = afterimage(tmp_path, "serve", AFTERIMAGE_ADMIN_KEY="short")
    assert (short.returncode, short.stderr.count("\n")) == (1, 1)
    assert re.search(r"AFTERIMAGE_ADMIN_KEY is \(hidden\): .* at least 16", short.stderr)


def test_how_an_expiry_is_said() -> None:
    assert expiry("90d", NOW) == NOW + timedelta(days=90)
    assert expiry("12h", NOW) == NOW + timedelta(hours=12)
    assert expiry("2w", NOW) == NOW + timedelta(weeks=2)
    assert expiry("2030-01-31", NOW) == datetime(2030, 1, 31, tzinfo=UTC)
    for text in ("", "d", "5y", "-1d", "tomorrow"):
        with pytest.raises(InvalidInputError, match="--expires"):
            expiry(text, NOW)


def test_what_is_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.0.2.1", "no-such-host.invalid")] == [False] * 4
