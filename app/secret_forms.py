"""The forms that give credentials away."""

import base64
import binascii
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

MIN_DISTINCT_CHARACTERS = 6
"""A token of fewer is a placeholder, such as `ghp_xxxxxxxx`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A form of secret. `hints` are texts of which it holds one; the secret is the one group that took part."""

    kind: str
    hints: tuple[str, ...]
    pattern: str
    genuine: Callable[[str], bool]


# A run of these begins where the lookbehind says: every character is looked at once, however long the text.
_ALONE = r"(?<![A-Za-z0-9_-])"


def varied(token: str) -> bool:
    """False for a placeholder, such as `ghp_xxxxxxxx`, and for what calls itself an example."""
    return len(set(token)) >= MIN_DISTINCT_CHARACTERS and "EXAMPLE" not in token


def _is_jwt(token: str) -> bool:
    """True if the first part is the JSON of a header (RFC 7515)."""
    head = token.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError):
        return False
    return isinstance(header, dict) and "alg" in header


def _mixed(token: str) -> bool:
    """True if it is varied and has digits and letters of both cases, as random ones of this length do."""
    return (
        varied(token)
        and any(character.isdigit() for character in token)
        and token.upper() != token
        and token.lower() != token
    )


_TEMPLATE = re.compile(
    r"\{.*\}|\[.*\]|<.*>|\$+\{.*\}|\$\(.*\)|\$+(?:[A-Z_][A-Z0-9_]*|[a-z_][a-z0-9_]*)"
    r"|%(?:\(\w+\)|\[\d+\])?[a-z]|%\{.*\}|%+[A-Za-z_]\w*%+|\*+|\.{3}|….*"
)
"""What stands where a password will be filled in, and our own mark."""

_BETWEEN_STRINGS = re.compile(r"[\s+.,|&%)\]}:;].*[\s+.,|&(\[{:;=]|\W{1,2}")
"""What stands between two strings, and not in one: ` + password + `."""

_EXPRESSION = re.compile(r"\{[\w.]*(?:[(\[].*[)\]])?(?:![rsa])?\}")


def _is_password(text: str) -> bool:
    return _TEMPLATE.fullmatch(text) is None


def _is_quoted_password(text: str) -> bool:
    return _is_password(text) and _BETWEEN_STRINGS.fullmatch(text) is None


def _is_odbc_password(text: str) -> bool:
    """Braces are quotes in ODBC: `{s3cret;Pw}` is a password, while `{password}` is a template."""
    if text.startswith("{") and text.endswith("}") and not text.startswith("{{"):
        return _EXPRESSION.fullmatch(text) is None or (text[1:-1].isalnum() and _mixed(text))
    return _is_quoted_password(text)


def _rule(kind: str, hints: str, pattern: str, genuine: Callable[[str], bool] = varied) -> Rule:
    return Rule(kind, tuple(hints.split()), pattern, genuine)


_PARAMETER = r"[^\s&#\"'`<>\\]{0,200}+"
_AND = r"(?:&(?:amp;)?|\\u0026)"
_SEPARATORS = r"(?:\s|\\[nr]|[\"',]){1,20}+"

