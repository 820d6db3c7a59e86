"""Settings from the environment, AI-AfterImage's file and the defaults."""

from pathlib import Path

import pytest

from app.embedding.hashing import dimensions_of
from app.errors import StartupError
from app.settings import Settings, load_settings, unknown_settings, yaml_key


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty HOME."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".afterimage").mkdir()
    return tmp_path


AI_AFTERIMAGE_FILE = """
storage:
  backend: sqlite  # Options: sqlite, postgresql
  sqlite:
    path: ~/.afterimage/memory.db
  postgresql:
    host: localhost
    port: 5432
    database: afterimage
    user: afterimage
    min_pool_size: 3
    max_pool_size: 10
search:
  max_results: 5
  relevance_threshold: 0.6
  max_injection_tokens: 2000
  fts_weight: 0.4
  semantic_weight: 0.6
filter:
  code_extensions: [.py]
embeddings:
  model: all-MiniLM-L6-v2
  device: cpu
  embedding_dim: 384
"""


def write(home: Path, text: str) -> None:
    (home / ".afterimage" / "config.yaml").write_text(text)


def test_the_service_runs_its_own_postgres_by_default(home: Path) -> None:
    settings = load_settings()
    assert settings.runs_own_postgres
    assert settings.postgres_folder == home / ".afterimage" / "postgres"


def test_a_file_of_ai_afterimage_works_unchanged(home: Path) -> None:
    write(home, AI_AFTERIMAGE_FILE)
    settings = load_settings()
    assert settings.backend == "sqlite"
    assert settings.sqlite_path == home / ".afterimage" / "memory.db"
    assert (settings.pg_host, settings.min_pool_size, settings.max_results) == ("localhost", 3, 5)
    assert (settings.relevance_threshold, settings.fts_weight) == (0.6, 0.4)
    assert unknown_settings() == []


def test_the_environment_wins_over_the_file_and_arguments_over_both(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, "server: {port: 1}\nstorage: {postgresql: {host: a}}\n")
    monkeypatch.setenv("AFTERIMAGE_PG_HOST", "b")
    monkeypatch.setenv("AFTERIMAGE_PORT", "2")
    settings = load_settings(port=3, host=None)
    assert (settings.pg_host, settings.port, settings.host) == ("b", 3, "127.0.0.1")
    assert not settings.runs_own_postgres


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERIMAGE_PG_PORT", "")
    assert load_settings().pg_port == 5432


def test_each_wrong_value_is_named_with_its_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, "search: {max_results: 1000}\n")
    monkeypatch.setenv("AFTERIMAGE_PG_PORT", "x")
    with pytest.raises(StartupError) as caught:
        load_settings(port=70000)
    message = str(caught.value)
    assert "AFTERIMAGE_PG_PORT is 'x'" in message
    assert "search.max_results" in message
    assert "config.yaml" in message
    assert "--port is 70000" in message
    assert "65535" in message


def test_a_secret_is_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERIMAGE_PG_PASSWORD", "hunter2")
    assert "hunter2" not in repr(load_settings())


