"""Secrets by their form: what is found, what is left alone, and that it never takes long."""

import base64
import json
import re
import string
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import SecretError
from app.redaction import RULES, Redaction, SecretsMode, find_secrets, without

ALNUM = string.ascii_letters + string.digits
random = Random(7)


def some(alphabet: str, length: int) -> str:
    """Characters as in a real token; made here, so that nobody takes them for a leak."""
    return "".join(random.choices(alphabet, k=length))


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


HEX = "0123456789abcdef"
BASE32 = string.ascii_uppercase + "234567"
JWT = f"{segment({'alg': 'HS256', 'typ': 'JWT'})}.{segment({'sub': '1234567890'})}.{some(ALNUM, 43)}"

TOKENS = {
    "aws-access-key-id": ["AKIA" + some(BASE32, 16), "ASIA" + some(BASE32, 16)],
    "google-api-key": ["AIza" + some(ALNUM, 35)],
    "google-oauth-token": ["ya29." + some(ALNUM, 60), "GOCSPX-" + some(ALNUM, 28)],
    "github-token": [f"gh{kind}_" + some(ALNUM, 36) for kind in "pousr"]
    + ["github_pat_" + some(ALNUM, 22) + "_" + some(ALNUM, 59)],
    "gitlab-token": ["glpat-" + some(ALNUM, 20), "gldt-" + some(ALNUM, 20)],
    "slack-token": ["xoxb-" + some("0123456789", 12) + "-" + some(ALNUM, 24), "xapp-1-A0-" + some(ALNUM, 30)],
    "stripe-key": ["sk_live_" + some(ALNUM, 24), "rk_test_" + some(ALNUM, 24), "whsec_" + some(ALNUM, 32)],
    "anthropic-key": ["sk-ant-api03-" + some(ALNUM, 93)],
    "openai-key": ["sk-proj-" + some(ALNUM, 48), "sk-" + some(ALNUM, 48)],
    "huggingface-token": ["hf_" + some(string.ascii_letters, 34)],
    "npm-token": ["npm_" + some(ALNUM, 36)],
    "pypi-token": ["pypi-AgE" + some(ALNUM, 120)],
    "sendgrid-key": ["SG." + some(ALNUM, 22) + "." + some(ALNUM, 43)],
    "twilio-key": ["SK" + some(HEX, 32)],
    "telegram-token": [some("123456789", 9) + ":AA" + some(ALNUM, 33)],
    "digitalocean-token": ["dop_v1_" + some(HEX, 64)],
    "databricks-token": ["dapi" + some(HEX, 32)],
    "shopify-token": ["shpat_" + some(HEX, 32)],
    "docker-token": ["dckr_pat_" + some(ALNUM, 27)],
    "vault-token": ["hvs." + some(ALNUM, 24)],
    "terraform-token": [some(ALNUM, 14) + ".atlasv1." + some(ALNUM, 67)],
    "groq-key": ["gsk_" + some(ALNUM, 52)],
    "grafana-token": ["glsa_" + some(ALNUM, 32) + "_" + some(HEX, 8)],
    "atlassian-token": ["ATATT3" + some(ALNUM, 180)],
    "age-key": ["AGE-SECRET-KEY-1" + some(BASE32, 58)],
    "afterimage-key": ["aft_" + some(HEX, 32) + "_" + some(ALNUM, 43)],
    "jwt": [JWT],
}

INSIDE = {
    "aws-secret-key": [
        ("aws_secret_access_key = ", some(ALNUM + "/+", 40), "\n"),
        ("export AWS_SECRET_ACCESS_KEY=", some(ALNUM, 40), "\n"),
        ('secretAccessKey: "', some(ALNUM, 40), '"'),
    ],
    "azure-key": [("AccountName=shop;AccountKey=", some(ALNUM, 86) + "==", ";EndpointSuffix=core.windows.net")],
    "slack-webhook": [("https://hooks.slack.com/services/", "T00000001/B00000002/" + some(ALNUM, 24), '"')],
    "password": [
        ("postgresql://shop:", "s3cr3t-Pa55", "@db.example.com:5432/shop"),
        ("redis://:", "hunter2", "@cache:6379/0"),
        ("mongodb+srv://root:", "p%40ss", "@cluster0.example.net"),
        ("Server=tcp:shop.example.net,1433;Database=shop;User ID=sa;Password=", "Pa55w0rd!x", ";Encrypt=true"),
        ('"host=db user=shop password=', "hunter2", ' dbname=shop"'),
    ],
}

KEY = "\n".join(some(ALNUM, 64) for _ in range(12)) + "\n" + some(ALNUM, 20) + "=="


def kinds(text: str) -> list[str]:
    return [secret.kind for secret in find_secrets(text)]


def cleaned(text: str) -> str:
    return without(text, find_secrets(text))


@pytest.mark.parametrize("kind", TOKENS)
def test_tokens_of_each_kind_are_found_wherever_they_stand(kind: str) -> None:
    for token in TOKENS[kind]:
        for before, after in (("", ""), ('KEY = "', '"\n'), ("x=", " # y"), ("Bearer ", "\n"), ("('", "')")):
            assert cleaned(f"{before}{token}{after}") == f"{before}[REDACTED:{kind}]{after}", token


