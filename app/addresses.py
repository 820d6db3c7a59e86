"""Addresses of servers in the settings: `host`, `host:port`, `[IPv6]:port`, or the folder of a Unix socket."""

import re
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

FORM = re.compile(r"(?P<host>/.*?|\[[0-9A-Fa-f:.]+\]|[^\s/:,@\[\]]+)(?::(?P<port>\d{1,5}))?")


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


Addresses = Annotated[list[Address], NoDecode, BeforeValidator(addresses)]