@pytest.mark.parametrize("text", ["a: [", "- a\n- b\n", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(home: Path, text: str) -> None:
    write(home, text)
    with pytest.raises(StartupError, match=r"config\.yaml"):
        load_settings()


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:11", "mps"])
def test_devices_of_pytorch_are_known(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERIMAGE_EMBEDDING_DEVICE", device)
    assert load_settings().embedding_device == device


@pytest.mark.parametrize("device", ["gpu", "CPU", "cuda:", "cuda:x", "cpu:0"])
def test_another_device_is_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERIMAGE_EMBEDDING_DEVICE", device)
    with pytest.raises(StartupError, match=f"AFTERIMAGE_EMBEDDING_DEVICE is '{device}': should be cpu, cuda, cuda:N"):
        load_settings()


@pytest.mark.parametrize("model", ["hashing-0", "hashing-10000", "hashing-99999", "hashing-x", "hashing-"])
def test_a_hashing_model_of_no_size_is_refused(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERIMAGE_EMBEDDING_MODEL", model)
    assert dimensions_of(model) is None
    with pytest.raises(StartupError, match=f"AFTERIMAGE_EMBEDDING_MODEL is '{model}': .* from 1 to 9999"):
        load_settings()


@pytest.mark.parametrize("size", [1, 256, 9999])
def test_a_hashing_model_has_a_size(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERIMAGE_EMBEDDING_MODEL", f"hashing-{size}")
    assert dimensions_of(load_settings().embedding_model) == size


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@db/name",
        "postgresql://u:p@db:5999/name",
        "postgresql://u:p@db1:1,db2,[fd00::1],[fd00::1]:65535/name",
        "postgresql://u@/name?host=%2Frun%2Fpostgresql&port=5432,5433",
        "postgresql:///name",
        "postgresql://db:1",
    ],
)
def test_a_url_may_name_ports(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERIMAGE_DATABASE_URL", url)
    assert load_settings().connection_parameters == {"dsn": url}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@db:5999x/name",
        "postgresql://u:hunter2@db1:1,[fd00::1]:65536/name",
        "postgresql://u:hunter2@db1/name?port=x",
        "postgresql://u:hunter2/more@db1/name",
        "postgresql://u:some@hunter2:more@db1/name",
    ],
)
def test_a_port_in_the_url_that_is_none_is_refused_without_the_password(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTERIMAGE_DATABASE_URL", url)
    with pytest.raises(StartupError, match=r"AFTERIMAGE_DATABASE_URL is .hidden.: .* from 1 to 65535") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_pool_sizes_must_fit_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERIMAGE_MIN_POOL_SIZE", "20")
    with pytest.raises(StartupError, match="must not exceed AFTERIMAGE_MAX_POOL_SIZE"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("db2", "db2", None),
        ("10.0.0.2:6432", "10.0.0.2", 6432),
        ("[fd00::2]", "fd00::2", None),
        ("[fd00::2]:6432", "fd00::2", 6432),
        ("/run/postgresql", "/run/postgresql", None),
        ("/run/postgresql:6432", "/run/postgresql", 6432),
    ],
)
def test_a_standby_is_named_by_host_port_or_socket_folder(
    text: str, host: str, port: int | None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTERIMAGE_PG_HOST", "db1")
    monkeypatch.setenv("AFTERIMAGE_PG_READ_HOSTS", f"{text}, db3")
    assert load_settings().pg_read_hosts == [(text, host, port), ("db3", "db3", None)]
    monkeypatch.delenv("AFTERIMAGE_PG_READ_HOSTS")
    write(home, f"storage: {{postgresql: {{read_hosts: ['{text}', db3]}}}}\n")
    assert load_settings().pg_read_hosts == [(text, host, port), ("db3", "db3", None)]


@pytest.mark.parametrize("text", ["a:b", "a:0", "a:65536", "a,,b", "a b", "postgresql://a/b", "fd00::2"])
def test_what_is_no_address_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERIMAGE_PG_HOST", "db1")
    monkeypatch.setenv("AFTERIMAGE_PG_READ_HOSTS", text)
    with pytest.raises(StartupError, match=r"AFTERIMAGE_PG_READ_HOSTS is .* is none of host, host:port, .*commas"):
        load_settings()


def test_standbys_need_a_server_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERIMAGE_PG_READ_HOSTS", "db2")
    with pytest.raises(StartupError, match="set AFTERIMAGE_PG_HOST or AFTERIMAGE_DATABASE_URL"):
        load_settings()


def test_a_misspelt_key_or_variable_is_noticed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, "storge: {backend: sqlite}\n")
    monkeypatch.setenv("AFTERIMAGE_PG_PASWORD", "x")
    monkeypatch.setenv("AFTERIMAGE_PG_PASSWORD", "x")
    assert unknown_settings() == ["AFTERIMAGE_PG_PASWORD", "storge.backend"]


def test_every_setting_has_a_description_and_a_key_of_its_own() -> None:
    keys = [yaml_key(name) for name in Settings.model_fields]
    assert len(keys) == len(set(keys))
    assert all(field.description for field in Settings.model_fields.values())
