"""Other programs from PyPI, each in an environment of its own below `.build/`."""

import subprocess
import venv
from pathlib import Path


def python_with(name: str, *packages: str) -> str:
    """The interpreter of an environment that holds the packages; it is made once."""
    place = Path(".build") / name
    python = place / "bin" / "python"
    if not (place / "installed").exists():
        venv.create(place, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (place / "installed").touch()
    return str(python.absolute())


def ai_afterimage(version: str) -> str:
    """The interpreter of an environment with AI-AfterImage and what it needs for PostgreSQL."""
    needed = ("asyncpg", "psycopg[binary]", "nest-asyncio", "pgvector<0.5", "numpy", "pyyaml")
    return python_with(f"ai-afterimage-{version}", f"ai-afterimage=={version}", *needed)


def chroma() -> str:
    """The interpreter of an environment with Chroma."""
    return python_with("chroma", "chromadb==1.5.9")
