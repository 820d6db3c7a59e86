"""What routes are given: the services, as the composition root has opened them."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.embedding.worker import EmbeddingWorker
from app.exports import Exports
from app.imports import Imports
from app.memories import Memories
from app.settings import Settings
from app.store.protocol import Store


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that is open while the application runs."""

    settings: Settings
    store: Store
    worker: EmbeddingWorker
    memories: Memories
    imports: Imports
    exports: Exports


async def services(request: Request) -> Services:
    """The services of this application."""
    opened: Services = request.app.state.services
    return opened


Given = Annotated[Services, Depends(services)]
