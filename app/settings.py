"""Every setting, its default, unit and meaning.

Priority: arguments, the environment (`AFTERIMAGE_` and the name in capitals), the YAML file, the defaults.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.addresses import Addresses, ServerURL
from app.errors import StartupError

ENV_PREFIX = "AFTERIMAGE_"

UNUSED_YAML_KEYS = frozenset(
    {
        "filter",
        "pattern_quality",
        "hook",
        "search.max_injection_tokens",
        "search.inject_threshold",
        "search.min_query_tokens",
        "embeddings.embedding_dim",
    }
)
"""Keys of an AI-AfterImage file that steer its hooks; they mean nothing to a server and are passed over."""

HomePath = Annotated[Path, AfterValidator(Path.expanduser)]


HASHING = re.compile(r"hashing(?:-([1-9]\d{0,3}))?")
"""Names of the models that hash words to N numbers."""
DEVICE = re.compile(r"cpu|mps|cuda(:\d+)?")


def known_device(name: str) -> str:
    """A device of PyTorch, whether or not this machine has it.

    Raises:
        ValueError: it is none that the service knows.
    """
    if not DEVICE.fullmatch(name):
        raise ValueError("should be cpu, cuda, cuda:N (the number of a card, from 0) or mps")
    return name


def possible_model(name: str) -> str:
    """The name of a model, whether or not there is one of that name.

    Raises:
        ValueError: it is hashing-N with an N out of range.
    """
    if name.startswith("hashing-") and not HASHING.fullmatch(name):
        raise ValueError("should be hashing-N with an N from 1 to 9999")
    return name


def setting(default: Any, yaml_key: str, description: str, **limits: Any) -> Any:
    """A field with its place in the YAML file; a callable default is called when the settings are read."""
    if callable(default):
        limits["default_factory"] = default
    else:
        limits["default"] = default
    return Field(description=description, json_schema_extra={"yaml": yaml_key}, **limits)


def home(*parts: str) -> Path:
    """A path below `~/.afterimage`."""
    return Path.home().joinpath(".afterimage", *parts)


class Settings(BaseSettings):
    """All settings of the service; the variable of `pg_host` is `AFTERIMAGE_PG_HOST`."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", env_ignore_empty=True, frozen=True)

    backend: Literal["postgresql", "sqlite"] = setting(
        "postgresql", "storage.backend", "Where memories live: `postgresql` or `sqlite`."
    )
    sqlite_path: HomePath = setting(
        lambda: home("afterimage.db"), "storage.sqlite.path", "The file of the `sqlite` backend."
    )
    pg_host: str | None = setting(
        None, "storage.postgresql.host", "PostgreSQL server. Without it and without a URL the service runs its own."
    )
    pg_port: int = setting(5432, "storage.postgresql.port", "Port of that server.", ge=1, le=65535)
    pg_database: str = setting("afterimage", "storage.postgresql.database", "Database on that server.", min_length=1)
    pg_user: str = setting("afterimage", "storage.postgresql.user", "Role on that server.", min_length=1)
    pg_password: SecretStr | None = setting(None, "storage.postgresql.password", "Password of that role.")
    database_url: ServerURL | None = setting(
        None,
        "storage.postgresql.connection_string",
        "`postgresql://user:password@host:port/database`; wins over the parts.",
    )
    pg_read_hosts: Addresses | None = setting(
        None,
        "storage.postgresql.read_hosts",
        "Standbys of that server for searches and lists: `host` or `host:port`, or socket folders, by commas.",
    )
    pg_max_lag_seconds: float = setting(
        10.0,
        "storage.postgresql.max_lag_seconds",
        "A standby that is further behind is passed over.",
        gt=0,
        le=86400,
    )
    postgres_folder: HomePath = setting(
        lambda: home("postgres"),
        "storage.postgresql.folder",
        "Data of the service's own PostgreSQL; for root, whom PostgreSQL refuses, below `/var/lib/afterimage`.",
    )
    min_pool_size: int = setting(2, "storage.postgresql.min_pool_size", "Connections kept open.", ge=0, le=1000)
    max_pool_size: int = setting(
        10, "storage.postgresql.max_pool_size", "Connections at most, per process.", ge=1, le=1000
    )
    acquire_timeout_seconds: float = setting(
        30.0,
        "storage.postgresql.acquire_timeout_seconds",
        "Wait for a free connection, or the writer of SQLite, at most this long.",
        gt=0,
        le=3600,
    )
    statement_timeout_seconds: float = setting(
        30.0, "storage.postgresql.statement_timeout_seconds", "A statement may run this long.", gt=0, le=86400
    )
    host: str = setting("127.0.0.1", "server.host", "Address to listen on.", min_length=1)
    port: int = setting(8000, "server.port", "Port to listen on.", ge=0, le=65535)
    workers: int = setting(1, "server.workers", "Processes that serve; more than one on PostgreSQL only.", ge=1, le=64)
    stop_delay_seconds: float = setting(
        0.0,
        "server.stop_delay_seconds",
        "Told to stop, the service goes on for this long while `/readyz` says so: for a load balancer to notice.",
        ge=0,
        le=600,
    )
    stop_timeout_seconds: float = setting(
        9.0,
        "server.stop_timeout_seconds",
        "After that it ends within this time, come what may; `docker stop` kills after 10 s.",
        gt=0,
        le=3600,
    )
    admin_key: SecretStr | None = setting(
        None, "server.admin_key", "A key with all rights, for the first steps; from 16 characters on.", min_length=16
    )
    max_body_bytes: int = setting(
        32 * 1024**2,
        "server.max_body_bytes",
        "Largest body; files to import have a limit of their own.",
        ge=1024,
    )
    max_client_connections: int = setting(
        1000, "server.max_client_connections", "More connections at once, per process, are answered 503.", ge=1
    )
    request_timeout_seconds: float = setting(
        60.0, "server.request_timeout_seconds", "A write or a search may take this long.", gt=0, le=3600
    )
    max_writes_in_flight: int = setting(
        256, "server.max_writes_in_flight", "More writes at once, per process, are answered 503.", ge=1
    )
    max_searches_in_flight: int = setting(
        128, "server.max_searches_in_flight", "More searches at once, per process, are answered 503.", ge=1
    )
    max_event_streams: int = setting(
        64, "server.max_event_streams", "More who follow imports at once, per process, are answered 503.", ge=1
    )
    rate_limit_per_minute: int | None = setting(
        None, "server.rate_limit_per_minute", "Requests that a key may send a minute, per process; not limited.", ge=1
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting("info", "server.log_level", "Least level to log.")
    log_format: Literal["auto", "json", "console"] = setting(
        "auto", "server.log_format", "`json`, `console`, or `auto`: console on a terminal."
    )
    max_results: int = setting(10, "search.max_results", "Hits of a search that sets no `limit`.", ge=1, le=100)
    relevance_threshold: float = setting(
        0.0, "search.relevance_threshold", "Least score of a hit, where the search sets no `threshold`.", ge=0, le=1
    )
    fts_weight: float = setting(
        0.2,
        "search.fts_weight",
        "Weight of the words in a hybrid search; greater for identifiers, code and whatever else they tell clearly.",
        ge=0,
        le=1,
    )
    semantic_weight: float = setting(
        0.8, "search.semantic_weight", "Weight of the meaning in a hybrid search.", ge=0, le=1
    )
    exact_search_limit: int = setting(
        10_000,
        "search.exact_limit",
        "A search among more vectors than this uses an index (PostgreSQL); fewer are compared one by one.",
        ge=1,
    )
    fusion: Literal["convex", "rrf"] = setting(
        "convex",
        "search.fusion",
        "How a hybrid search makes one order of two: `convex` adds scores, `rrf` looks at ranks.",
    )
    embedding_model: Annotated[str, AfterValidator(possible_model)] = setting(
        "all-MiniLM-L6-v2",
        "embeddings.model",
        "Any sentence-transformers model, or `hashing` (`hashing-N` of N numbers, to 9999): hashed words, needs no "
        "model and knows no meaning.",
        min_length=1,
        max_length=200,
    )
    embedding_device: Annotated[str, AfterValidator(known_device)] = setting(
        "cpu", "embeddings.device", "`cpu`, `cuda`, `cuda:N`, `mps`."
    )
    models_folder: HomePath = setting(
        lambda: home("models"), "embeddings.models_folder", "Models made ready for this machine."
    )
    secrets: Literal["redact", "reject", "allow"] = setting(
        "redact",
        "storage.secrets",
        "Credentials in what is sent: `redact` puts a mark in their place, `reject` refuses, `allow` stores them.",
    )
    import_folder: HomePath = setting(home, "imports.folder", "Files below it may be imported by path.")
    spool_folder: HomePath = setting(
        lambda: home("spool"), "imports.spool_folder", "Private copies of sources during an import."
    )
    import_batch_size: int = setting(
        500, "imports.batch_size", "Rows per transaction of an import, fewer where they are large.", ge=1, le=10_000
    )
    import_lease_seconds: float = setting(
        15.0, "imports.lease_seconds", "An import whose process was silent for this long is taken over.", gt=0, le=3600
    )
    max_queued_imports: int = setting(
        100, "imports.max_queued", "More imports that wait for the same spool folder are refused.", ge=1
    )
    max_upload_bytes: int = setting(
        8 * 1024**3, "imports.max_upload_bytes", "Largest SQLite file taken as a body.", ge=1
    )

    @model_validator(mode="after")
    def _admin_key_can_be_sent(self) -> "Settings":
        key = self.admin_key.get_secret_value() if self.admin_key else ""
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError("AFTERIMAGE_ADMIN_KEY must be of printable ASCII without blanks, to be sent in a header")
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Settings":
        if self.min_pool_size > self.max_pool_size:
            raise ValueError(
                f"AFTERIMAGE_MIN_POOL_SIZE must not exceed AFTERIMAGE_MAX_POOL_SIZE ({self.max_pool_size}), "
                f"got {self.min_pool_size}"
            )
        if self.pg_read_hosts and self.runs_own_postgres:
            raise ValueError(
                "AFTERIMAGE_PG_READ_HOSTS names standbys of a server that is not named: "
                "set AFTERIMAGE_PG_HOST or AFTERIMAGE_DATABASE_URL"
            )
        if self.fts_weight + self.semantic_weight == 0:
            raise ValueError("AFTERIMAGE_FTS_WEIGHT and AFTERIMAGE_SEMANTIC_WEIGHT must not both be 0")
        return self

    @property
    def runs_own_postgres(self) -> bool:
        """True if the service starts PostgreSQL itself."""
        return self.backend == "postgresql" and not self.pg_host and self.database_url is None

    @property
    def connection_parameters(self) -> dict[str, Any]:
        """Those of `asyncpg.connect` for the given server: a URL, or its parts."""
        if self.database_url is not None:
            return {"dsn": self.database_url.get_secret_value()}
        return {
            "host": self.pg_host,
            "port": self.pg_port,
            "database": self.pg_database,
            "user": self.pg_user,
            "password": self.pg_password.get_secret_value() if self.pg_password else None,
        }

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, environment, YAML file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, YamlSource(settings_cls, config_path())


class YamlSource(PydanticBaseSettingsSource):
    """Reads AI-AfterImage's nested keys into our flat fields."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path) -> None:
        super().__init__(settings_cls)
        self._values = dict(flatten(read_yaml(path)))

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """The value of one field, None if the file does not set it."""
        return self._values.get(yaml_key(field_name)), field_name, False

    def __call__(self) -> dict[str, Any]:
        """All fields that the file sets."""
        found = {name: self._values.get(yaml_key(name)) for name in self.settings_cls.model_fields}
        return {name: value for name, value in found.items() if value is not None}


def yaml_key(field_name: str) -> str:
    """The dotted key of a setting in the YAML file."""
    extra = Settings.model_fields[field_name].json_schema_extra
    if not isinstance(extra, dict):
        raise TypeError(f"the setting {field_name} has no YAML key")
    return str(extra["yaml"])


def config_path() -> Path:
    """The YAML file: `AFTERIMAGE_CONFIG`, else `~/.afterimage/config.yaml`; it need not exist."""
    named = os.environ.get(f"{ENV_PREFIX}CONFIG")
    return Path(named).expanduser() if named else home("config.yaml")


def read_yaml(path: Path) -> dict[str, Any]:
    """The file as nested dicts.

    Raises:
        StartupError: it is no YAML, no mapping, not readable, or named by `AFTERIMAGE_CONFIG` and not there.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if os.environ.get(f"{ENV_PREFIX}CONFIG"):
            raise StartupError(f"AFTERIMAGE_CONFIG names {path}, and there is no such file") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"the settings file {path} cannot be read: {error}") from error
    import yaml  # noqa: PLC0415 - most have no such file

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise StartupError(f"the settings file {path} is not valid YAML: {where}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise StartupError(f"the settings file {path} must hold keys and values, got a {type(content).__name__}")
    return content


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values, depth first."""
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict) and dotted not in UNUSED_YAML_KEYS:
            yield from flatten(value, f"{dotted}.")
        else:
            yield dotted, value


def unknown_settings() -> list[str]:
    """Keys of the settings file and variables that nothing reads; spelling mistakes, most likely."""
    keys = {yaml_key(name) for name in Settings.model_fields} | UNUSED_YAML_KEYS
    variables = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields} | {f"{ENV_PREFIX}CONFIG"}
    unread = [key for key, _ in flatten(read_yaml(config_path())) if key not in keys]
    unread += [name for name in os.environ if name.upper().startswith(ENV_PREFIX) and name.upper() not in variables]
    return sorted(unread)


def load_settings(**arguments: Any) -> Settings:
    """Reads all settings; an argument that is None counts as not given.

    Raises:
        StartupError: names each variable with a wrong value, the value, and what is allowed.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise StartupError("; ".join(_sentence(item, given) for item in error.errors())) from None


def _sentence(error: Any, given: dict[str, Any]) -> str:
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    name = str(error["loc"][0])
    variable = f"{ENV_PREFIX}{name.upper()}"
    if name in given:
        where = f"--{name.replace('_', '-')}"
    elif variable in os.environ:
        where = variable
    else:
        where = f"{yaml_key(name)} in {config_path()} (or {variable})"
    secret = "SecretStr" in str(Settings.model_fields[name].annotation)
    value = "(hidden)" if secret else repr(error["input"])
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where} is {value}: {message[0].lower()}{message[1:]}"
