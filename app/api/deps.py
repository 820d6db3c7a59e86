"""What routes are given: the services, as the composition root has opened them."""

from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import Depends, Request

from app.access import Caller, KeyScope
from app.audit import Audit
from app.embedding_models import EmbeddingModels
from app.embedding_progress import EmbeddingProgress
from app.exports import Exports
from app.idempotency import Idempotency
from app.import_watch import ImportWatch
from app.imports import Imports
from app.keys import Keys
from app.memories import Memories
from app.redaction import Redaction
from app.search import Searches
from app.settings import Settings
from app.store.protocol import Store


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that is open while the application runs."""

    settings: Settings
    store: Store
    models: EmbeddingModels
    progress: EmbeddingProgress
    memories: Memories
    searches: Searches
    idempotency: Idempotency
    imports: Imports
    import_watch: ImportWatch
    exports: Exports
    keys: Keys
    audit: Audit
    redaction: Redaction


async def services(request: Request) -> Services:
    """The services of this application."""
    opened: Services = request.app.state.services
    return opened


Given = Annotated[Services, Depends(services)]

MAX_LOGGED_PROJECTS = 20


def log_projects(*names: str | None) -> None:
    """Names the projects that a request is about in all that is logged from here on."""
    if known := sorted({name for name in names if name is not None}):
        structlog.contextvars.bind_contextvars(projects=known[:MAX_LOGGED_PROJECTS])


class Needs:
    """Dependency: the caller, who has the scope."""

    def __init__(self, scope: KeyScope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Caller:
        """The caller that the authentication has found.

        Raises:
            ForbiddenError: its key lacks the scope.
        """
        caller: Caller = request.state.caller
        caller.require(self.scope)
        return caller


Reader = Annotated[Caller, Depends(Needs(KeyScope.READ))]
Writer = Annotated[Caller, Depends(Needs(KeyScope.WRITE))]
Admin = Annotated[Caller, Depends(Needs(KeyScope.ADMIN))]
