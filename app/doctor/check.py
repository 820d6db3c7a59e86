"""What a check has found."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Verdict(StrEnum):
    """Whether the service can do its work, as far as this check can tell."""

    OK = "ok"
    WRONG = "wrong"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Check:
    """A verdict, with what was found and, if it is wrong, what mends it; one line."""

    verdict: Verdict
    name: str
    text: str

    @classmethod
    def passed(cls, name: str, text: str) -> Self:
        """All is well."""
        return cls(Verdict.OK, name, text)

    @classmethod
    def failed(cls, name: str, error: BaseException) -> Self:
        """Our errors say behind their last semicolon how to mend them."""
        text = " ".join(str(error).split())
        problem, semicolon, remedy = text.rpartition("; ")
        return cls(Verdict.WRONG, name, f"{problem}: mend: {remedy}" if semicolon else text)

    @classmethod
    def skipped(cls, names: Sequence[str], reason: str) -> Iterator[Self]:
        """What cannot be checked."""
        return (cls(Verdict.SKIP, name, reason) for name in names)
