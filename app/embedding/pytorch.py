"""What imports sentence-transformers: finding a model."""

import logging
from contextlib import suppress
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from sentence_transformers import SentenceTransformer
from transformers.utils.logging import disable_progress_bar

from app.embedding import minilm
from app.embedding.device import first_line
from app.errors import UnavailableError

HUB_TIMEOUT_SECONDS = 5.0

# Their notices do not belong in the service's output.
for library in ("huggingface_hub", "sentence_transformers", "transformers"):
    logging.getLogger(library).setLevel(logging.ERROR)
disable_progress_bar()  # type: ignore[no-untyped-call]


def open_transformer(model: str, device: str) -> SentenceTransformer:
    """The default model from its package; any other from this machine or else from the hub.

    Raises:
        UnavailableError: the model is in none of these places.
    """
    if minilm.is_named(model):
        return SentenceTransformer(str(minilm.checked_weights().parent), device=device)
    path = str(Path(model).expanduser())
    try:
        try:
            return SentenceTransformer(path, device=device, local_files_only=True)
        except OSError:
            # Without a network the library asks for over a minute; so first one question, to which any answer will do.
            with suppress(HfHubHTTPError):
                HfApi().model_info(model, timeout=HUB_TIMEOUT_SECONDS)
            return SentenceTransformer(model, device=device)
    except Exception as error:
        raise UnavailableError(
            f"the embedding model {model!r} can be loaded neither from this machine nor from the hub "
            f"({first_line(error)}); set AFTERIMAGE_EMBEDDING_MODEL to a local folder or to another model"
        ) from error
