"""Who calls, and what they may do: keys, the caller of a request, and the record of what administrators did."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from app.errors import ForbiddenError
from app.models import Scope


class KeyScope(StrEnum):
    """What a key may be used for; `admin` includes the others."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """A key, without its secret."""

    id: UUID
    name: Annotated[str, Field(description="What it is for, in its maker's words.")]
    scopes: Annotated[Sequence[KeyScope], Field(description="What it may be used for; `admin` includes the others.")]
    projects: Annotated[Sequence[str] | None, Field(description="The projects it sees; null: all.")]
    created_at: datetime
    expires_at: Annotated[datetime | None, Field(description="From when on it is refused; null: never.")] = None
    revoked_at: Annotated[datetime | None, Field(description="Since when it is refused; null: it is not.")] = None

    def usable(self, now: datetime) -> bool:
        """True if it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request. `projects` are those it may see, None means all."""

    name: str
    scopes: frozenset[KeyScope]
    projects: Sequence[str] | None = None
    key_id: UUID | None = None

    @property
    def identity(self) -> str:
        """Tells one caller from another: the id of the key, or the name where there is none."""
        return str(self.key_id or self.name)

    def has(self, scope: KeyScope) -> bool:
        """True if the caller may do what needs this scope."""
        return scope in self.scopes or KeyScope.ADMIN in self.scopes

    def require(self, scope: KeyScope) -> None:
        """Raises ForbiddenError if the caller may not do what needs this scope."""
        if not self.has(scope):
            raise ForbiddenError(f"the key {self.name!r} lacks the scope {scope}: use one that has it", scope)

    def require_project(self, project: str) -> None:
        """Raises ForbiddenError if the caller may not see the project."""
        if self.projects is not None and project not in self.projects:
            raise ForbiddenError(f"the key {self.name!r} is not for project {project!r}: {self._its()}")

    def require_all_projects(self, purpose: str) -> None:
        """Raises ForbiddenError if the caller is bound to projects."""
        if self.projects is not None:
            raise ForbiddenError(f"{purpose} needs a key for all projects; {self._its()}")

    def within(self, projects: Sequence[str] | None) -> Sequence[str] | None:
        """Those of the projects that the caller may see; None means all, on both sides."""
        if self.projects is None or projects is None:
            return self.projects if projects is None else projects
        return [project for project in projects if project in self.projects]

    def limit(self, scope: Scope) -> Scope:
        """The scope, without what the caller may not see."""
        return scope if self.projects is None else replace(scope, projects=self.within(scope.projects))

    def _its(self) -> str:
        return f"it sees {', '.join(self.projects or ())}"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What an administrator did."""

    id: UUID
    at: datetime
    actor: Annotated[str, Field(description="Name of the key, `anyone` without keys, or `command line`.")]
    key_id: Annotated[UUID | None, Field(description="The key; null without one.")]
    action: Annotated[str, Field(description="Such as `import.start`.")]
    target: Annotated[str | None, Field(description="Id of what it was done to.")]
    details: Annotated[
        dict[str, Any],
        Field(
            description="What else was asked for, and its `outcome`: `done`, or `failed` with the type of the error. "
            "Without one it is not over yet, or was cut short, and may have been done."
        ),
    ]
    request_id: Annotated[str | None, Field(description="The request in the log.")]
