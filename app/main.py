"""The composition root: reads settings, names concrete classes, opens them and closes them in reverse."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline

from app.api import audit, exports, health, imports, keys, memories, metrics, search, writes
from app.api.authentication import Authentication
from app.api.deps import Services
from app.api.direct import DirectRoutes
from app.api.document import completed
from app.api.limits import Limits, RequestLimits, most_in_flight
from app.api.metrics import RequestMetrics, leave_figures
from app.api.middleware import RequestLog
from app.api.peers import Peers
from app.api.problems import add_handlers
from app.api.stopping import Stopping
from app.audit import Audit
from app.embedding.embedder import Embedder, model_identity, open_embedder
from app.embedding_models import EmbeddingModels
from app.embedding_progress import EmbeddingProgress
from app.errors import StartupError
from app.exports import Exports
from app.frequencies import Frequencies
from app.idempotency import Idempotency
from app.import_watch import ImportWatch
from app.imports import ImportLimits, Imports
from app.keys import Keys
from app.listener import is_loopback
from app.logs import SeldomWarnings
from app.memories import Memories
from app.ranking import Weights
from app.redaction import Redaction, SecretsMode
from app.search import Fusion, Searches, SearchMode
from app.settings import Settings, load_settings
from app.store.protocol import Store
from app.store.sqlite import SqliteStore
from app.store.sqlite.alone import alone_on
from app.sweep import Sweep
from app.traffic import Traffic
from app.vector_index import VectorIndexUpkeep
from app.word_index import WordIndexUpkeep

DESCRIPTION = """
A memory server for coding agents: every edit is kept verbatim, and found again by words, by meaning, or by both.

Store an edit with `POST /v1/memories`, find it with `POST /v1/search/hybrid`, and bring the file of an
AI-AfterImage in with `POST /v1/admin/imports`.
"""

TAGS = [{"name": name} for name in ("memories", "search", "imports", "exports", "keys", "service")]
"""The parts of the document, in this order."""

TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
"""FastAPI's own, whose log would tell what was sent; it costs each request a look at the environment."""


def create_app(settings: Settings | None = None, peers: Peers | None = None, *, decides_model: bool = True) -> FastAPI:
    """The application; it opens its store and its model when it starts.

    Its `state.stopping` is to be set when the service is told to stop. `peers` are the other processes of one service.
    With `decides_model` all services on the store make vectors for the configured model from its start on.
    """
    settings = settings or load_settings()
    stopping, traffic = asyncio.Event(), Traffic()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if settings.backend == "sqlite":
                stack.enter_context(alone_on(settings.sqlite_path))
            services = await open_services(settings, stack, traffic, decides_model=decides_model)
            await _refuse_strangers(settings, services.keys)
            services.imports.start()
            stack.push_async_callback(services.imports.stop)
            with _spool(settings):
                await services.exports.start()
            stack.push_async_callback(services.exports.stop)
            app.state.services = services
            await stack.enter_async_context(running(_stop_early(stopping, services)))
            if peers is not None:
                figures = leave_figures(peers, app.state.metrics, services, app.state.traffic)
                await stack.enter_async_context(running(figures))
            yield

    app = FastAPIOffline(
        title="AfterImage service",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        version=version("afterimage-service"),
        lifespan=lifespan,
        redoc_url=None,
        telemetry=TELEMETRY,
    )
    app.state.stopping = stopping
    app.state.warnings = SeldomWarnings()
    app.state.peers = peers
    app.state.max_body_bytes = settings.max_body_bytes
    app.state.traffic = traffic
    app.add_middleware(DirectRoutes, routers=[writes.router, search.router], max_body_bytes=settings.max_body_bytes)
    app.add_middleware(Limits, limits=_limits(settings), traffic=traffic)
    app.add_middleware(Authentication)
    app.add_middleware(Stopping, stopping=stopping)
    app.state.metrics = RequestMetrics()
    app.add_middleware(RequestLog, metrics=app.state.metrics)
    add_handlers(app)
    documents = list(app.router.routes)
    # A request is compared with one route after the other, and FastAPI makes those of a router ready as a request first
    # comes to it: whoever asks whether the service is there waits for no other. The documents are asked least.
    for routes in (health, memories, writes, search, exports, keys, audit, metrics):
        app.include_router(routes.router, max_body_size=settings.max_body_bytes)
    app.include_router(imports.router)  # counts the bytes of a file itself
    app.router.routes[:] = [*app.router.routes[len(documents) :], *documents]
    app.openapi = completed(app.openapi)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs something beside, and ends it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _stop_early(stopping: asyncio.Event, services: Services) -> None:
    """While requests end no long work is begun, and the import in hand is given to another process."""
    await stopping.wait()
    await asyncio.gather(services.imports.stop(), services.exports.stop())


def _limits(settings: Settings) -> RequestLimits:
    rate = None
    if settings.rate_limit_per_minute:
        from app.api.rate import RateLimit  # noqa: PLC0415 - its library takes time, which a start without spares

        rate = RateLimit(settings.rate_limit_per_minute)
    return RequestLimits(
        most_in_flight(settings),
        settings.request_timeout_seconds,
        settings.max_body_bytes,
        rate,
    )


