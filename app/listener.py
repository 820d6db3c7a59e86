"""The listening socket: how it is opened, and how it is closed without a connection being lost."""

import ctypes
import errno
import ipaddress
import socket
import struct
import sys
from contextlib import suppress

from app.errors import StartupError

MEND_HOST = "set --host or AFTERIMAGE_HOST to 127.0.0.1, 0.0.0.0 or another address of this machine"

SO_ATTACH_FILTER = 26
"""Of Linux, socket(7); Python has no name for it."""

NO_SYN = (
    (0x30, 0, 0, 13),  # load the byte of the flags, counted from the head of TCP
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # if it is SYN alone
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # else take all of it
)
"""A filter of packets, as (code, jump if true, jump if false, value): linux/Documentation/networking/filter.rst."""


def listen(host: str, port: int) -> socket.socket:
    """The listening socket, taken before anything is started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise StartupError(f"the host {host} is unknown ({error}); {MEND_HOST}") from None
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise StartupError(f"{host} is no address of this machine; {MEND_HOST}") from None
        raise StartupError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; stop the program that uses it, "
            "or choose another with --port or AFTERIMAGE_PORT"
        ) from None


def is_loopback(host: str) -> bool:
    """True if nobody outside this machine can reach a server that listens on the host."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)


def refuse_new(listener: socket.socket) -> None:
    """Has the kernel begin no more connections, and complete those that it has begun.

    Closing the socket resets those that nobody has accepted yet, and a request may be on its way on them. A client
    that comes later tries again after a second, for its packet seems lost, and is refused once the socket is closed.
    All processes that share the socket take no more. Does nothing outside Linux, or where the kernel refuses the
    filter.
    """
    if sys.platform != "linux":
        return
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in NO_SYN))
    program = struct.pack("HP", len(NO_SYN), ctypes.addressof(instructions))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
