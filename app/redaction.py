"""Takes credentials out of texts: tokens, keys and passwords whose form gives them away; nothing is guessed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from ahocorasick_rs import AhoCorasick

from app.errors import SecretError
from app.secret_forms import RULES, Rule, varied

MARK = "[REDACTED:{}]"

MAX_PRIVATE_KEY_CHARACTERS = 20_000


class SecretsMode(StrEnum):
    """What to do with a secret."""

    REDACT = "redact"
    REJECT = "reject"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret stands in a text; `line` counts from 1."""

    kind: str
    start: int
    end: int
    line: int


_PRIVATE_KEY = "PRIVATE KEY"
_WEB_KEY = "kty"
_HINTS = sorted({hint for rule in RULES for hint in rule.hints} | {_PRIVATE_KEY, _WEB_KEY})
_HINTED = AhoCorasick(_HINTS)
"""Finds all hints in one pass: most texts hold none, and an import has thousands of texts a second."""

_BEGIN = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----|---- BEGIN SSH2 (?:ENCRYPTED )?PRIVATE KEY ----"
)
_END = re.compile(r"-----END|---- END")
_KEY_LINE = re.compile(r"[A-Za-z0-9+/=]{40}|[A-Za-z0-9+/=]{32}(?:\s|\\[nr]|[\"',]){1,20}[A-Za-z0-9+/=]{16}")
_KEY_LINES = re.compile(r"(?:[A-Za-z0-9+/=]{16,}+(?:\s|\\[nr]|[\"',])*+)++")

_FLAT_OBJECT = re.compile(r"\{[^{}]++")
_KEY_TYPE = re.compile(r"\bkty\b")
_PRIVATE_MEMBER = re.compile(r"\b(?:d|p|q|dp|dq|qi|k)\\?[\"']?\s?:\s?\\?[\"']([A-Za-z0-9_-]{16,})")


_compiled = cache(re.compile)
"""Patterns of rules: compiled when a text first holds a hint of theirs, for most services meet few of them."""


class Redaction:
    """Does with secrets what the settings say."""

    def __init__(self, mode: SecretsMode = SecretsMode.REDACT) -> None:
        self.mode = mode
        self.taken_out = 0
        """Secrets that were taken out of what is stored, since the start; counted by who stores it."""

    def clean(self, **texts: str | None) -> tuple[dict[str, Any], int]:
        """The texts without their secrets, by name, and how many secrets these were.

        Raises:
            SecretError: the mode is `reject`, and there is one; names its kind and place, and never itself.
        """
        if self.mode is SecretsMode.ALLOW:
            return texts, 0
        count = 0
        for name, text in texts.items():
            if text and (secrets := find_secrets(text)):
                if self.mode is SecretsMode.REJECT:
                    places = ", ".join(f"{secret.kind} in line {secret.line}" for secret in secrets[:5])
                    raise SecretError(
                        f"{name}: holds {len(secrets)} secret(s): {places}; take them out and send it again"
                    )
                count += len(secrets)
                texts[name] = without(text, secrets)
        return texts, count


def find_secrets(text: str) -> list[Secret]:
    """The secrets in a text, in order, none overlapping. Takes time in proportion to its length."""
    hinted = {_HINTS[index] for index, _, _ in _HINTED.find_matches_as_indexes(text, overlapping=True)}
    if not hinted:
        return []
    spans = [span for rule in RULES if not hinted.isdisjoint(rule.hints) for span in _matches(rule, text)]
    if _PRIVATE_KEY in hinted:
        spans += [("private-key", start, end) for start, end in _private_keys(text)]
    if _WEB_KEY in hinted:
        spans += [("private-key", start, end) for start, end in _web_keys(text)]
    found: list[Secret] = []
    line, counted = 1, 0
    for kind, start, end in sorted(spans, key=lambda span: (span[1], -span[2])):
        if found and start < found[-1].end:
            continue
        line += text.count("\n", counted, start)
        counted = start
        found.append(Secret(kind, start, end, line))
    return found


def without(text: str, secrets: Sequence[Secret]) -> str:
    """The text with a mark in the place of each secret; secrets as `find_secrets` gives them."""
    parts: list[str] = []
    at = 0
    for secret in secrets:
        parts += [text[at : secret.start], MARK.format(secret.kind)]
        at = secret.end
    return "".join([*parts, text[at:]])


def _matches(rule: Rule, text: str) -> Iterator[tuple[str, int, int]]:
    for match in _compiled(rule.pattern).finditer(text):
        group = match.lastindex or 0
        if rule.genuine(match[group]):
            yield rule.kind, match.start(group), match.end(group)


def _private_keys(text: str) -> Iterator[tuple[int, int]]:
    """What stands between the lines of a private key; without an end, as far as it looks like one."""
    end = taken = 0
    empty = -1  # an end before which there is no key: looked for once, however many beginnings precede it
    for begin in _BEGIN.finditer(text):
        start = begin.end()
        if start <= taken:
            continue
        if end != -1 and end < start:
            end = found.start() if (found := _END.search(text, start)) else -1
        if end not in (-1, empty) and end - start <= MAX_PRIVATE_KEY_CHARACTERS:
            if _KEY_LINE.search(text, start, end):
                taken = end
                yield start, end
                continue
            empty = end
        if (line := _KEY_LINE.search(text, start, start + 400)) and (lines := _KEY_LINES.match(text, line.start())):
            yield lines.span()


def _web_keys(text: str) -> Iterator[tuple[int, int]]:
    """The private members of JSON web keys (RFC 7517), whose public ones stay."""
    for flat in _FLAT_OBJECT.finditer(text):
        if _KEY_TYPE.search(text, *flat.span()):
            for member in _PRIVATE_MEMBER.finditer(text, *flat.span()):
                if varied(member[1]):
                    yield member.span(1)
