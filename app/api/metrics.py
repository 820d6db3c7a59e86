"""Metrics for Prometheus: requests as they end, and the load on each part when somebody asks."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from app.api.deps import Given, Reader, Services
from app.api.limits import most_in_flight
from app.api.peers import Peers
from app.api.problems import responses
from app.models import ImportState
from app.store.protocol import StandbyState
from app.traffic import Kind, Traffic

router = APIRouter(tags=["service"])

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

UNMATCHED = "unmatched"

LEAVE_SECONDS = 1.0
"""How old the figures of other processes may be."""

log = structlog.get_logger(__name__)


class RequestMetrics:
    """Counts and times requests by method, route template and status, in this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._total = Counter(
            "afterimage_requests", "Requests that were answered.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "afterimage_request_duration_seconds",
            "Time from the head of a request to the end of its answer.",
            ["method", "route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._of = cache(self._figures_of)

    def observe(self, scope: Mapping[str, Any], status: int, seconds: float) -> None:
        """Notes a request that has ended; what matches no route shares one name, so that names stay few."""
        route = getattr(scope.get("route"), "path", UNMATCHED)
        total, duration = self._of(scope["method"] if route != UNMATCHED else UNMATCHED, route, status)
        total.inc()
        duration.observe(seconds)

    def _figures_of(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        """Looked up once: it takes as long as to count."""
        return self._total.labels(method, route, str(status)), self._seconds.labels(method, route)


class Figures(Collector):
    """Metrics that were collected already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Each of them."""
        yield from self._metrics


def figures_here(counted: RequestMetrics, services: Services, traffic: Traffic) -> list[Metric]:
    """What this process has done, and the load on it as it is now."""
    store = services.store.load()
    waiting = sum(worker.waiting for worker in services.models.workers)
    return [
        *counted.registry.collect(),
        gauge("connections", "Connections to the database.", store.connections),
        gauge("connections_idle", "Those of them that nobody uses.", store.idle),
        gauge("connections_awaited", "Who waits for one, or for the writer of SQLite.", store.waiting),
        CounterMetricFamily("afterimage_connections_lent", "How often one was lent.", store.lent),
        CounterMetricFamily("afterimage_connections_wait_seconds", "Waiting for them in all.", store.wait_seconds),
        gauge("embedding_texts_waiting", "Texts that wait for a model here.", waiting),
        *standby_figures(services.store.standbys()),
        *bounded(services, traffic),
    ]


def bounded(services: Services, traffic: Traffic) -> Iterator[Metric]:
    """What waits in this process beside what may, and what was taken out of texts."""
    settings = services.settings
    limits = most_in_flight(settings)
    now = GaugeMetricFamily("afterimage_in_flight", "Requests that are being answered, by kind.", labels=["kind"])
    most = GaugeMetricFamily("afterimage_in_flight_limit", "More of them are answered 503.", labels=["kind"])
    for kind in Kind:
        now.add_metric([kind], traffic.in_flight[kind])
        most.add_metric([kind], limits[kind])
    yield from (now, most)
    yield gauge(
        "embedding_texts_limit", "More texts of one kind are not taken.", services.models.active.worker.limit_texts
    )
    yield gauge("imports_queued_limit", "More waiting imports are answered 503.", settings.max_queued_imports)
    yield CounterMetricFamily(
        "afterimage_redactions", "Secrets taken out of what was stored.", services.redaction.taken_out
    )


def standby_figures(standbys: Sequence[StandbyState]) -> Iterator[Metric]:
    """Whether each standby takes reads, how many it took, and how far it is behind; nothing where there is none."""
    if not standbys:
        return
    used = GaugeMetricFamily("afterimage_standby_used", "1 if reads go there.", labels=["standby"])
    lag = GaugeMetricFamily("afterimage_standby_lag_seconds", "How far it is behind.", labels=["standby"])
    reads = CounterMetricFamily("afterimage_standby_reads", "Reads that it answered.", labels=["standby"])
    for standby in standbys:
        used.add_metric([standby.name], standby.problem is None)
        reads.add_metric([standby.name], standby.reads)
        if standby.lag_seconds is not None:
            lag.add_metric([standby.name], standby.lag_seconds)
    yield from (used, lag, reads)


async def figures_of_the_store(services: Services) -> list[Metric]:
    """What is the same whichever process tells it."""
    backlog = services.progress.backlog
    imports = GaugeMetricFamily("afterimage_imports", "Imports by state.", labels=["state"])
    for state in ImportState:
        imports.add_metric([state], await services.store.imports.count(state))
    return [
        gauge("embedding_pending", "Memories whose vector is still to be made.", backlog.pending),
        gauge(
            "embedding_pieces_pending", "Long memories that lack the vectors of their pieces.", backlog.pieces_pending
        ),
        gauge("embedding_failed", "Memories whose vector could not be made.", backlog.failed),
        imports,
    ]


async def leave_figures(peers: Peers, counted: RequestMetrics, services: Services, traffic: Traffic) -> None:
    """Leaves this process's figures where its peers find them, again and again."""
    while True:
        try:
            peers.leave(figures_here(counted, services, traffic))
        except OSError as error:  # the others go on with older ones
            log.warning("figures could not be left for the other workers", reason=str(error))
        await asyncio.sleep(LEAVE_SECONDS)


def gauge(name: str, description: str, value: float) -> GaugeMetricFamily:
    """A figure without labels."""
    return GaugeMetricFamily(f"afterimage_{name}", description, value)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **responses(),
    },
)
async def metrics(request: Request, given: Given, caller: Reader) -> Response:
    """Requests, durations and the load on each part, as Prometheus reads them.

    Of several processes of one service each has its own figures, told apart by the label `worker`.
    """
    caller.require_all_projects("the metrics")
    peers: Peers | None = request.app.state.peers
    here: Sequence[Metric] = figures_here(request.app.state.metrics, given, request.app.state.traffic)
    by_process = here if peers is None else peers.together(here)
    told = Figures([*by_process, *await figures_of_the_store(given)])
    return Response(generate_latest(told), media_type=CONTENT_TYPE_LATEST)
