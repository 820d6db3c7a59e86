"""File descriptors: as many as the service may need, as far as the system allows it."""

import resource
from contextlib import suppress

import structlog

from app.settings import Settings

OTHERS = 128
"""For files, and for whatever else is no connection of a client or of a pool."""

log = structlog.get_logger(__name__)


def room_for_clients(settings: Settings) -> int:
    """How many connections clients may open in this process, so that descriptors are left for everything else.

    Raises the limit of the process if that is too low for the setting; where the system does not let it, logs a
    warning and answers what there is room for.
    """
    others = OTHERS + settings.max_pool_size * (1 + len(settings.pg_read_hosts or ()))
    wanted = settings.max_client_connections + others
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != allowed < wanted:
        raised = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        with suppress(OSError, ValueError):  # some systems have a further limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, most))
            allowed = raised
    if allowed == resource.RLIM_INFINITY or allowed >= wanted:
        return settings.max_client_connections
    room = max(1, allowed - others)
    log.warning(
        "the system allows too few open files for so many connections; raise it with ulimit -n, or LimitNOFILE",
        setting="AFTERIMAGE_MAX_CLIENT_CONNECTIONS",
        value=settings.max_client_connections,
        connections=room,
        open_files=allowed,
        open_files_needed=wanted,
    )
    return room
