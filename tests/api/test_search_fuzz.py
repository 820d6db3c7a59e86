"""Any text is a valid query."""

import os
from random import Random

import httpx

TEXTS = int(os.environ.get("FUZZ_TEXTS", "300"))

PIECES = [
    '"', "'", "-", "--", "*", "(", ")", "{", "}", ":", "::", "->", "&", "|", "!", "<->", "=", "==", "\\", "/",
    "%", "$1",
    "AND", "OR", "NOT", "NEAR", "^", "~", "\n", "\t", " ", "\x01", "\x1f", "\x7f", "\u200b", "\ufeff", "😀", "é", "ß",
    "İ", "¹",
    "日本", "def f(x):", "parse", "parseHeader", "get_user_by_id", "json.loads(", "-cookie", '"parse header"', "SELECT",
    "0x1F",
    "names:", "=name", "__init__", "_", "a" * 70, "A1b2" * 20, "func (s *T) M(", "const f = (", "class", "\ud7ff",
    "\U0010ffff",
]  # fmt: skip


async def test_no_text_makes_a_server_error(client: httpx.AsyncClient) -> None:
    random = Random(0)
    await client.post("/v1/memories", json={"file_path": "a.py", "new_code": " ".join(PIECES)})
    for number in range(TEXTS):
        glue = random.choice(["", " ", "\n"])
        query = glue.join(random.choices(PIECES, k=random.choice([1, 2, 3, 5, 10, 30])))
        if number % 100 == 0:
            query = (query * 100_000)[:100_000]
        mode = random.choice(["fts", "fts", "hybrid"])
        asked = {"query": query, "match": random.choice(["any", "all"])}
        answer = await client.post(f"/v1/search/{mode}", json=asked)
        assert answer.status_code == 200, (query[:200], answer.text)