_ADO_KEY = (
    "[Ss]erver|[Dd]ata [Ss]ource|[Hh]ost|[Aa]ddress|[Uu]ser [Ii][Dd]|[Uu][Ii][Dd]|[Uu]ser|[Uu]sername|[Dd]atabase"
    "|[Ii]nitial [Cc]atalog"
)
_ADO_VALUE = r"(?:'[^'\"\n]{0,200}+'|[^;\"'\n()]{1,200}+)"
_ADO_SOUGHT = (
    r"(?:'((?:[^'\"\n]|''){1,200})'|\\\"([^\"\\\n]{1,200})\\\"|\"\"([^\"\n]{1,200})\"\"|\"([^\"\n]{1,200})\""
    r"|(\{(?:[^}\"\n]|\}\}){1,200}\})(?=[;\"'\n]|$)|([^;\"'\n()]{1,200}))"
)
_LIBPQ_VALUE = r"(?:\\?'[^'\"\n\\]{0,200}\\?'|[^\s;,()\"'`]{1,200})"
_LIBPQ_SOUGHT = (
    r"(?:'((?:[^'\"\\\n]|\\.){1,200}+)'|\\'([^'\"\\\n]{1,200})\\'|''([^'\"\n]{1,200})''"
    r"|(<[^<>\"'\n]{1,80}>|\$?\{\{[^{}\"'\n]{1,80}\}\}|[^\s;,()\"'`]{1,200}))"
)

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
    _rule("azure-client-secret", "Q~", r"(?<![\w~.-])([\w~.-]{3}\dQ~[A-Za-z0-9_~.-]{31,34})(?![\w~-])", _mixed),
    _rule(
        "azure-sas",
        "sig=",
        rf"(?:\b(?:se|sp)={_PARAMETER}(?:{_AND}(?!sig=)\w{{1,20}}={_PARAMETER}){{0,15}}+{_AND}sig=([\w%+/=-]{{32,200}})"
        rf"|\bsig=([\w%+/=-]{{32,200}}+)(?=(?:{_AND}(?!s[ep]=)\w{{1,20}}={_PARAMETER}){{0,15}}+{_AND}s[ep]=))",
    ),
    _rule("aws-bedrock-key", "ABSK", r"(?<![\w+/-])(ABSK[A-Za-z0-9+/]{109,269}={0,2})(?![\w+/-])", _mixed),
    _rule("aws-bedrock-key", "bedrock-api-key-", _ALONE + r"(bedrock-api-key-[A-Za-z0-9+/=_-]{40,})"),
    _rule("google-oauth-token", "1//0", r"(?<![\w/.-])(1//0[A-Za-z0-9_-]{40,})", _mixed),
    _rule("alibaba-key", "LTAI", r"\b(LTAI[A-Za-z0-9]{12,26})\b", _mixed),
    _rule(
        "alibaba-key",
        "KeySecret KEY_SECRET key_secret",
        r"(?i:access_?key_?secret)[\"']?\s?[=:]\s?[\"']?([A-Za-z0-9]{30})\b",
        _mixed,
    ),
    _rule("github-token", "ghp_ gho_ ghu_ ghs_ ghr_", r"\b(gh[pousr]_[A-Za-z0-9]{36,255})\b"),
    _rule("github-token", "github_pat_", r"\b(github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b"),
    _rule(
        "gitlab-token",
        "glpat- gldt- glrt- glrtr- glptt- gloas- glcbt- glft- glsoat- glagent- glimt-",
        _ALONE + r"(gl(?:pat|dt|rt|rtr|ptt|oas|cbt|ft|soat|agent|imt)-[A-Za-z0-9_-]{20,}+"
        r"(?:(?:\.[0-9a-z]{2})?\.[0-9a-z]{9}(?![A-Za-z0-9]))?)",
    ),
    _rule("slack-token", "xox", _ALONE + r"(xox[abceoprs]-[A-Za-z0-9-]{10,})"),
    _rule("slack-token", "xapp-", _ALONE + r"(xapp-\d-[A-Za-z0-9-]{20,})"),
    _rule(
        "slack-webhook", "hooks.slack.com", r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9+/]{40,200})"
    ),
    _rule(
        "discord-webhook",
        "/webhooks/",
        r"discord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks/\d{17,20}/([A-Za-z0-9_-]{60,100})",
    ),
    _rule("stripe-key", "k_live_ k_test_ whsec_", _ALONE + r"((?:[rs]k_(?:live|test)|whsec)_[A-Za-z0-9]{16,255})"),
    _rule("anthropic-key", "sk-ant-", _ALONE + r"(sk-ant-[a-z0-9]+-[A-Za-z0-9_-]{32,})"),
    _rule(
        "openai-key",
        "sk-",
        _ALONE + r"(sk-(?:(?:proj|svcacct|admin)-[A-Za-z0-9_-]{40,}|[A-Za-z0-9]{48}(?![A-Za-z0-9_-])))",
    ),
    _rule("openrouter-key", "sk-or-v1-", _ALONE + r"(sk-or-v1-[0-9a-f]{64})"),
    _rule("xai-key", "xai-", _ALONE + r"(xai-[A-Za-z0-9]{70,100})(?![A-Za-z0-9_-])"),
    _rule("replicate-token", "r8_", r"(r8_(?<!\wr8_)[A-Za-z0-9]{37})\b", _mixed),
    _rule("huggingface-token", "hf_", r"\b(hf_[A-Za-z0-9]{34,40})\b"),
    _rule("npm-token", "npm_", r"\b(npm_[A-Za-z0-9]{36})\b"),
    _rule("pypi-token", "pypi-AgE", _ALONE + r"(pypi-AgE[A-Za-z0-9_-]{50,})"),
    _rule("rubygems-key", "rubygems_", r"\b(rubygems_[0-9a-f]{48})\b"),
    _rule("crates-token", "cio", r"(cio(?<![\w+/-]cio)[A-Za-z0-9]{32})(?![\w+/-])", _mixed),
    _rule("nuget-key", "oy2", r"(oy2(?<![\w+/-]oy2)[a-z0-9]{43})(?![\w+/-])"),
    _rule("mailgun-key", "key-", r"(key-(?<![\w./-]key-)[0-9a-f]{32})(?![\w-])"),
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
    _rule("atlassian-token", "ATATT3 ATCTT3", _ALONE + r"(AT[AC]TT3[A-Za-z0-9_=-]{50,})"),
    _rule("atlassian-token", "ATBB", r"(?<![\w+/-])(ATBB[A-Za-z0-9]{32})(?![\w+/-])", _mixed),
    _rule("heroku-key", "HRKU-", _ALONE + r"(HRKU-[A-Za-z0-9_-]{36,})"),
    _rule("sentry-token", "sntrys_ sntryu_", _ALONE + r"(sntrys_[A-Za-z0-9+/=_-]{50,}|sntryu_[0-9a-f]{64})"),
    _rule("linear-key", "lin_api_", r"\b(lin_api_[A-Za-z0-9]{40,48})\b"),
    _rule("notion-token", "ntn_", r"(ntn_(?<!\wntn_)[A-Za-z0-9]{43,50})\b"),
    _rule("figma-token", "figd_", _ALONE + r"(figd_[A-Za-z0-9_-]{38,60})(?![A-Za-z0-9_-])"),
    _rule("fly-token", "fo1_", r"(fo1_(?<![\w-]fo1_)[A-Za-z0-9_-]{43})(?![A-Za-z0-9_-])", _mixed),
    _rule("fly-token", "fm1a_ fm1r_ fm2_", r"(?<![\w-])(fm(?:1[ar]|2)_[A-Za-z0-9+/]{60,}={0,3})", _mixed),
    _rule(
        "planetscale-token",
        "pscale_",
        _ALONE + r"(pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{32,64})(?![A-Za-z0-9_-])",
    ),
    _rule("supabase-key", "sbp_", r"\b(sbp_(?:oauth_)?[0-9a-f]{40})\b"),
    _rule("supabase-key", "sb_secret_", _ALONE + r"(sb_secret_[A-Za-z0-9_-]{31})(?![A-Za-z0-9_-])"),
    _rule(
        "doppler-token",
        "dp.pt. dp.ct. dp.sa. dp.scim. dp.audit.",
        r"(?<![\w.-])(dp\.(?:pt|ct|sa|scim|audit)\.[A-Za-z0-9]{40,44})\b",
    ),
    _rule("postman-key", "PMAK-", r"\b(PMAK-[0-9a-f]{24}-[0-9a-f]{34})\b"),
    _rule("square-token", "sq0atp- sq0csp-", _ALONE + r"(sq0atp-[\w-]{22}|sq0csp-[\w-]{43})(?![\w-])"),
    _rule(
        "square-token",
        "EAAA",
        r"(?<![\w+/-])(?<![A-Za-z0-9+/]\n)(EAAA(?!A)[A-Za-z0-9_-]{60})(?![\w+/=-]|\n[A-Za-z0-9+/]{16})",
        _mixed,
    ),
    _rule("netlify-token", "nfp_", r"(nfp_(?<!\wnfp_)[A-Za-z0-9]{36,60})\b", _mixed),
    _rule("age-key", "AGE-SECRET-KEY-1", r"\b(AGE-SECRET-KEY-1[A-Z0-9]{58})\b"),
    _rule("afterimage-key", "aft_", r"\b(aft_[0-9a-f]{32}_[A-Za-z0-9_-]{43})(?![A-Za-z0-9_-])"),
    _rule(
        "jwt",
        "eyJ",
        _ALONE + r"(eyJ[A-Za-z0-9_-]{8,}+\.(?:"
        r"[A-Za-z0-9_-]*+\.[A-Za-z0-9_-]{16,}+\.[A-Za-z0-9_-]++\.[A-Za-z0-9_-]{16,}+"
        r"|eyJ[A-Za-z0-9_-]{8,}+\.(?:[A-Za-z0-9_-]{16,}+|(?![A-Za-z0-9_.…-]))))",
        _is_jwt,
    ),
    _rule(
        "private-key",
        "Private-Lines:",
        rf"Private-Lines: \d{{1,4}}{_SEPARATORS}([A-Za-z0-9+/=]{{40,}}+"
        rf"(?:{_SEPARATORS}[A-Za-z0-9+/=]{{4,}}+(?![\w-]))*+)",
    ),
    _rule(
        "password",
        "://",
        r"\b[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s:/?#\"'`<>]{0,100}:([^\s/?#\"'`]{1,200})@(?=[\w\[{%]|\$[{A-Z])",
        _is_password,
    ),
    _rule(
        "password",
        "assword= ASSWORD= Pwd= pwd= PWD=",
        r"://[^\s\"'`<>?;]{1,300}+(?:[?&;](?!(?i:password|pwd)=)[^\s\"'`<>?&;]{0,200}+){0,20}+"
        r"[?&;](?i:password|pwd)=(\{[^\s{}\"'`]{1,200}\}|[^\s\"'`<>&;#]{1,200}|<[^\s\"'`<>]{1,200}>)",
        _is_odbc_password,
    ),
    _rule(
        "password",
        "assword= ASSWORD= Pwd= pwd= PWD=",
        rf"(?i:\b(?:{_ADO_KEY})=){_ADO_VALUE};\s?+"
        rf"(?:(?!(?i:password|pwd)=)[\w ]{{1,40}}={_ADO_VALUE}?;\s?+){{0,20}}+(?i:password|pwd)={_ADO_SOUGHT}",
        _is_odbc_password,
    ),
    _rule(
        "password",
        "Password= Pwd= PWD=",
        rf"\b(?:Password|Pwd|PWD)={_ADO_SOUGHT}"
        rf"(?=;\s?+(?:(?!(?:{_ADO_KEY})=)[\w ]{{1,40}}={_ADO_VALUE}?;\s?+){{0,5}}+(?:{_ADO_KEY})=)",
        _is_odbc_password,
    ),
    Rule(
        "password",
        ("Password =", "Pwd =", "PWD ="),
        # In one line, and with capitals: `host = a; password = b;` is code.
        rf"\b(?:{_ADO_KEY}) ?= ?{_ADO_VALUE};[ ]?+"
        rf"(?:(?!(?:Password|Pwd|PWD) ?=)[\w ]{{1,40}}+= ?{_ADO_VALUE}?;[ ]?+){{0,20}}+"
        rf"(?:Password|Pwd|PWD) = ?{_ADO_SOUGHT}",
        _is_odbc_password,
    ),
    Rule(
        "password",
        ("Password =", "Pwd =", "PWD ="),
        rf"\b(?:Password|Pwd|PWD) = ?{_ADO_SOUGHT}"
        rf"(?=;[ ]?+(?:(?!(?:{_ADO_KEY}) ?=)[\w ]{{1,40}}+= ?{_ADO_VALUE}?;[ ]?+){{0,5}}+(?:{_ADO_KEY}) ?=)",
        _is_odbc_password,
    ),
    _rule(
        "password",
        "password=",
        rf"\b(?:host|hostaddr|port|user|dbname)={_LIBPQ_VALUE}\s(?:\w{{1,30}}={_LIBPQ_VALUE}?\s){{0,20}}"
        rf"password={_LIBPQ_SOUGHT}",
        _is_quoted_password,
    ),
    _rule(
        "password",
        "password=",
        rf"password=(?<!\wpassword=){_LIBPQ_SOUGHT}(?=\s(?:host|hostaddr|port|user|dbname)=)",
        _is_quoted_password,
    ),
    _rule(
        "password",
        "password=",
        r":(?<=[\w\]]:)\d{2,5},(?:(?!password=)[\w.:=/-]{1,100}+,){0,20}+password=([^\s,;()\"'`]{1,200})",
        _is_password,
    ),
)
