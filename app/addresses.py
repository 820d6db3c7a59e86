"""Addresses of servers in the settings: `host`, `host:port`, `[IPv6]:port`, the folder of a Unix socket, or a URL."""

import re
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

FORM = re.compile(r"(?P<host>/.*?|\[[0-9A-Fa-f:.]+\]|[^\s/:,@\[\]]+)(?::(?P<port>\d{1,5}))?")

BEFORE_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):?")
"""A host, or an IPv6 address in brackets, and a colon."""


class Address(NamedTuple):
    """Where a server is; without a port at that of another."""

    name: str
    host: str
    port: int | None


def address(text: Any) -> Address:
    """What a text names.

    Raises:
        ValueError: it is no address.
    """
    found = FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None or not 0 < int(found["port"] or 1) < 65536:
        raise ValueError(
            f"{text!r} is none of host, host:port, [IPv6]:port and the folder of a Unix socket; "
            "several are separated by commas"
        )
    return Address(found[0], found["host"].strip("[]"), int(found["port"]) if found["port"] else None)


def addresses(value: Any) -> Any:
    """A list, or a text with commas, as addresses."""
    parts = value.split(",") if isinstance(value, str) else value
    return [address(part.strip() if isinstance(part, str) else part) for part in parts]


def with_ports(url: SecretStr) -> SecretStr:
    """A URL in which whatever stands in the place of a port is one.

    Raises:
        ValueError: it is none; the message does not repeat it, as it may be a part of the password.
    """
    parts = urlsplit(url.get_secret_value())
    user, at, servers = parts.netloc.partition("@")  # the first one ends the password for asyncpg, too
    found = [BEFORE_PORT.sub("", server, count=1) for server in (servers if at else user).split(",")]
    found += parse_qs(parts.query).get("port", [""])[-1].split(",")
    if any(port and not (port.isdecimal() and 0 < int(port) < 65536) for port in found):
        raise ValueError(
            "what stands behind the host should be a port from 1 to 65535; in a password write %40 for @, %2F for /, "
            "%3A for : and %3F for ?"
        )
    return url


Addresses = Annotated[list[Address], NoDecode, BeforeValidator(addresses)]
ServerURL = Annotated[SecretStr, AfterValidator(with_ports)]
