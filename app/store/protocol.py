"""What a store does. None of it calls a model or makes a decision.

Each method is one statement or one transaction; a search may be several.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

from app.access import AuditEntry, Key
from app.models import (
    Best,
    Counts,
    Distinct,
    Finding,
    FindingKind,
    Import,
    ImportStage,
    ImportState,
    Match,
    Memory,
    MemoryKey,
    NewImport,
    NewMemory,
    QueryWords,
    Reject,
    Scope,
    Stats,
    Validation,
    Vector,
    Words,
)
from app.store.embedding_protocol import EmbeddingStore, ModelStore
from app.store.idempotency import IdempotencyStore

MAX_COPIES = 10_000
"""Memories that are counted at most for saying how often the code of hits was stored."""

NO_WORDS = QueryWords((), ())
"""Demands nothing."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the list of memories, which runs from new to old."""

    timestamp: datetime
    project: str
    id: UUID


@dataclass(frozen=True, slots=True)
class StoreLoad:
    """How busy the connections of this process are; `lent` and `wait_seconds` since the start."""

    connections: int
    idle: int
    waiting: int
    lent: int
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class StandbyState:
    """A copy of the database that takes reads; `problem` says why it takes none at the moment."""

    name: str
    lag_seconds: float | None
    problem: str | None
    reads: int


class MemoryStore(Protocol):
    """Memories, and the two arms of a search.

    Searches, and what is told that it `may_lag`, may miss what was stored or deleted in the last seconds, where there
    are standbys; all else sees everything that was answered before.
    """

    def indexed(self, words: Words) -> str | None:
        """Words as the store keeps them, where it takes time to make them so; may be called in any thread."""

    async def add(self, new: Sequence[NewMemory], embed_after: datetime) -> set[MemoryKey]:
        """Stores all memories whose key is not there yet, in one transaction, and answers which these were.

        For each model in use of which they have no vector they are queued, to be embedded from `embed_after` on.
        """

    async def get(self, keys: Sequence[MemoryKey]) -> dict[MemoryKey, Memory]:
        """The memories with these keys, as far as they exist."""

    async def find(self, memory_id: UUID, projects: Sequence[str] | None) -> list[Memory]:
        """The memories with this id, one a project."""

    async def page(self, scope: Scope, limit: int, after: Position | None, *, may_lag: bool = False) -> list[Memory]:
        """Newest first, by (timestamp, project, id); `after` continues behind a place."""

    async def delete(self, key: MemoryKey) -> bool:
        """Deletes a memory with its words and vectors; False if it is not there."""

    async def search_words(self, scope: Scope, query: QueryWords, limit: int) -> list[Match]:
        """Memories that hold any of the words and all that the query demands, best first; scores are 0 to 1.

        Many words cost no more than few: the rarest are looked up.
        """

    async def distinct(
        self, scope: Scope, scores: Mapping[MemoryKey, float], limit: int, known: Sequence[int] = ()
    ) -> list[Distinct]:
        """Of memories with scores, as far as they exist, the best of each code, no more than the limit.

        Codes whose hash is `known` are left out. The best score comes first, newer first among equals. No other long
        texts are read. One that a standby lacks is there nevertheless. Copies are counted in the scope, exactly until
        the codes of all together are in more than MAX_COPIES memories; then too few are counted.
        """

    async def best_by_vectors(
        self, scope: Scope, vector: Vector, model: str, limit: int, candidates: int, words: QueryWords = NO_WORDS
    ) -> Best:
        """What `distinct` answers of so many candidates that `search_vectors` finds; at once, where that is sooner."""

    async def refresh_frequencies(self) -> int:
        """Counts anew in how many memories each word is, of projects that have grown or shrunk by a tenth.

        Answers how many projects these were. Without it the rank of `search_words` is rough; any number of processes
        may do it at once.
        """

    async def merge_words(self) -> int:
        """Merges the words of new memories into their index; answers how many pages of 8 KiB held them until then.

        Without it `search_words` reads those pages one after the other. It does nothing while another process is at it,
        or where the store's role does not own the index, which is then left to autovacuum.
        """

    async def search_vectors(
        self, scope: Scope, vector: Vector, model: str, limit: int, words: QueryWords = NO_WORDS
    ) -> list[Match]:
        """Memories by the cosine (-1 to 1) of their nearest vector of this model, best first.

        They hold what `words` demands: its phrases, all words if so asked, none of the excluded ones.
        """

    async def stats(self, projects: Sequence[str] | None, model: str) -> Stats:
        """Exact counts over the projects (None: all)."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on an import; a later lease has a higher token and ends this one."""

    project: str
    import_id: UUID
    token: int


@dataclass(frozen=True, slots=True)
class ClaimedImport:
    """An import that this process now works on; `model` is None if it began before that was noted."""

    lease: Lease
    job: Import
    keep_projects: bool
    model: str | None


