"""AI-AfterImage itself, of a version on PyPI, in an environment of its own below `.build/`."""

import subprocess
import venv
from pathlib import Path

NEEDS = ["asyncpg", "psycopg[binary]", "nest-asyncio", "pgvector<0.5", "numpy", "pyyaml"]
"""What it imports and does not ask for."""


def peer_python(version: str) -> str:
    """The interpreter of the environment; the first use installs it."""
    place = Path(".build") / f"ai-afterimage-{version}"
    python = place / "bin" / "python"
    if not (place / "installed").exists():
        venv.create(place, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"ai-afterimage=={version}", *NEEDS], check=True)
        (place / "installed").touch()
    return str(python.absolute())
