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
from app.redaction import Redaction, SecretsMode, find_secrets, without
from app.secret_forms import RULES, Rule

ALNUM = string.ascii_letters + string.digits
UNDERSCORED = ALNUM + "_-"
random = Random(7)


def some(alphabet: str, length: int) -> str:
    """Characters as in a real token; made here, so that nobody takes them for a leak."""
    return "".join(random.choices(alphabet, k=length))


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


HEX = "0123456789abcdef"
LOWER = string.ascii_lowercase + string.digits
BASE32 = string.ascii_uppercase + "234567"
HEADER = segment({"alg": "RSA-OAEP", "enc": "A256GCM"})
JWT = f"{segment({'alg': 'HS256', 'typ': 'JWT'})}.{segment({'sub': '1234567890'})}.{some(ALNUM, 43)}"

TOKENS = {
    "aws-access-key-id": ["AKIA" + some(BASE32, 16), "ASIA" + some(BASE32, 16)],
    "google-api-key": ["AIza" + some(ALNUM, 35)],
    "google-oauth-token": [
        "ya29." + some(ALNUM, 60),
        "GOCSPX-" + some(ALNUM, 28),
        "1//" + "0e" + some(UNDERSCORED, 100),
    ],
    "github-token": [f"gh{kind}_" + some(ALNUM, 36) for kind in "pousr"]
    + ["github_pat_" + some(ALNUM, 22) + "_" + some(ALNUM, 59)],
    "gitlab-token": [
        "glpat-" + some(ALNUM, 20),
        "gldt-" + some(ALNUM, 20),
        "glpat-" + some(ALNUM, 27) + ".01." + some(LOWER, 9),
        "glrt-" + some(ALNUM, 40) + "." + some(LOWER, 9),
    ],
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
    "atlassian-token": [
        "ATATT3" + some(ALNUM, 180),
        "ATCTT3" + some(ALNUM, 177) + "=" + some(HEX, 8),
        "ATBB" + some(ALNUM, 32),
    ],
    "aws-bedrock-key": ["ABSK" + some(ALNUM, 128), "bedrock-api-key-" + some(ALNUM, 200)],
    "azure-client-secret": ["aB1" + "8Q~" + some(ALNUM + "_~.-", 33) + "x", ".~_" + "7Q~" + some(ALNUM, 34)],
    "alibaba-key": ["LTAI" + "5t" + some(ALNUM, 18)],
    "openrouter-key": ["sk-or-v1-" + some(HEX, 64)],
    "xai-key": ["xai-" + some(ALNUM, 80)],
    "replicate-token": ["r8_" + some(ALNUM, 37)],
    "rubygems-key": ["rubygems_" + some(HEX, 48)],
    "crates-token": ["cio" + some(ALNUM, 32)],
    "nuget-key": ["oy2" + some(LOWER, 43)],
    "mailgun-key": ["key-" + some(HEX, 32)],
    "heroku-key": ["HRKU-" + "AA" + some(UNDERSCORED, 58)],
    "sentry-token": [
        "sntrys_" + segment({"iat": 1}) + some(ALNUM, 80) + "=_" + some(ALNUM, 43),
        "sntryu_" + some(HEX, 64),
    ],
    "linear-key": ["lin_api_" + some(ALNUM, 40)],
    "notion-token": ["ntn_" + some(string.digits, 11) + some(ALNUM, 35)],
    "figma-token": ["figd_" + some(UNDERSCORED, 40)],
    "fly-token": ["fo1_" + some(UNDERSCORED, 42) + "x", "fm2_" + some(ALNUM + "+/", 200) + "=="],
    "planetscale-token": [f"pscale_{kind}_" + some(ALNUM, 43) for kind in ("tkn", "pw", "oauth")],
    "supabase-key": ["sbp_" + some(HEX, 40), "sb_secret_" + some(ALNUM, 22) + "_" + some(ALNUM, 8)],
    "doppler-token": ["dp.pt." + some(ALNUM, 43)],
    "postman-key": ["PMAK-" + some(HEX, 24) + "-" + some(HEX, 34)],
    "square-token": ["EAAA" + "l" + some(ALNUM, 59), "sq0atp-" + some(ALNUM, 22), "sq0csp-" + some(ALNUM, 43)],
    "netlify-token": ["nfp_" + some(ALNUM, 36)],
    "age-key": ["AGE-SECRET-KEY-1" + some(BASE32, 58)],
    "afterimage-key": ["aft_" + some(HEX, 32) + "_" + some(ALNUM, 43)],
    "jwt": [
        JWT,
        f"{segment({'alg': 'none'})}.{segment({'sub': '1234567890'})}.",
        f"{HEADER}.{some(UNDERSCORED, 342)}.{some(ALNUM, 16)}.{some(UNDERSCORED, 80)}.{some(ALNUM, 22)}",
        f"{segment({'alg': 'dir', 'enc': 'A256GCM'})}..{some(ALNUM, 16)}.{some(ALNUM, 8)}.{some(ALNUM, 22)}",
    ],
}

