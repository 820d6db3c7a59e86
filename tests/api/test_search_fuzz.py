"""Any text is a valid query, in every mode."""

from random import Random

import httpx

from app.search import SearchMode
from tests.effort import effort

TEXTS = effort(300, full=10_000)

PIECES = [
    '"', "'", "-", "--", "*", "(", ")", "{", "}", ":", "::", "->", "&", "|", "!", "<->", "=", "==", "\\", "/",
    "%", "$1",
    "AND", "OR", "NOT", "NEAR", "^", "~", "\n", "\t", " ", "\x01", "\x1f", "\x7f", "\u200b", "\ufeff", "😀", "é", "ß",
    "İ", "¹",
    "日本", "def f(x):", "parse", "parseHeader", "get_user_by_id", "json.loads(", "-cookie", '"parse header"', "SELECT",
    "0x1F",
    "names:", "=name", "__init__", "_", "a" * 70, "A1b2" * 20, "func (s *T) M(", "const f = (", "class", "\ud7ff",
    "\U0010ffff", "\x00", "\x1b[0m", "\r\n", "\u2028",
]  # fmt: skip


async def test_no_text_makes_a_server_error(client: httpx.AsyncClient) -> None:
    random = Random(0)
    await client.post("/v1/memories", json={"file_path": "a.py", "new_code": " ".join(PIECES).replace("\0", "")})
    for number in range(TEXTS):
        glue = random.choice(["", " ", "\n"])
        query = glue.join(random.choices(PIECES, k=random.choice([1, 2, 3, 5, 10, 30])))
        if number % 100 == 0:
            query = (query * 100_000)[:100_000]
        asked = {"query": query, "match": random.choice(["any", "all"])}
        answer = await client.post(f"/v1/search/{random.choice(list(SearchMode))}", json=asked)
        assert answer.status_code == 200, (query[:200], answer.text)