@pytest.mark.parametrize("kind", INSIDE)
def test_secrets_that_their_surroundings_give_away(kind: str) -> None:
    for before, secret, after in INSIDE[kind]:
        assert cleaned(f"a\n{before}{secret}{after}\nb") == f"a\n{before}[REDACTED:{kind}]{after}\nb"


def test_every_rule_is_tried_here() -> None:
    assert {rule.kind for rule in RULES} == TOKENS.keys() | INSIDE.keys()


@pytest.mark.parametrize("label", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", "PGP "])
def test_private_keys_lose_what_stands_between_their_lines(label: str) -> None:
    block = " BLOCK" if label == "PGP " else ""
    begin, end = f"-----BEGIN {label}PRIVATE KEY{block}-----", f"-----END {label}PRIVATE KEY{block}-----"
    for body in (f"\n{KEY}\n", KEY.replace("\n", "\\n"), f"\nVersion: GnuPG v2 - x\n\n{KEY}\n"):
        assert cleaned(f"a = '''{begin}{body}{end}'''") == f"a = '''{begin}[REDACTED:private-key]{end}'''"
    torn = cleaned(f"{begin}\n{KEY}")
    assert "[REDACTED:private-key]" in torn
    assert KEY[:40] not in torn
    assert KEY[-30:-5] not in torn


@pytest.mark.parametrize(
    "text",
    [
        "def parse_header(line): return line.partition(':')",
        'if "-----BEGIN PRIVATE KEY-----" in text and "-----END PRIVATE KEY-----" in text:',
        "sha = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'",
        "id = '01a20e82-cd37-70df-a52c-de4ebe9e91a1'",
        "token = 'ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'",
        "AWS_ACCESS_KEY_ID = 'AKIAIOSFODNN7EXAMPLE'",
        "url = f'postgresql://{user}:{password}@{host}/db'",
        "url = 'postgresql://user:${PG_PASSWORD}@host/db'; 'postgres://u:<password>@h'; 'amqp://a:%s@b'; 'x://a:****@b'",
        "connect(host=host, user=None, password=None, ssl=True)",
        "user = get_user(); password = read_password()",
        "git clone git@github.com:a/b.git https://example.com:8080/a@b",
        "src/sk-learn-model-selection-with-a-long-name-that-goes-on-and-on.py",
        "desk-abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz",
        "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUgAA" * 20,
        "eyJub3QiOiJhIGp3dCJ9.eyJhIjoiYiIsImMiOiJkIn0.abcdefghijklmnopqrstuvwxyz",
        "secret_access_key: str | None = None",
        "SKELETON = 1; SKU0123456789 = 2; dapi = fastapi",
    ],
)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert cleaned(text) == text


def test_lines_and_order() -> None:
    [first, *_] = TOKENS["github-token"]
    found = find_secrets(f"{JWT}\n\n{first} {JWT}\n")
    assert [(secret.kind, secret.line) for secret in found] == [("jwt", 1), ("github-token", 3), ("jwt", 3)]


def test_each_mode() -> None:
    texts = {"new_code": f"a\nkey = '{JWT}'", "old_code": None, "context": "none"}
    clean, count = Redaction().clean(**texts)
    assert (clean, count) == ({**texts, "new_code": "a\nkey = '[REDACTED:jwt]'"}, 1)
    assert Redaction(SecretsMode.ALLOW).clean(**texts) == (texts, 0)
    with pytest.raises(SecretError, match=r"^new_code: holds 1 secret\(s\): jwt in line 2; ") as refused:
        Redaction(SecretsMode.REJECT).clean(**texts)
    assert JWT[:20] not in str(refused.value)


PARTS = st.sampled_from(
    [*[token for tokens in TOKENS.values() for token in tokens], *(" ", "\n", '"', "=", "x", "-----")]
)


@settings(max_examples=200)
@given(st.lists(st.one_of(PARTS, st.text(max_size=20)), max_size=30))
def test_what_was_cleaned_is_clean_and_the_rest_is_as_it_was(parts: list[str]) -> None:
    text = " ".join(parts)
    once = cleaned(text)
    assert cleaned(once) == once
    at = 0
    for kept in re.split(r"\[REDACTED:[\w-]+\]", once):
        at = text.index(kept, at) + len(kept)


WORST = ["-eyJaaaaaaaaaa", "eyJaaaaaaaa.", "-----BEGIN PRIVATE KEY-----", "http://a:", "aws secret ", "host=a ", "SG."]
WORST += ["-----BEGIN PRIVATE KEY-----" + "A" * 50, "secret_access_key ", "://a:b", "host=a;", "glpat-", "Pwd=;host=a;"]


@pytest.mark.parametrize("unit", WORST)
def test_the_worst_text_of_a_mebibyte_comes_to_an_end(unit: str) -> None:
    """An expression that goes back and forth would take hours for it."""
    text = (unit * 2**20)[: 2**20]
    assert cleaned(text)