@dataclass(frozen=True, slots=True)
class ImportBatch:
    """The next rows of a source: `rows` can be stored (source rowid first), `rejects` cannot.

    `more_fields` are those of a memory that this source has and others have not; `earlier` is what a dry run would have
    stored of earlier batches under the same keys.
    """

    rows: Sequence[tuple[int, NewMemory]]
    rejects: Sequence[Reject]
    last_rowid: int
    more_fields: tuple[str, ...] = ()
    earlier: Mapping[MemoryKey, Memory] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Rows of the source that this batch accounts for."""
        return len(self.rows) + len(self.rejects)

    def singles(self) -> "list[ImportBatch]":
        """A batch for each row, in the order of the source."""
        single = [replace(self, rows=(row,), rejects=(), last_rowid=row[0]) for row in self.rows]
        single += [replace(self, rows=(), rejects=(reject,), last_rowid=reject.rowid) for reject in self.rejects]
        return sorted(single, key=lambda batch: batch.last_rowid)


class ImportStore(Protocol):
    """Imports, with what they could not take. Methods with a lease raise LeaseLostError once it is not the newest."""

    async def create(self, new: NewImport, now: datetime, until: datetime | None) -> ClaimedImport | None:
        """Queues an import, or begins it under a lease until then; None if one of the same file is running."""

    async def running(self, project: str, source_key: str, spool: UUID) -> Import | None:
        """The oldest import of a file that has not ended and has its copy in this spool folder."""

    async def get(self, import_id: UUID, projects: Sequence[str] | None) -> Import | None:
        """One import."""

    async def page(self, projects: Sequence[str] | None, limit: int, before: UUID | None) -> Sequence[Import]:
        """Newest first."""

    async def count(self, state: ImportState, spool: UUID | None = None) -> int:
        """How many imports are in a state; with a spool folder, of those that have their copy there."""

    async def claim(self, spool: UUID, now: datetime, until: datetime, only: UUID | None) -> ClaimedImport | None:
        """Takes the oldest import of a spool folder that is queued or whose lease has run out.

        Imports of a file of which another import is running are passed over; `only` names the one to take. Those of
        other spool folders whose lease has run out go back into the queue, and wait there in nobody's way.
        """

    async def renew(self, lease: Lease, until: datetime) -> bool:
        """Holds the lease until then; True if somebody asked to cancel."""

    async def hand_back(self, lease: Lease, now: datetime) -> None:
        """Ends the lease, if it is held still: any process may go on, and what this one had sent is refused."""

    async def begin_stage(self, lease: Lease, stage: ImportStage, now: datetime, total: int) -> int | None:
        """Enters a stage, with `total` rows before it; answers the rowid to go on behind if it was entered before."""

    async def save_batch(self, lease: Lease, batch: ImportBatch, now: datetime, *, dry_run: bool) -> Counts:
        """Stores a batch (a dry run: only looks what is there) and its progress in one transaction.

        Memories without a vector are queued to be embedded from `now` on. Answers the counts so far.
        """

    async def save_validation(
        self, lease: Lease, size: int, last_rowid: int, found: Validation, findings: Sequence[Finding]
    ) -> None:
        """Adds the result of comparing `size` rows of the source."""

    async def finish(
        self, lease: Lease, state: ImportState, now: datetime, error: str | None, notes: str | None
    ) -> Import:
        """Ends an import."""

    async def cancel(self, import_id: UUID, project: str, now: datetime) -> Import:
        """Ends a queued import at once and asks a running one to stop."""

    async def findings(
        self, import_id: UUID, project: str, kind: FindingKind, limit: int, after_rowid: int | None
    ) -> Sequence[Finding]:
        """What was not taken or differs, by source rowid."""

    async def delete_memories(self, import_id: UUID, projects: Sequence[str] | None, limit: int) -> int:
        """Deletes at most `limit` memories that an import brought in, in one transaction; answers how many."""


class KeyStore(Protocol):
    """Keys, and the record of what administrators did."""

    async def create(self, key: Key, digest: bytes) -> None:
        """Stores a key with the SHA-256 of its secret."""

    async def get(self, key_id: UUID) -> tuple[Key, bytes] | None:
        """A key and the SHA-256 of its secret."""

    async def all(self) -> list[Key]:
        """All keys, newest first, the revoked and expired too."""

    async def revoke(self, key_id: UUID, now: datetime) -> Key | None:
        """Revokes a key; one that is revoked keeps its time."""

    async def any(self) -> bool:
        """True if there is or was a key."""

    async def add_audit(self, entry: AuditEntry) -> None:
        """Notes what an administrator is about to do."""

    async def end_audit(self, entry: AuditEntry) -> None:
        """Changes the target and the details of what was noted to those that are known at its end."""

    async def audit(self, limit: int, before: UUID | None) -> list[AuditEntry]:
        """What was done, newest first; `before` continues behind a record."""


class Store(Protocol):
    """Where everything lives. `open` applies migrations; a store is used between `open` and `close`."""

    @property
    def backend(self) -> str:
        """`postgresql` or `sqlite`."""

    @property
    def memories(self) -> MemoryStore:
        """Memories."""

    @property
    def embeddings(self) -> EmbeddingStore:
        """Their vectors."""

    @property
    def models(self) -> ModelStore:
        """Which models these are of."""

    @property
    def imports(self) -> ImportStore:
        """What brings them in."""

    @property
    def keys(self) -> KeyStore:
        """Who may use them."""

    @property
    def idempotency(self) -> IdempotencyStore:
        """Answers to writes that may be repeated."""

    async def open(self) -> None:
        """Connects and brings the schema up to date.

        Raises:
            StartupError: says in one line what is wrong and how to mend it.
        """

    async def close(self) -> None:
        """Finishes what is being written and disconnects."""

    def load(self) -> StoreLoad:
        """How busy the connections of this process are, those to standbys not counted."""

    def standbys(self) -> Sequence[StandbyState]:
        """The standbys, as they were found last."""

    async def ping(self) -> None:
        """Asks the database for a sign of life.

        Raises:
            UnavailableError: it does not answer.
        """
