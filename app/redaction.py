"""Takes credentials out of texts: tokens, keys and passwords whose form gives them away; nothing is guessed."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ahocorasick_rs import AhoCorasick

from app.errors import SecretError

MARK = "[REDACTED:{}]"

MIN_DISTINCT_CHARACTERS = 6
"""A token of fewer is a placeholder, such as `ghp_xxxxxxxx`."""

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


@dataclass(frozen=True, slots=True)
class Rule:
    """A form of secret. `hints` are texts of which it holds one, all or not at all; group 1 is the secret."""

    kind: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    genuine: Callable[[str], bool]


# A run of these begins where the lookbehind says: every character is looked at once, however long the text.
_ALONE = r"(?<![A-Za-z0-9_-])"


def _varied(token: str) -> bool:
    return len(set(token)) >= MIN_DISTINCT_CHARACTERS and "EXAMPLE" not in token


def _is_jwt(token: str) -> bool:
    """True if the first part is the JSON of a header (RFC 7515)."""
    head = token.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError):
        return False
    return isinstance(header, dict) and "alg" in header


_TEMPLATE = re.compile(r"\$|[<{%\[]|\*+$|\.{3}$|…")
"""What stands where a password will be filled in, and our own mark."""


def _is_password(text: str) -> bool:
    return _TEMPLATE.match(text) is None


def _rule(kind: str, hints: str, pattern: str, genuine: Callable[[str], bool] = _varied) -> Rule:
    return Rule(kind, tuple(hints.split()), re.compile(pattern), genuine)


# The forms are those that the issuers document, or that their own secret scanning publishes.
RULES = (
    _rule("aws-access-key-id", "AKIA ASIA", r"\b((?:AKIA|ASIA)[A-Z2-7]{16})\b"),
    _rule(
        "aws-secret-key",
        "secret SECRET Secret",
        r"(?i:aws.{0,20}secret|secret_?access_?key).{0,20}?[=:\"'\s]([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
    ),
    _rule("google-api-key", "AIza", r"\b(AIza[A-Za-z0-9_-]{35})(?![A-Za-z0-9_-])"),
    _rule("google-oauth-token", "ya29. GOCSPX-", _ALONE + r"(ya29\.[A-Za-z0-9_-]{30,}|GOCSPX-[A-Za-z0-9_-]{28})"),
    _rule("azure-key", "AccountKey= SharedAccessKey=", r"(?:AccountKey|SharedAccessKey)=([A-Za-z0-9+/]{40,88}={1,2})"),
    _rule("github-token", "ghp_ gho_ ghu_ ghs_ ghr_", r"\b(gh[pousr]_[A-Za-z0-9]{36,255})\b"),
    _rule("github-token", "github_pat_", r"\b(github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b"),
    _rule(
        "gitlab-token",
        "glpat- gldt- glrt- glrtr- glptt- gloas- glcbt- glft- glsoat- glagent- glimt-",
        _ALONE + r"(gl(?:pat|dt|rt|rtr|ptt|oas|cbt|ft|soat|agent|imt)-[A-Za-z0-9_-]{20,})",
    ),
    _rule("slack-token", "xox", _ALONE + r"(xox[abceoprs]-[A-Za-z0-9-]{10,})"),
    _rule("slack-token", "xapp-", _ALONE + r"(xapp-\d-[A-Za-z0-9-]{20,})"),
    _rule(
        "slack-webhook", "hooks.slack.com", r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9+/]{40,200})"
    ),
    _rule("stripe-key", "k_live_ k_test_ whsec_", _ALONE + r"((?:[rs]k_(?:live|test)|whsec)_[A-Za-z0-9]{16,255})"),
    _rule("anthropic-key", "sk-ant-", _ALONE + r"(sk-ant-[a-z0-9]+-[A-Za-z0-9_-]{32,})"),
    _rule(
        "openai-key",
        "sk-",
        _ALONE + r"(sk-(?:(?:proj|svcacct|admin)-[A-Za-z0-9_-]{40,}|[A-Za-z0-9]{48}(?![A-Za-z0-9_-])))",
    ),
    _rule("huggingface-token", "hf_", r"\b(hf_[A-Za-z0-9]{34,40})\b"),
    _rule("npm-token", "npm_", r"\b(npm_[A-Za-z0-9]{36})\b"),
    _rule("pypi-token", "pypi-AgE", _ALONE + r"(pypi-AgE[A-Za-z0-9_-]{50,})"),
    _rule("sendgrid-key", "SG.", _ALONE + r"(SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})(?![A-Za-z0-9_-])"),
    _rule("twilio-key", "SK", r"\b(SK[0-9a-f]{32})\b"),
    _rule("telegram-token", ":AA", r"\b(\d{8,10}:AA[A-Za-z0-9_-]{33})(?![A-Za-z0-9_-])"),
    _rule("digitalocean-token", "_v1_", r"\b(do[opr]_v1_[0-9a-f]{64})\b"),
    _rule("databricks-token", "dapi", r"\b(dapi[0-9a-f]{32})\b"),
    _rule("shopify-token", "shp", r"\b(shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32})\b"),
    _rule("docker-token", "dckr_pat_", _ALONE + r"(dckr_pat_[A-Za-z0-9_-]{27,})"),
    _rule("vault-token", "hvs. hvb.", _ALONE + r"(hv[sb]\.[A-Za-z0-9_-]{24,})"),
    _rule("terraform-token", ".atlasv1.", r"\b([A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{60,70})"),
    _rule("groq-key", "gsk_", r"\b(gsk_[A-Za-z0-9]{52})\b"),
    _rule("grafana-token", "glsa_", r"\b(glsa_[A-Za-z0-9]{32}_[0-9a-f]{8})\b"),
    _rule("atlassian-token", "ATATT3", _ALONE + r"(ATATT3[A-Za-z0-9_=-]{50,})"),
    _rule("age-key", "AGE-SECRET-KEY-1", r"\b(AGE-SECRET-KEY-1[A-Z0-9]{58})\b"),
    _rule("afterimage-key", "aft_", r"\b(aft_[0-9a-f]{32}_[A-Za-z0-9_-]{43})(?![A-Za-z0-9_-])"),
    _rule("jwt", "eyJ", _ALONE + r"(eyJ[A-Za-z0-9_-]{8,}+\.eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{16,}+)", _is_jwt),
    _rule(
        "password",
        "://",
        r"\b[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s:/?#@\"'`<>]{0,100}:([^\s/?#@\"'`]{1,200})@(?=[\w\[])",
        _is_password,
    ),
    _rule(
        "password",
        "assword= ASSWORD= Pwd= pwd= PWD=",
        r"(?i:\b(?:server|data source|host|address|user id|uid|user|username|database|initial catalog)="
        r"[^;\"'\n()]{1,200};\s?(?:[\w ]{1,40}=[^;\"'\n()]{0,200};\s?){0,20}(?:password|pwd)=)([^;\"'\n()]{1,200})",
        _is_password,
    ),
    _rule(
        "password",
        "password=",
        r"\b(?:host|hostaddr|port|user|dbname)=[^\s;,()\"'`]{1,200}\s(?:\w{1,30}=[^\s;,()\"'`]{0,200}\s){0,20}"
        r"password=([^\s;,()\"'`]{1,200})",
        _is_password,
    ),
)

_PRIVATE_KEY = "PRIVATE KEY"
_HINTS = sorted({hint for rule in RULES for hint in rule.hints} | {_PRIVATE_KEY})
_HINTED = AhoCorasick(_HINTS)
"""Finds all hints in one pass: most texts hold none, and an import has thousands of texts a second."""

_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_KEY_LINE = re.compile(r"[A-Za-z0-9+/=]{40}")
_KEY_LINES = re.compile(r"(?:[A-Za-z0-9+/=]{16,}+(?:\s|\\[nr]|[\"',])*+)++")


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
    for match in rule.pattern.finditer(text):
        if rule.genuine(match[1]):
            yield rule.kind, match.start(1), match.end(1)


def _private_keys(text: str) -> Iterator[tuple[int, int]]:
    """What stands between the lines of a private key; without an end, as far as it looks like one."""
    end = 0
    for begin in _BEGIN.finditer(text):
        start = begin.end()
        if end != -1 and end < start:
            end = text.find("-----END", start)
        if end != -1 and end - start <= MAX_PRIVATE_KEY_CHARACTERS and _KEY_LINE.search(text, start, end):
            yield start, end
        elif (line := _KEY_LINE.search(text, start, start + 400)) and (lines := _KEY_LINES.match(text, line.start())):
            yield lines.span()