PPK = "\n".join(some(ALNUM + "+/", 64) for _ in range(2)) + "\n" + some(ALNUM, 22) + "=="

INSIDE = {
    "aws-secret-key": [
        ("aws_secret_access_key = ", some(ALNUM + "/+", 40), "\n"),
        ("export AWS_SECRET_ACCESS_KEY=", some(ALNUM, 40), "\n"),
        ('secretAccessKey: "', some(ALNUM, 40), '"'),
    ],
    "azure-key": [("AccountName=shop;AccountKey=", some(ALNUM, 86) + "==", ";EndpointSuffix=core.windows.net")],
    "azure-sas": [
        ("https://shop.blob.core.windows.net/a?sv=2022-11-02&sp=r&sig=", some(ALNUM, 42) + "%3D", "&x=1"),
        ("https://shop.blob.core.windows.net/a?sig=", some(ALNUM, 38) + "%2Bx%3D", "&sv=2022-11-02&se=2030-01-01"),
        ("SharedAccessSignature sr=shop&sig=", some(ALNUM, 43) + "%3D", "&se=1893456000&skn=root"),
    ],
    "alibaba-key": [("ALIBABA_CLOUD_ACCESS_KEY_SECRET=", some(ALNUM, 30), "\n")],
    "slack-webhook": [("https://hooks.slack.com/services/", "T00000001/B00000002/" + some(ALNUM, 24), '"')],
    "discord-webhook": [
        ("https://discord.com/api/webhooks/" + some("123456789", 18) + "/", some(UNDERSCORED, 68), '"'),
        ("https://discordapp.com/api/v10/webhooks/" + some("123456789", 19) + "/", some(UNDERSCORED, 68), "?wait=true"),
    ],
    "private-key": [
        ("Public-Lines: 1\nAAAA\nPrivate-Lines: 3\n", PPK, "\nPrivate-MAC: 0123456789abcdef"),
        ("Public-Lines: 1\\nAAAA\\nPrivate-Lines: 3\\n", PPK.replace("\n", "\\n"), "\\nPrivate-MAC: 0123456789abcdef"),
        ('{"keys":[{"kty":"EC","crv":"P-256","x":"' + some(ALNUM, 43) + '","d":"', some(UNDERSCORED, 43), '"}]}'),
        ('{"d": "', some(UNDERSCORED, 43), '", "x": "' + some(ALNUM, 43) + '", "kty": "OKP"}'),
        ("{'k': '", some(UNDERSCORED, 43), "', 'kty': 'oct'}"),
        ('"{\\"kty\\":\\"oct\\",\\"k\\":\\"', some(UNDERSCORED, 43), '\\"}"'),
    ],
    "password": [
        ("postgresql://shop:", "s3cr3t-Pa55", "@db.example.com:5432/shop"),
        ("redis://:", "hunter2", "@cache:6379/0"),
        ("mongodb+srv://root:", "p%40ss", "@cluster0.example.net"),
        ("postgresql://user:", "%40dmin123Secret", "@db/x"),
        ("postgresql://user:", "$ecretPw9", "@db/x"),
        ("postgresql://user:", "{x}tail", "@db/x"),
        ("postgresql://user:", "<x>tail", "@db/x"),
        ("postgresql://user:", "[x]tail", "@db/x"),
        ("postgresql://user:", "$(x)tail", "@db/x"),
        ("postgresql://user:", "p@ss@w0rd", "@db/x"),
        ("postgresql://user:", "s3cr3t", "@{host}/x"),
        ("postgresql://user:", "s3cr3t", "@$DB_HOST/x"),
        ("smtp://me@x.com:", "pw", "@host"),
        ("jdbc:postgresql://h/db?user=u&password=", "s3cr3t", "&ssl=true"),
        ("https://h/login?password=", "s3cr3t", '"'),
        ("jdbc:sqlserver://h:1433;databaseName=d;user=u;password=", "s3cr3t", ";encrypt=true"),
        ("jdbc:sqlserver://h:1433;password=", "{s3cr3t+Pw}", ";encrypt=true"),
        ("Server=tcp:shop.example.net,1433;Database=shop;User ID=sa;Password=", "Pa55w0rd!x", ";Encrypt=true"),
        ("Server=h;User Id=u;Password='", "s3cret;Pw", "';"),
        ('Server=h;User Id=u;Password=\\"', "s3cret;Pw", '\\";'),
        ("Server=h;User Id=u;Password='", "it''s;s3cret", "';"),
        ('<add>Server=h;User Id=u;Password="', "s3cret;Pw", '";</add>'),
        ("Driver={ODBC Driver 18};Server=h;Uid=u;Pwd=", "{s3cret;Pw}}x}", ";Encrypt=yes"),
        ("Server=h;Uid=u;Pwd=", "{S3cretPw}", ";Encrypt=yes"),
        ("Data Source = h; User Id = u; Password = ", "s3cretPw", "; Encrypt = true"),
        ("Password=", "s3cretPw", ";Server=h;User Id=u"),
        ("Password = '", "s3cret;Pw", "'; Encrypt = true; Data Source = h; User Id = u"),
        ('"host=db user=shop password=', "hunter2", ' dbname=shop"'),
        ("\"host=h user=u password='", "s3cret Pw", "' dbname=d\""),
        ("'host=h user=u password=\\'", "s3cret Pw", "\\' dbname=d'"),
        ("\"host='h' user='u' password='", "it\\'s s3cret", "'\""),
        ("dblink('host=h user=u password=''", "s3cret Pw", "'' dbname=d')"),
        ('"password=', "hunter2", ' host=db user=shop"'),
        ("h:6379,password=", "s3cr3t=", ",ssl=True"),
        ("h1:6379,h2:6379,ssl=true,password=", "s3cr3t", '"'),
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


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_every_pattern_is_a_regular_expression(rule: Rule) -> None:
    assert re.compile(rule.pattern).groups >= 1


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


@pytest.mark.parametrize("label", ["", "ENCRYPTED "])
def test_so_do_those_of_ssh2(label: str) -> None:
    begin, end = f"---- BEGIN SSH2 {label}PRIVATE KEY ----", f"---- END SSH2 {label}PRIVATE KEY ----"
    assert cleaned(f"{begin}\nComment: x\n{KEY}\n{end}") == f"{begin}[REDACTED:private-key]{end}"


@pytest.mark.parametrize("between", ["\n", "\\n", '",\n  "'])
def test_and_those_of_short_lines(between: str) -> None:
    begin, end = "-----BEGIN " + "PRIVATE KEY-----", "-----END " + "PRIVATE KEY-----"
    body = between.join(some(ALNUM, 32) for _ in range(2))
    assert cleaned(f"{begin}{between}{body}{between}{end}") == f"{begin}[REDACTED:private-key]{end}"
    assert body[:20] not in cleaned(f"{begin}{between}{body}")


def test_public_members_of_a_web_key_stay() -> None:
    public = {"kty": "RSA", "n": some(UNDERSCORED, 342), "e": "AQAB", "kid": some(ALNUM, 43)}
    private = {name: some(UNDERSCORED, 171) for name in ("d", "p", "q", "dp", "dq", "qi")}
    without_d = {"d": some(UNDERSCORED, 43)}
    for indent in (None, 2):
        shown = cleaned(json.dumps([public | private, without_d], indent=indent))
        assert json.loads(shown) == [public | dict.fromkeys(private, "[REDACTED:private-key]"), without_d]


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
        "'a://u:%(password)s@h'; 'a://u:%PASSWORD%@h'; 'a://u:%{pw}@h'; 'a://u:$DB_PASSWORD@h'; 'a://u:$pw_2@h'",
        "'a://u:[x]@h'; 'a://u:$(cmd)@h'; 'a://u:{a}:{b}@h'; 'a://u:$$PW@h'; 'a://u:...@h'; 'a://u:{{pw}}@{{h}}'",
        "f'jdbc:postgresql://{h}/d?user={u}&password={password}'; 'jdbc:sqlserver://h;user=u;password=${PW};x=y'",
        "f'Server={h};Uid={u};Pwd={password};'; f'Server={h};Pwd={config.get(name)!r};'; 'Server=h;Pwd={0};'",
        "'Server=h;User Id=u;Password=' + password + ';Encrypt=true'; 'Server=h;Pwd='; 'x'",
        '"Server=h;User Id=u;Password=" + password + ";Encrypt=true"; "Password=" + password + ";Server=h"',
        'f("Server=h;Pwd=", "x"); g("Server=h;Pwd=").h("x"); "Server=h;Pwd=" if a else "b"',
        'x = "Server=h;Pwd="; y = ""',
        "'host=h user=u password=' + password + ' dbname=d'; \"host=h user=u password='\" + pw + \"' dbname=d\"",
        "'host=h password=<your password> dbname=d'; 'host=h password={{ pw }}'; \"host=h password='%s'\"",
        "host = a; user = b; password = c;\nhost = a;\npassword = b;\n",
        "function f(a) { a.host=b;a.user=c;a.password=d } x = {port:6379,user:b}; connect(h:6379, password=x)",
        "f'{host}:6379,password={password},ssl=True'; 'h:6379,password=' + password",
        "https://h/a?sig=short&se=1; f(sig=inspect.signature(f)); https://h/a?se=1&sig=" + "${signature}" * 4,
        "header = 'eyJhbGciOiJIUzI1NiJ9'; 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0...'; eyJhbGciOiJIUzI1NiJ9.x.y.z.w",
        "cache-key-9f86d081884c7d659a2feaa0c55ad015 key-value /key-9f86d081884c7d659a2feaa0c55ad015.js",
        "suspicious precious cioaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa oy2 uint8_t utf8_aB1 content_type 1//0 LTAINTERNAL",
        "EAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ATBB ABSK fm2_ discord.com/api/webhooks/1",
        "Private-Lines: 14\nPrivate-MAC: none\n---- BEGIN SSH2 PRIVATE KEY ----\n---- END SSH2 PRIVATE KEY ----",
        "jwk = {'kty': 'EC', 'd': None}; {kty: key.type, d: encode(key.d), k: 'short'}; {'d': 'abcdefghijklmnopqrst'}",
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


WORST += [
    "eyJaaaaaaaa.eyJaaaaaaaa.",
    "eyJaaaaaaaa..aaaaaaaaaaaaaaaa.a.",
    "://a?password&",
    "://a;",
    "?&se=a",
    "sig=" + "a" * 32,
]
WORST += [
    "Password=a;Server ",
    "Server = a; Password =",
    "Pwd= Pwd =; a=b",
    "password='\\",
    "host='a' password='",
    "h:6379,a=b,",
]
WORST += [
    "password=a host=",
    "sig=&sp=b",
    "cio oy2 r8_ key- ntn_",
    "{kty d:'",
    "kty" + '"d":"',
    "1//0",
    "Q~1Q~",
    "a1Q~" * 9,
]
WORST += [
    "Private-Lines: 1\n",
    "Private-Lines: 1\n" + "A" * 40 + "\n",
    "---- BEGIN SSH2 PRIVATE KEY ----" + "A" * 32 + " ",
]
WORST += [
    "-----BEGIN PRIVATE KEY-----" * 700 + "-----END",
    "://u:a@",
    "://@:@{",
    "fm2_",
    "Pwd={}}",
    "a=b;Server=Pwd=",
    "sntrys_",
]
WORST += ["Server=a;Pwd='", "Server=a;Pwd=''", 'Server=a;Pwd="', "host=a password=''", "password=''"]


@pytest.mark.parametrize("unit", WORST)
def test_the_worst_text_of_a_mebibyte_comes_to_an_end(unit: str) -> None:
    """An expression that goes back and forth would take hours for it."""
    text = (unit * (2**20 // len(unit) + 1))[: 2**20]
    assert cleaned(text)