async def open_services(
    settings: Settings, stack: AsyncExitStack, traffic: Traffic | None = None, *, decides_model: bool = False
) -> Services:
    """Opens everything that the application is made of; the stack closes it.

    With `decides_model` vectors are made for the configured model from now on, else for those that the store names.
    The background stays out of the way of `traffic`.

    Raises:
        StartupError: says in one line what is wrong and how to mend it.
    """
    store = await open_store(settings, settings.embedding_model, stack)
    models = _models(settings, store, traffic)
    stack.push_async_callback(models.stop)
    await models.start(model_identity(settings.embedding_model) if decides_model else None)
    progress = EmbeddingProgress(store.embeddings, store.models)
    progress.start()
    stack.push_async_callback(progress.stop)
    upkeep = VectorIndexUpkeep(store.embeddings, store.models)
    upkeep.start()
    stack.push_async_callback(upkeep.stop)
    word_index = WordIndexUpkeep(store.memories)
    word_index.start()
    stack.push_async_callback(word_index.stop)
    frequencies = Frequencies(store.memories)
    frequencies.start()
    stack.push_async_callback(frequencies.stop)
    sweep = Sweep(store.idempotency)
    sweep.start()
    stack.push_async_callback(sweep.stop)
    redaction = Redaction(SecretsMode(settings.secrets))
    import_service, key_service = await open_imports(settings, store, redaction), open_keys(settings, store)
    return Services(
        settings=settings,
        store=store,
        models=models,
        progress=progress,
        memories=Memories(store.memories, models, progress, redaction),
        searches=_searches(settings, store, models),
        idempotency=Idempotency(store, models, redaction),
        imports=import_service,
        import_watch=ImportWatch(import_service, key_service),
        exports=Exports(store, settings.spool_folder / "exports"),
        keys=key_service,
        audit=Audit(store.keys),
        redaction=redaction,
    )


async def open_searches(settings: Settings, store: Store, stack: AsyncExitStack, mode: SearchMode) -> Searches:
    """What a search of a mode needs, and nothing that works in the background; the stack closes it."""
    models = _models(settings, store)
    if mode is not SearchMode.FTS:
        stack.push_async_callback(models.stop)
        await models.open()
    return _searches(settings, store, models)


def _models(settings: Settings, store: Store, traffic: Traffic | None = None) -> EmbeddingModels:
    def embedder(model: str) -> Embedder:
        return open_embedder(model, settings.embedding_device, settings.models_folder, settings.workers)

    return EmbeddingModels(store.embeddings, store.models, embedder, traffic)


def _searches(settings: Settings, store: Store, models: EmbeddingModels) -> Searches:
    weights = Weights(fts=settings.fts_weight, semantic=settings.semantic_weight)
    return Searches(store.memories, models, weights, Fusion(settings.fusion))


async def open_store(settings: Settings, model: str, stack: AsyncExitStack) -> Store:
    """Opens the configured store, and PostgreSQL itself where none is given; `model` is that of an empty store.

    Raises:
        StartupError: says in one line what is wrong and how to mend it.
    """
    store: Store
    model = model_identity(model)
    if settings.backend == "sqlite":
        store = SqliteStore(
            settings.sqlite_path, model, settings.acquire_timeout_seconds, settings.statement_timeout_seconds
        )
    else:
        from app.postgresql import open_postgresql  # noqa: PLC0415 - a tenth of the start, and SQLite needs none of it

        store = await open_postgresql(settings, model, stack)
    await store.open()
    stack.push_async_callback(store.close)
    return store


async def open_imports(settings: Settings, store: Store, redaction: Redaction | None = None) -> Imports:
    """The service of imports, without the task that runs them.

    Raises:
        StartupError: the spool folder cannot be used.
    """
    limits = ImportLimits(
        folder=settings.import_folder,
        spool=settings.spool_folder,
        batch_size=settings.import_batch_size,
        lease_time=timedelta(seconds=settings.import_lease_seconds),
        max_upload_bytes=settings.max_upload_bytes,
        max_queued=settings.max_queued_imports,
    )
    service = Imports(store, limits, redaction or Redaction(SecretsMode(settings.secrets)))
    with _spool(settings):
        await service.open()
    return service


def open_keys(settings: Settings, store: Store) -> Keys:
    """The service of keys."""
    return Keys(store.keys, settings.admin_key.get_secret_value() if settings.admin_key else None)


async def _refuse_strangers(settings: Settings, keys: Keys) -> None:
    """Raises StartupError where others could reach a service that asks nobody for a key."""
    if not is_loopback(settings.host) and not await keys.ready_for_others():
        raise StartupError(
            f"{settings.host} can be reached by others, and there is no key to tell them apart; make one with: "
            "afterimage keys create --name admin --scope admin (or set AFTERIMAGE_ADMIN_KEY)"
        )


@contextmanager
def _spool(settings: Settings) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StartupError(
            f"the folder {settings.spool_folder} cannot be used: {error}; set AFTERIMAGE_SPOOL_FOLDER to another"
        ) from None
